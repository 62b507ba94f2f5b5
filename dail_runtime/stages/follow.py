"""Runs a task on the ranks that do not lead: they compute with the others, and neither record nor write anything."""

from __future__ import annotations

import importlib
import threading
from collections.abc import Callable, Mapping

from dail_runtime.errors import DailError, UsageError
from dail_runtime.spec.job import DailJob
from dail_runtime.stages.base import Stage, StageContext
from dail_runtime.stages.run import inputs_of, planned
from dail_runtime.store import Store, missing_objects, read_manifest

DISTRIBUTED = ("train",)
"""Stages that several ranks compute together; all others run in one process."""


class Silent:
    """Progress of a rank that does not lead: what there is to say, rank 0 says."""

    def update(self, done: float, total: float, unit: str, **figures: float) -> None:
        """See `Progress.update`."""

    def say(self, sentence: str) -> None:
        """See `Progress.say`."""


def follow_task(
    run: Store, job: DailJob, content: Mapping[str, str], name: str, stop: threading.Event, abandon: Callable[[DailError], None]
) -> None:
    """Take part in the task called `name`, which rank 0 runs by `run_task`; returns once rank 0 has written its manifest.

    Raises:
        UsageError: the plan has no such task, it is none that several ranks compute, or an upstream task has not finished.
        DailError: whatever the stage raises, here or on another rank.
    """
    task, tasks = planned(job, content, name)
    if task.stage not in DISTRIBUTED:
        raise UsageError(f"{name} runs in one process; start it with python -m dail_runtime.stages and without RANK and WORLD_SIZE")
    out = run.at(task.prefix)
    done = read_manifest(out)
    # As rank 0 decides; what is missing it removes and writes again.
    if done is not None and not list(missing_objects(out, done)):
        return
    stage: Stage = importlib.import_module(f"dail_runtime.stages.{task.stage}").run
    inputs = inputs_of(run, task, tasks)
    context = StageContext(
        job=job, task=task, run=run, out=out, inputs=inputs, progress=Silent(), stop=stop, content=content, abandon=abandon
    )
    with context.held:
        stage(context)
