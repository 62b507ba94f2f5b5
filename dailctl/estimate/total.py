"""The estimate of a whole run: each task's work, speed, GPU-hours and cost, beside what it really took where it is done."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from dail_runtime.spec import DailJob, Task
from dailctl.estimate.demand import Demand
from dailctl.estimate.facts import Fact, finished_tasks
from dailctl.estimate.rates import MACHINE, Rate, Speed, rate_of
from dailctl.estimate.work import Sizes, Work, work_of

HOUR = 3600.0
POOLS = {"rewrite": "rewrite", "evaluate": "rewrite", "check": "rewrite", "train": "train"}
"""Stage -> the pool that has its GPUs."""


@dataclass(frozen=True)
class TaskEstimate:
    """One task; None: nobody knows yet."""

    task: str
    done: bool
    """Its results are there: it will not run again. `seconds`, `gpu_hours` and `stored` are then what it took."""
    objects: int = 0
    """Kubernetes objects it is given."""
    pods: int = 0
    gpus: Mapping[str, int] = field(default_factory=dict)
    """Extended resource -> number held at once."""
    tokens: int | None = None
    """Expected, or real where done."""
    tokens_at_most: int | None = None
    seconds: float | None = None
    """Wall time."""
    gpu_hours: Mapping[str, float] | None = None
    """Extended resource -> GPU-hours; {} where it needs none."""
    cost: float | None = None
    stored: int | None = None
    """Bytes of its result."""
    sources: Sequence[str] = ()
    """Where length and rate come from."""


@dataclass(frozen=True)
class Estimate:
    """A run."""

    run: str
    tasks: tuple[TaskEstimate, ...]
    prices: Mapping[str, float]

    def gpu_hours(self, *, done: bool) -> dict[str, float]:
        """GPU-hours of the tasks that are done, or of those still to do, as far as they are known."""
        total: dict[str, float] = {}
        for task in self.tasks:
            if task.done is done:
                for name, hours in (task.gpu_hours or {}).items():
                    total[name] = total.get(name, 0.0) + hours
        return total

    def seconds(self, *, done: bool) -> float:
        """Their time one after the other, as far as it is known."""
        return sum(task.seconds or 0.0 for task in self.tasks if task.done is done)

    def cost(self, *, done: bool) -> float | None:
        """Their price as far as it is known; None where no price was given."""
        return sum(task.cost or 0.0 for task in self.tasks if task.done is done) if self.prices else None

    def unknown(self) -> list[str]:
        """Tasks still to do whose time nobody knows though they touch the model."""
        return [task.task for task in self.tasks if not task.done and task.tokens_at_most is not None and task.seconds is None]

    def unpriced(self, *, done: bool) -> list[str]:
        """GPUs that the known cost leaves out, because none of the prices is for them."""
        left_out = [name for task in self.tasks if task.done is done and task.cost is None for name in task.gpu_hours or ()]
        return list(dict.fromkeys(left_out)) if self.prices else []


def estimate(
    job: DailJob,
    tasks: Sequence[Task],
    sizes: Sizes,
    *,
    demand: Mapping[str, Demand],
    facts: Sequence[Fact] = (),
    rates: Mapping[str, Rate] | None = None,
    prices: Mapping[str, float] | None = None,
) -> Estimate:
    """The estimate of a plan. Pure.

    Args:
        tasks: the plan, in order.
        demand: task name -> pods and GPUs; a task that is not in it runs on one machine.
        facts: what earlier jobs measured (`facts_of`).
        rates: stage -> rate from a file, for what no fact tells.
        prices: extended resource or pool -> price of a GPU-hour.
    """
    done = finished_tasks(facts)
    money = prices or {}
    found = []
    for task in tasks:
        needs = demand.get(task.name, Demand())
        if task.prefix in done:
            found.append(_actual(done[task.prefix], money))
        else:
            found.append(_expected(job, task, work_of(job, task, sizes, facts), needs, facts, rates or {}, money))
    return Estimate(job.metadata.name, tuple(found), money)


def _actual(fact: Fact, prices: Mapping[str, float]) -> TaskEstimate:
    usage = fact.usage
    hours = {name: seconds / HOUR for name, seconds in usage.gpu_seconds.items()} if usage is not None else {}
    return TaskEstimate(
        task=fact.task.name,
        done=True,
        pods=usage.pods if usage is not None else 0,
        gpus=usage.gpus if usage is not None else {},
        tokens=fact.tokens or None,
        seconds=fact.manifest.seconds,
        gpu_hours=hours,
        cost=_cost(fact.task.stage, hours, prices),
        stored=fact.stored,
        sources=(f"measured by {fact.where}",),
    )


def _expected(
    job: DailJob,
    task: Task,
    work: Work | None,
    needs: Demand,
    facts: Sequence[Fact],
    written: Mapping[str, Rate],
    prices: Mapping[str, float],
) -> TaskEstimate:
    if work is None:
        return TaskEstimate(task.name, False, needs.objects, needs.pods, needs.gpus, gpu_hours={})
    per, units = next(iter(needs.gpus.items()), (MACHINE, 1))
    rate = rate_of(job, task, per, facts, written)
    # Without a known length the most there can be is counted: an estimate that errs should err high.
    tokens = work.at_most if work.expected is None else work.expected
    seconds = None if rate is None else Speed(rate, units).seconds(tokens)
    hours = None if seconds is None else {name: number * seconds / HOUR for name, number in needs.gpus.items()}
    return TaskEstimate(
        task=task.name,
        done=False,
        objects=needs.objects,
        pods=needs.pods,
        gpus=needs.gpus,
        tokens=work.expected,
        tokens_at_most=work.at_most,
        seconds=seconds,
        gpu_hours=hours if needs.gpus else {},
        cost=None if hours is None else _cost(task.stage, hours, prices),
        sources=tuple(source for source in (work.source, rate.source if rate is not None else None) if source is not None),
    )


def _cost(stage: str, hours: Mapping[str, float], prices: Mapping[str, float]) -> float | None:
    """None where a GPU of the task has no price."""
    pool = prices.get(POOLS.get(stage, ""))
    each = {name: pool if pool is not None else prices.get(name) for name in hours}
    if any(price is None for price in each.values()):
        return None
    return sum(hours[name] * price for name, price in each.items() if price is not None)
