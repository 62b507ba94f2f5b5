"""The contract of a stage: a function of (job, upstream results, store) that can be killed at any instant and started again."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any, Protocol

from dail_runtime.errors import DailError, Interrupted
from dail_runtime.spec.job import DailJob
from dail_runtime.spec.plan import Task
from dail_runtime.store import Store


class Progress(Protocol):
    """Where a stage says how far it is."""

    def update(self, done: float, total: float, unit: str, **figures: float) -> None:
        """`done` of `total` units; figures such as tokens_per_s are shown beside the bar. Call as often as you like."""
        ...

    def say(self, sentence: str) -> None:
        """One sentence for the user (a warning, a decision); kept with the task's results."""
        ...


def end_process(error: DailError) -> None:
    """End this process at once with the error's exit code."""
    print(error, file=sys.stderr, flush=True)
    os._exit(error.exit_code)


@dataclass
class StageContext:
    """What a stage gets."""

    job: DailJob
    """The resolved job: every path in it is absolute."""
    task: Task
    """Which task of the plan this is; `task.settings` holds the variant's rewrite, select and train sections."""
    run: Store
    """The run's root."""
    out: Store
    """The task's own prefix; everything the task writes goes below it and enters its manifest."""
    inputs: Mapping[str, Store]
    """Upstream task name (`prepare`, `select/nll`) -> its prefix. All of them have manifests."""
    progress: Progress
    """Progress and sentences."""
    stop: threading.Event = field(default_factory=threading.Event)
    """Set when the process got SIGTERM or SIGINT: save and raise `Interrupted` soon."""
    content: Mapping[str, str] = field(default_factory=dict)
    """Digests of the outside inputs by which the job was planned (`spec.content.content_of`)."""
    held: ExitStack = field(default_factory=ExitStack)
    """What the stage enters here stays open until its manifest is written."""
    abandon: Callable[[DailError], None] = end_process
    """Ends this process at once, with this error on record: for a thread that finds the stage in a call that will not return."""

    def check_stop(self) -> None:
        """Raise `Interrupted` where the process was asked to end; call between units of work."""
        if self.stop.is_set():
            raise Interrupted(f"{self.task.name} was asked to stop; what it finished is saved, run again to go on")


Stage = Callable[[StageContext], dict[str, Any]]
"""A stage writes its objects below `ctx.out` and returns the counts for its manifest. The caller writes the manifest."""
