"""The rows that stages hand to each other. They travel as JSON, one object a line or a file."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Literal, TypeVar

from pydantic import BaseModel, ConfigDict

Finish = Literal["stop", "length"]
Verdict = Literal["right", "wrong", "unparsed"]


class Record(BaseModel):
    """A row; unknown keys are refused, so that two versions of dail never misread each other."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Problem(Record):
    """A problem, with what experts wrote about it."""

    id: str
    """Unique within its file."""
    problem: str
    """The problem's text."""
    solutions: tuple[str, ...] = ()
    """Expert solutions; empty in evaluation sets."""
    answer: str | None = None
    """Final answer, where known."""
    hint: str | None = None
    """Landmarks given by the user; None: extracted from the solution."""
    set: str = ""
    """Name of the evaluation set, or '' for training problems."""


class Sample(Record):
    """One generated response."""

    index: int
    """Which of the n samples of its problem."""
    ids: tuple[int, ...]
    """Response token ids, the EOS that ended it included."""
    text: str
    """The ids decoded, special tokens left out (</think> stays visible)."""
    finish: Finish
    """`stop`: ended by EOS; `length`: cut."""
    logprob: float | None
    """Log-probability of the whole response under the distribution it was drawn from, in nats; None where the engine does not
    say (vLLM servers without dail's plugin)."""
    accepted: int = 0
    """Tokens that came from the student (mixed policy); 0 for direct."""
    distance: float | None = 0.0
    """Total variation distance between the distribution drawn from and M_T, summed over the tokens; 0 for direct, None where the
    engine does not say."""


class Rollout(Record):
    """All samples of one problem."""

    id: str
    """The problem's id."""
    set: str = ""
    """Its evaluation set, or ''."""
    samples: tuple[Sample, ...]
    """In order of `index`."""


class Kept(Record):
    """A trace that training learns from."""

    id: str
    """The problem's id."""
    index: int
    """The sample's index."""
    ids: tuple[int, ...]
    """Response token ids."""
    text: str
    """Response text."""
    verdict: Verdict | None
    """Its grade; None where the problem has no answer."""


R = TypeVar("R", bound=Record)


def to_jsonl(rows: Iterable[Record]) -> bytes:
    """One row a line."""
    return "".join(row.model_dump_json() + "\n" for row in rows).encode()


def from_jsonl(kind: type[R], data: bytes) -> Iterator[R]:
    """The rows of a JSONL object, checked."""
    # Not splitlines(): a JSON string may hold U+2028 and its like, which are no line ends here.
    return (kind.model_validate_json(line) for line in data.split(b"\n") if line)
