"""Runs real stage processes for tests: undisturbed, or killed after the N-th write; and compares what two runs made."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dail_runtime.spec import DailJob, Task, plan
from dail_runtime.stages.jobs import save_job
from dail_runtime.store import Store, open_store, read_manifest

REPOSITORY = Path(__file__).parents[2]
CLOCK = ("tokens_per_s", "seconds", "started", "finished", "notes")
"""Fields that differ between two runs of the same thing."""


@dataclass(frozen=True)
class Ended:
    """How a stage process ended."""

    code: int
    """As subprocess has it: -9 for SIGKILL."""
    events: list[dict[str, Any]]
    talk: str
    """Its standard error."""

    @property
    def killed(self) -> bool:
        """True where it was SIGKILLed."""
        return self.code == -signal.SIGKILL


@dataclass(frozen=True)
class SavedRun:
    """A job that is ready for stage processes."""

    root: Store
    digest: str
    tasks: Mapping[str, Task]

    def at(self, task: str) -> Store:
        """The prefix of a task."""
        return self.root.at(self.tasks[task].prefix)


def save_run(job: DailJob, content: Mapping[str, str], storage: str) -> SavedRun:
    """Save `job` (its paths absolute) below `storage`, as `dailctl run` does."""
    root = open_store(storage).at(job.metadata.name)
    return SavedRun(root, save_job(root, job, content), {task.name: task for task in plan(job, content)})


def run_stage(run: SavedRun, task: str, *, kill_after: int | None = None, timeout: float = 1200) -> Ended:
    """Run one task in a process of its own; with `kill_after`, it is killed after so many writes (if it makes so many)."""
    module = ["dail_runtime.stages"] if kill_after is None else ["tests.support.killing", str(kill_after)]
    command = [sys.executable, "-m", *module, task, "--run", run.root.uri, "--job", run.digest]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    process = subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, timeout=timeout, check=False)
    events = [json.loads(line) for line in process.stdout.splitlines() if line.endswith("}")]
    return Ended(process.returncode, events, process.stderr)


def finish_stage(run: SavedRun, task: str, *, timeout: float = 1200) -> Ended:
    """Run one task to its end; fails the test where it does not get there."""
    ended = run_stage(run, task, timeout=timeout)
    assert ended.code == 0, f"{task} ended with {ended.code}: {ended.events[-1:]}\n{ended.talk[-3000:]}"
    return ended


def results(out: Store) -> dict[str, str]:
    """What a finished task made: key -> content, without what only the clock decides; `counts` stands for its manifest's."""
    manifest = read_manifest(out)
    assert manifest is not None, f"{out.uri} has no manifest"
    found = {info.key: _timeless(info.key, out.get(info.key)) for info in manifest.objects}
    return {**found, "counts": json.dumps(_without_clock(manifest.counts), sort_keys=True)}


def assert_same_results(left: Store, right: Store) -> None:
    """Fail, naming the first object that differs, where two finished tasks did not make the same."""
    one, other = results(left), results(right)
    assert sorted(one) == sorted(other), f"different objects: {sorted(set(one) ^ set(other))}"
    different = [key for key in one if one[key] != other[key]]
    assert not different, f"{different[0]} differs:\n{one[different[0]][:500]!r}\n{other[different[0]][:500]!r}"


def _timeless(key: str, content: bytes) -> str:
    if key.endswith(".json"):
        return json.dumps(_without_clock(json.loads(content)), sort_keys=True)
    if key.endswith(".jsonl"):
        return "\n".join(json.dumps(_without_clock(json.loads(line)), sort_keys=True) for line in content.split(b"\n") if line)
    return hashlib.sha256(content).hexdigest()


def _without_clock(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_clock(inner) for key, inner in value.items() if key not in CLOCK}
    return [_without_clock(inner) for inner in value] if isinstance(value, list) else value
