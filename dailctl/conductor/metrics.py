"""Metrics of a run, from its status. Names: dail_run_* and dail_task_*; label values come from the plan and from fixed words alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime
from typing import get_args

from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

from dailctl.conductor.status import RunState, RunStatus, TaskStatus, TaskWord
from dailctl.explain.cause import Kind
from dailctl.render.record import RunRecord


class RunMetrics:
    """A run as its conductor sees it; a `Source` of dail_runtime.metrics."""

    def __init__(self, record: RunRecord, status: Callable[[], RunStatus], looked: Callable[[], datetime | None]) -> None:
        self._record, self._status, self._looked = record, status, looked

    def collect(self) -> Iterator[Metric]:
        """See Source."""
        status, run = self._status(), self._record.name
        info = GaugeMetricFamily("dail_run_info", "One for each run that is conducted.", labels=["run", "job", "version"])
        info.add_metric([run, self._record.job, self._record.dail_version], 1)
        yield info
        state = GaugeMetricFamily("dail_run_state", "One for the state that the run is in, zero for the others.", labels=["run", "state"])
        for word in get_args(RunState):
            state.add_metric([run, word], float(status.state == word))
        yield state
        for name, meaning, moment in (
            ("dail_run_start_time_seconds", "When the run's first task began.", status.started),
            ("dail_run_end_time_seconds", "When the run ended.", status.finished),
            ("dail_run_update_time_seconds", "When the conductor last wrote the run's status.", status.updated),
            ("dail_run_look_time_seconds", "When the conductor last saw all of the run and did what was due.", self._looked()),
        ):
            family = GaugeMetricFamily(name, meaning, labels=["run"])
            if moment is not None:
                family.add_metric([run], moment.timestamp())
            yield family
        yield from self._tasks(status)

    def _tasks(self, status: RunStatus) -> Iterator[Metric]:
        run = self._record.name
        state = GaugeMetricFamily("dail_task_state", "One for the state that the task is in, else zero.", labels=["run", "task", "state"])
        for task in status.tasks:
            for word in get_args(TaskWord):
                state.add_metric([run, task.name, word], float(task.state == word))
        yield state
        gauges: tuple[tuple[str, str, Callable[[TaskStatus], float | None]], ...] = (
            ("dail_task_progress_ratio", "Share of the task's work that is done.", _ratio),
            ("dail_task_pods", "Pods that the task has.", lambda task: task.pods),
            ("dail_task_pods_ready", "Those of them that are ready.", lambda task: task.ready),
            ("dail_task_container_restarts", "Container restarts of those pods.", lambda task: task.restarts),
            ("dail_task_duration_seconds", "Wall time of the task's stage over all attempts, once it is done.", lambda task: task.seconds),
        )
        for name, meaning, value in gauges:
            family = GaugeMetricFamily(name, meaning, labels=["run", "task"])
            for task in status.tasks:
                if (found := value(task)) is not None:
                    family.add_metric([run, task.name], found)
            yield family
        attempts = CounterMetricFamily("dail_task_attempts", "How often the task's workload was applied.", labels=["run", "task"])
        failures = CounterMetricFamily("dail_task_failures", "Attempts that ended without a result.", labels=["run", "task", "kind"])
        for task in status.tasks:
            attempts.add_metric([run, task.name], task.attempts)
            for kind in get_args(Kind):
                failures.add_metric([run, task.name, kind], task.failures.get(kind, 0))
        yield from (attempts, failures)


def _ratio(task: TaskStatus) -> float | None:
    if task.state == "done":
        return 1.0
    return task.progress.done / task.progress.total if task.progress.total else None
