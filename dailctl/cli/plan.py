"""`dailctl plan`: what a run will take, task by task, before it is started."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dailctl import output
from dailctl.cli.options import DocumentOutput, Job, Overrides

if TYPE_CHECKING:
    from dailctl.estimate.total import Estimate, TaskEstimate
    from dailctl.observe.model import Plan


def plan(
    file: Job = None,
    rates: Annotated[
        Path | None,
        typer.Option("--rates", metavar="FILE", help="Rates for what this run has not measured: stage -> {tokensPerSecond, per, source}."),
    ] = None,
    prices: Annotated[
        Path | None,
        typer.Option("--prices", metavar="FILE", envvar="DAIL_PRICES", help="Price of a GPU-hour: resource or pool -> number."),
    ] = None,
    cluster: Annotated[
        bool | None,
        typer.Option("--cluster/--local", help="For a cluster or for this machine; as the job has cluster.image or not where left out."),
    ] = None,
    overrides: Overrides = None,
    form: DocumentOutput = None,
) -> None:
    """Show what a run will take: objects, pods, GPUs, tokens, time, GPU-hours, storage and cost of each task.

    Nothing is written. Times come from rates that this run measured (run a small part first, with data.limit) or from
    --rates, never from guesses; what is done already is shown as it was.
    """
    from dailctl.estimate.of_run import estimate_of
    from dailctl.estimate.rates import read_prices, read_rates
    from dailctl.runs import run_of_file, the_job_file

    stated = read_rates(rates) if rates is not None else {}
    money = read_prices(prices) if prices is not None else {}
    run = run_of_file(file if file is not None else the_job_file(), overrides or ())
    found = estimate_of(run, stated, money, cluster=run.job.spec.cluster.image is not None if cluster is None else cluster)
    if form is not None:
        output.document(document(found).document(), form)
        return
    output.data(told(found, width=output.width_of(sys.stdout)))
    if unknown := found.unknown():
        output.talk(
            f"No measured rate for {', '.join(unknown)}: run a small part (--set data.limit=16), and the next plan knows; or give --rates."
        )


def document(found: Estimate) -> Plan:
    """As `-o json` prints it."""
    from dailctl.observe.model import Plan, PlanSum, PlanTask

    def sums(*, done: bool) -> PlanSum:
        return PlanSum(
            seconds=found.seconds(done=done),
            gpu_hours=found.gpu_hours(done=done),
            cost=found.cost(done=done),
            unpriced=tuple(found.unpriced(done=done)),
            unknown=() if done else tuple(found.unknown()),
        )

    tasks = tuple(PlanTask(**asdict(task)) for task in found.tasks)
    return Plan(run=found.run, tasks=tasks, to_do=sums(done=False), done=sums(done=True))


def told(found: Estimate, *, width: int | None = None) -> str:
    """The table, where its figures come from, and the sums."""
    head = ["NAME", "STATE", "OBJECTS", "PODS", "GPUS", "TOKENS", "TIME", "GPU-HOURS", *(["COST"] if found.prices else []), "STORED"]
    rows = [_row(task, priced=bool(found.prices)) for task in found.tasks]
    lines = [output.table(head, rows, width=width, elastic=("NAME", "GPUS"), spare=("OBJECTS", "STORED", "PODS"))]
    sources = dict.fromkeys(source for task in found.tasks if not task.done for source in task.sources)
    lines += [f"from: {source}\n" for source in sources]
    for word, done in (("to do", False), ("done", True)):
        if any(task.done is done for task in found.tasks):
            least = "" if done or not found.unknown() else "at least "
            cost, unpriced = found.cost(done=done), found.unpriced(done=done)
            money = "" if cost is None else f", cost {least}{cost:.2f}"
            money += f" without {', '.join(unpriced)}, which has no price" if unpriced else ""
            time = output.duration(found.seconds(done=done))
            lines.append(f"{word}: {least}{time}, {_hours(found.gpu_hours(done=done))}{money}\n")
    return "".join(lines)


def _row(task: TaskEstimate, *, priced: bool) -> list[str]:
    at_most = "-" if task.tokens_at_most is None else f"<= {_count(task.tokens_at_most)}"
    return [
        task.task,
        "done" if task.done else "to do",
        str(task.objects) if task.objects else "-",
        str(task.pods) if task.pods else "-",
        ", ".join(f"{number} {name}" for name, number in task.gpus.items()) or "-",
        at_most if task.tokens is None else _count(task.tokens),
        "-" if task.seconds is None else output.duration(task.seconds),
        "-" if task.gpu_hours is None or not task.gpu_hours else f"{sum(task.gpu_hours.values()):.2f}",
        *(["-" if task.cost is None else f"{task.cost:.2f}"] if priced else []),
        "-" if task.stored is None else output.size(task.stored),
    ]


def _hours(hours: dict[str, float]) -> str:
    return ", ".join(f"{value:.2f} GPU-hours of {name}" for name, value in hours.items()) or "no GPU-hours"


def _count(tokens: int) -> str:
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if tokens >= size:
            return f"{tokens / size:.1f}{unit}"
    return str(tokens)
