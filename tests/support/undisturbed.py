"""What every fault must leave behind: the results of a run that nobody disturbed, and nothing else."""

from __future__ import annotations

import hashlib

from tests.support.cluster_run import ClusterRun
from tests.support.waiting import wait_for

WORKLOADS = ("deployment", "service", "poddisruptionbudget", "pytorchjob")


def undisturbed_results(run: ClusterRun) -> dict[str, str]:
    """What an undisturbed run of the script makes: the results say nothing of attempts or times."""
    tasks = [task for task in run.submission().run.tasks if task.name != "report"]
    return {f"{task.prefix}/result.txt": hashlib.sha256(f"of {task.name}".encode()).hexdigest() for task in tasks}


def assert_undisturbed(run: ClusterRun) -> None:
    """The run comes to its end with the results of one that nobody disturbed, and none of its workloads is left."""
    status = run.until(lambda one: one.ended)
    assert status.state == "done", status.message
    results, expected = run.results(), undisturbed_results(run)
    assert {key: results[key] for key in expected} == expected
    wait_for(lambda: [one for one in run.left() if one.split("/")[0] in WORKLOADS], lambda stages: not stages)


def attempts(run: ClusterRun) -> dict[str, int]:
    """How often each task's workload was made."""
    status = run.status()
    assert status is not None
    return {task.name: task.attempts for task in status.tasks}
