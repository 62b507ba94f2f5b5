"""The estimate of a run as a person has it: reads the data's size and the store, then computes."""

from __future__ import annotations

from collections.abc import Mapping

from dail_runtime.data import HELDOUT
from dail_runtime.spec import plan
from dail_runtime.store import read_manifest
from dailctl.checks import check_data
from dailctl.estimate.demand import Demand, demand_of
from dailctl.estimate.facts import facts_of
from dailctl.estimate.rates import Rate
from dailctl.estimate.total import Estimate, estimate
from dailctl.estimate.work import Sizes
from dailctl.render.chart import task_objects
from dailctl.render.of_job import DEFAULT_NAMESPACE, render_job
from dailctl.runs import Run


def estimate_of(run: Run, rates: Mapping[str, Rate], prices: Mapping[str, float], *, cluster: bool) -> Estimate:
    """The estimate of `run`, on a cluster or on this machine. Nothing is written, and no cluster is asked.

    Raises:
        DataError: the data is wrong (the first place where its size is learnt is a check of it all).
        SpecError: the job cannot run on a cluster.
    """
    there, demand = on_cluster(run) if cluster else (run, {})
    facts = facts_of(run.root, run.name)
    return estimate(there.job, there.tasks, sizes_of(run), demand=demand, facts=facts, rates=rates, prices=prices)


def on_cluster(run: Run) -> tuple[Run, dict[str, Demand]]:
    """The run as pods see it, and what each of its tasks asks of the cluster, counted from the objects it would be given.

    Raises:
        SpecError: the job cannot run on a cluster, or the chart refuses it.
    """
    rendered = render_job(run.job, run.content, run.job.spec.cluster.namespace or DEFAULT_NAMESPACE)
    job, content, record = rendered.job, rendered.content, rendered.objects[0]
    demand = {task.name: demand_of(task_objects(record, task)) for task in rendered.run.tasks}
    return Run(job, content, plan(job, content), run.root), demand


def sizes_of(run: Run) -> Sizes:
    """How many problems the job has: from the finished stage `prepare`, else by reading the data as it would."""
    done = read_manifest(run.root.at(run.task("prepare").prefix))
    if done is not None:
        return Sizes(done.counts["problems"], {name: one["problems"] for name, one in done.counts["evaluation"].items()})
    files, _ = check_data(run)
    sets = {one.name: one.counts["problems"] for one in files if one.name != "solutions"}
    training = next(one for one in files if one.name == "solutions").counts["problems"]
    return Sizes(training, sets or {HELDOUT: 0})
