"""Metrics of a stage process, made from its events. Names: dail_stage_*; labels: the run on a cluster, the task, its unit."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterator, Mapping
from typing import Any

from prometheus_client import Metric
from prometheus_client.core import GaugeMetricFamily

MOST_FIGURES = 32
"""Figures of one stage; those after them are left out. Their names come from dail's own code, never from data."""
_NAME = re.compile(r"[a-z][a-z0-9_]{0,60}")


class StageMetrics:
    """How far one task is; a `Source` of dail_runtime.metrics."""

    def __init__(self, run: str, task: str) -> None:
        self._labels = {"run": run, "task": task}
        self._lock = threading.Lock()
        self._attempt = 0
        self._done = self._whole = 0.0
        self._unit = ""
        self._figures: dict[str, float] = {}
        self._heard = time.time()

    def hear(self, event: Mapping[str, Any]) -> None:
        """Take note of an event (dail_runtime.stages.run)."""
        with self._lock:
            self._heard = time.time()
            if event["event"] == "start":
                self._attempt = int(event["attempt"])
            elif event["event"] == "progress":
                self._done, self._whole, self._unit = float(event["done"]), float(event["total"]), str(event["unit"])
                self._figures |= {str(name): float(value) for name, value in event["figures"].items()}

    def collect(self) -> Iterator[Metric]:
        """See Source."""
        with self._lock:
            figures = dict(list(self._figures.items())[:MOST_FIGURES])
            yield _gauge("dail_stage_attempt", "Number of this attempt at the task.", self._labels, self._attempt)
            yield _gauge("dail_stage_last_event_time_seconds", "When the stage last said anything.", self._labels, self._heard)
            if self._whole:
                labels = {**self._labels, "unit": self._unit}
                yield _gauge("dail_stage_units_done", "Units of work that are done.", labels, self._done)
                yield _gauge("dail_stage_units", "Units of work of the whole task.", labels, self._whole)
        for name, value in figures.items():
            if _NAME.fullmatch(name):
                yield _gauge(figure_name(name), f"The stage's figure {name}.", self._labels, value)


def figure_name(figure: str) -> str:
    """Prometheus' name of a figure: `tokens_per_s` is dail_stage_tokens_per_second."""
    return f"dail_stage_{figure.removesuffix('_per_s')}{'_per_second' if figure.endswith('_per_s') else ''}"


def _gauge(name: str, meaning: str, labels: Mapping[str, str], value: float) -> GaugeMetricFamily:
    family = GaugeMetricFamily(name, meaning, labels=list(labels))
    family.add_metric(list(labels.values()), value)
    return family
