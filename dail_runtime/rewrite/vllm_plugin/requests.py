"""What a request tells the plugin, in the flat arguments that also fit through HTTP (`vllm_xargs`), and what comes back.

Of each token one number comes back:

    student half, single row    log-probability of the token under the distribution it was drawn from (at most 0, up to rounding)
    teacher half                total variation distance, plus ACCEPTED where the student's branch drew

From the processor to the scheduler it travels beside vLLM's own results of a step (rewrite/vllm_plugin/worker.py): vLLM's way for a
number a token, its log-probability, costs a ranking of the vocabulary for every row. The scheduler keeps it, and hands the whole
response's over at its end, in `kv_transfer_params` under RESULTS: the one field of vLLM's that a scheduler may fill and that every
interface returns. It is free, because the plugin refuses settings that use it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal

Role = Literal["single", "student", "teacher"]

PREFIX = "dail_"
PROTOCOL = 3
"""Number of this set of arguments and values; raised when either changes."""
PROBE = PREFIX + "probe"
"""An argument that is always refused, in words that say which protocol the plugin speaks: how a client finds out over HTTP."""
_SPOKEN = "dail's vLLM plugin speaks protocol "
TOLD = PREFIX + "told"
"""Attribute of a step's results (ModelRunnerOutput): a number for each of its rows; missing where none of them is dail's."""
RESULTS = PREFIX + "results"
"""Where the numbers of a finished response are: a list, one a token."""
ACCEPTED = 2.0
"""What is added where the student's branch drew."""
BROKEN = "the model gives logits that are not finite numbers"
"""Why a request ends whose token cannot be drawn."""


@dataclass(frozen=True)
class Row:
    """How the plugin draws for one request."""

    role: Role
    """`single` draws alone (policy `direct`); the other two are the halves of a pair (`mixed`)."""
    pair: str
    """Name that both halves share and no other pair; '' for `single`."""
    seed: int
    """Of the problem (see rewrite/streams.py)."""
    sample: int
    """Index of the sample."""
    temperature: float
    """0 is greedy. vLLM's own temperature must be 0, because the plugin leaves one token to choose from."""
    top_p: float
    tau: float = 0.0
    tries: int = 1
    suppress: tuple[int, ...] = ()
    """Ids that are never drawn."""
    wait: float = 60.0
    """Seconds that a half waits for its mate to arrive."""

    def to_args(self) -> dict[str, Any]:
        """The request's extra arguments."""
        args = {PREFIX + field.name: getattr(self, field.name) for field in fields(self)}
        return {**args, PREFIX + "suppress": list(self.suppress)}

    @classmethod
    def of(cls, extra: Mapping[str, Any] | None) -> Row | None:
        """The row that `extra` describes, or None for a request that is not dail's.

        Raises:
            ValueError: the arguments are incomplete or make no sense.
        """
        given = {name.removeprefix(PREFIX): value for name, value in (extra or {}).items() if name.startswith(PREFIX)}
        if not given:
            return None
        if "probe" in given:
            raise ValueError(f"{_SPOKEN}{PROTOCOL}")
        unknown = set(given) - {field.name for field in fields(cls)}
        if unknown:
            raise ValueError(f"{PREFIX}{sorted(unknown)[0]}: dail's plugin has no such argument")
        try:
            row = cls(
                role=given["role"],
                pair=str(given.get("pair", "")),
                seed=int(given["seed"]),
                sample=int(given["sample"]),
                temperature=float(given["temperature"]),
                top_p=float(given["top_p"]),
                tau=float(given.get("tau", 0.0)),
                tries=int(given.get("tries", 1)),
                suppress=tuple(int(id_) for id_ in given.get("suppress", ())),
                wait=float(given.get("wait", 60.0)),
            )
        except KeyError as err:
            raise ValueError(f"{PREFIX}{err.args[0]} is missing; dail's plugin needs it in every request") from None
        except TypeError as err:
            raise ValueError(f"dail's arguments cannot be read: {err}") from None
        row._check()
        return row

    def _check(self) -> None:
        if self.role not in ("single", "student", "teacher"):
            raise ValueError(f"{PREFIX}role is {self.role!r}; give single, student or teacher")
        if (self.role == "single") != (not self.pair):
            raise ValueError(f"{PREFIX}pair names the two halves student and teacher, and only them")
        if not (0 <= self.seed < 2**64 and 0 <= self.sample < 2**64 and self.tries >= 1 and min(self.suppress, default=0) >= 0):
            raise ValueError(f"{PREFIX}seed, {PREFIX}sample, {PREFIX}tries or {PREFIX}suppress is out of range")
        if not (self.temperature >= 0 and 0 < self.top_p <= 1 and self.tau >= 0 and self.wait > 0):
            raise ValueError(f"{PREFIX}temperature, {PREFIX}top_p, {PREFIX}tau or {PREFIX}wait is out of range")


def speaks(refusal: str) -> bool:
    """Whether a server's answer to PROBE says that it has the plugin, with this protocol."""
    return f"{_SPOKEN}{PROTOCOL}" in refusal


@dataclass(frozen=True)
class Told:
    """What the values of a whole response say."""

    logprob: float
    """Sum over the tokens, nats."""
    accepted: int
    """Tokens that the student's branch drew."""
    distance: float
    """Total variation distance, summed over the tokens."""


def read(own: Sequence[float], teacher: Sequence[float] = ()) -> Told:
    """Decode the values of a student half (or single row), and of its teacher half."""
    accepted = sum(value >= ACCEPTED for value in teacher)
    return Told(sum(own), accepted, sum(teacher) - ACCEPTED * accepted)
