"""Checks of a job before anything is written: its data by the stage `prepare` itself, its servers by their names."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dail_runtime.spec.rewrite import VllmHttpEngine
from dail_runtime.spec.servers import servers_in_effect
from dail_runtime.stages import prepare
from dail_runtime.stages.base import StageContext
from dail_runtime.store import open_store
from dailctl.runs import Run


@dataclass
class Notes:
    """Takes what the stage says. Progress of a moment's work interests nobody."""

    sentences: list[str] = field(default_factory=list)

    def update(self, done: float, total: float, unit: str, **figures: float) -> None:
        """Nothing."""

    def say(self, sentence: str) -> None:
        """Keep the sentence."""
        self.sentences.append(sentence)


@dataclass(frozen=True)
class DataFile:
    """What a data file holds."""

    name: str
    """`solutions`, or the evaluation set's name."""
    path: str
    counts: dict[str, Any]
    """dail_runtime.data.Counts, as numbers."""


def check_servers(run: Run) -> None:
    """Refuse a job for this machine whose engine is `vllm-http` where nobody names a server.

    Raises:
        SetupError: so it is.
    """
    for task in run.tasks:
        engine = task.settings.rewrite.engine
        if isinstance(engine, VllmHttpEngine):
            servers_in_effect(engine.servers)


def check_data(run: Run) -> tuple[list[DataFile], list[str]]:
    """Read and check every data file of the job; returns what they hold, and sentences worth telling. Nothing is stored.

    Raises:
        DataError: what the stage `prepare` would raise.
    """
    notes = Notes()
    with tempfile.TemporaryDirectory(prefix="dail-") as folder:
        nowhere = open_store(str(Path(folder)))
        counts = prepare.run(StageContext(job=run.job, task=run.task("prepare"), run=nowhere, out=nowhere, inputs={}, progress=notes))
    spec = run.job.spec.data
    paths = {one.name: one.path for one in spec.evaluation}
    sets: dict[str, dict[str, Any]] = counts.pop("evaluation")
    files = [DataFile("solutions", spec.solutions, counts)]
    # A set without a file of its own was held out of the solutions.
    files += [DataFile(name, paths.get(name, spec.solutions), found) for name, found in sets.items()]
    return files, notes.sentences
