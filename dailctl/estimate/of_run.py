"""The estimate of a run as a person has it: reads the data's size and the store, then computes."""

from __future__ import annotations

from collections.abc import Mapping

from dail_runtime.data import HELDOUT
from dail_runtime.store import read_manifest
from dailctl.checks import check_data
from dailctl.estimate.demand import Demand
from dailctl.estimate.facts import facts_of
from dailctl.estimate.rates import Rate
from dailctl.estimate.total import Estimate, estimate
from dailctl.estimate.work import Sizes
from dailctl.runs import Run


def estimate_of(run: Run, rates: Mapping[str, Rate], prices: Mapping[str, float], demand: Mapping[str, Demand] | None = None) -> Estimate:
    """The estimate of `run`. Nothing is written.

    Args:
        demand: task name -> what it has on the cluster; left out: the run is for this machine.

    Raises:
        DataError: the data is wrong (the first place where its size is learnt is a check of it all).
    """
    facts = facts_of(run.root, run.name)
    return estimate(run.job, run.tasks, sizes_of(run), demand=demand or {}, facts=facts, rates=rates, prices=prices)


def sizes_of(run: Run) -> Sizes:
    """How many problems the job has: from the finished stage `prepare`, else by reading the data as it would."""
    done = read_manifest(run.root.at(run.task("prepare").prefix))
    if done is not None:
        return Sizes(done.counts["problems"], {name: one["problems"] for name, one in done.counts["evaluation"].items()})
    files, _ = check_data(run)
    sets = {one.name: one.counts["problems"] for one in files if one.name != "solutions"}
    training = next(one for one in files if one.name == "solutions").counts["problems"]
    return Sizes(training, sets or {HELDOUT: 0})
