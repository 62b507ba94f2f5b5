"""How fast a task will go: rates that were measured, by this run or by someone who wrote them down, each with its source."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.alias_generators import to_camel

from dail_runtime.errors import UsageError
from dail_runtime.spec import DailJob, Task
from dailctl.estimate.facts import Fact
from dailctl.estimate.match import alike, effort

MACHINE = "machine"
"""The unit of a rate that was measured without GPUs of a cluster: this whole machine."""


class Rate(BaseModel):
    """Tokens per second of one GPU, or of one machine."""

    model_config = ConfigDict(frozen=True, extra="forbid", alias_generator=to_camel, populate_by_name=True)

    tokens_per_second: float = Field(gt=0)
    """Generated tokens (rewrite, check, evaluate), or response tokens learned from (train), per unit."""
    per: str = MACHINE
    """The unit: an extended resource (`nvidia.com/gpu`), or `machine`."""
    start_seconds: float = Field(default=0.0, ge=0)
    """What the task takes besides: starting pods and loading the model."""
    source: str
    """Where it was measured."""


@dataclass(frozen=True)
class Speed:
    """A task's rate, for the units it will have."""

    rate: Rate
    units: int

    def seconds(self, tokens: int) -> float:
        """Wall time for so many tokens."""
        return self.rate.start_seconds + tokens / (self.rate.tokens_per_second * self.units)


def rate_of(job: DailJob, task: Task, per: str, facts: Sequence[Fact], written: Mapping[str, Rate]) -> Rate | None:
    """The rate of `task` on units of the kind `per`; None where nobody measured it. The run's own measurement wins.

    Args:
        facts: what ran before.
        written: stage -> rate, from a file (`read_rates`).
    """
    for stage in (task.stage, "rewrite", "evaluate") if task.stage in ("rewrite", "check", "evaluate") else (task.stage,):
        for fact in alike(facts, job, task, stage):
            measured = _measured(fact)
            if measured is not None and measured.per == per and effort(fact.task) == effort(task):
                return measured
    stated = written.get(task.stage) or (written.get("rewrite") if task.stage == "check" else None)
    return stated if stated is not None and stated.per == per else None


def read_rates(path: Path) -> dict[str, Rate]:
    """Rates from a YAML file: stage -> {tokensPerSecond, per, startSeconds, source}.

    Raises:
        UsageError: no such file, or not rates.
    """
    return _read(path, TypeAdapter(dict[str, Rate]), "rates")


T = TypeVar("T")
Price = Annotated[float, Field(ge=0, allow_inf_nan=False)]


def read_prices(path: Path) -> dict[str, float]:
    """Prices from a YAML file: extended resource (`nvidia.com/gpu`) or pool (`train`, which wins) -> price of one GPU-hour.

    Raises:
        UsageError: no such file, or not prices.
    """
    return _read(path, TypeAdapter(dict[str, Price]), "prices")


def _measured(fact: Fact) -> Rate | None:
    counts, usage = fact.manifest.counts, fact.usage
    speed = counts.get("tokens_per_s")
    if not speed:
        return None
    gpus = usage.gpus if usage is not None else {}
    if len(gpus) > 1:
        # Two kinds of GPU shared the work: nobody knows which did how much.
        return None
    per, units = next(iter(gpus.items()), (MACHINE, 1))
    unit = "this machine" if per == MACHINE else f"{units} x {per}"
    return Rate(
        tokens_per_second=speed / max(1, units),
        per=per,
        start_seconds=max(0.0, fact.manifest.seconds - fact.tokens / speed),
        source=f"measured by {fact.where} on {unit}",
    )


def _read(path: Path, kind: TypeAdapter[T], what: str) -> T:
    try:
        return kind.validate_python(yaml.safe_load(path.read_text(encoding="utf-8")) or {})
    except (OSError, UnicodeDecodeError) as err:
        raise UsageError(f"{path}: cannot be read ({getattr(err, 'strerror', None) or 'not UTF-8'}); give a YAML file of {what}") from None
    except yaml.YAMLError as err:
        raise UsageError(f"{path}: not YAML ({str(err).splitlines()[0]}); correct it") from None
    except ValidationError as err:
        first = err.errors()[0]
        raise UsageError(f"{path}: {'.'.join(map(str, first['loc'])) or 'the file'}: {first['msg']}; correct it") from None
