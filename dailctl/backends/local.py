"""Runs a plan on this machine: task after task, each in a process of its own, so that none inherits another's memory."""

from __future__ import annotations

import contextlib
import queue
import random
import signal
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from dail_runtime.errors import DailError, IntegrityError, TransientError
from dail_runtime.spec import STAGES, Task
from dail_runtime.stages.jobs import save_job
from dail_runtime.stages.run import finished
from dail_runtime.store import MANIFEST, Store
from dailctl.backends.lock import hold
from dailctl.backends.logs import Logs, last_words
from dailctl.backends.process import Event, Exited, Inbox, Lost, Signalled, StageProcess, heard, signals_to
from dailctl.backends.starters import Starter, starter
from dailctl.errors import StageFailed, Stopped
from dailctl.progress import View
from dailctl.runs import Run, store_environment

WAITS = (2.0, 8.0, 30.0)
"""Seconds before each further attempt of a stage that failed by a passing fault."""
PASSING = (TransientError.exit_code, IntegrityError.exit_code)
KILLED = 128

Start = Callable[[Mapping[str, str], Sequence[int]], Starter]
"""From the environment that stage processes get and the descriptors that they inherit to what starts them."""
START: Start = starter


class LocalBackend:
    """One `dailctl run`."""

    def __init__(self, run: Run, view: View, *, start: Start | None = None, waits: Sequence[float] | None = None) -> None:
        self._run, self._view = run, view
        self._start, self._waits = start or START, WAITS if waits is None else tuple(waits)
        self._inbox: Inbox = queue.SimpleQueue()
        self._logs = Logs(run.root, run.name)
        self._digest = ""

    def execute(self, again: Iterable[Task] = ()) -> None:
        """Bring every task of the plan to its manifest, after dropping the results of the tasks in `again`.

        Raises:
            UsageError: another dailctl is at work on this run.
            StageFailed: a task ended without its result; later tasks were not started.
            Stopped: a signal asked for the end; the running stage has saved.
        """
        with (
            signals_to(self._inbox),
            hold(self._run.root, lambda: self._inbox.put(Lost())) as inherit,
            contextlib.closing(self._start(store_environment(self._run.job), inherit)) as self._starter,
        ):
            drop(self._run.root, again)
            self._digest = save_job(self._run.root, self._run.job, self._run.content)
            for number, task in enumerate(self._run.tasks, 1):
                self._stop_if_asked(task, self._next())
                self._view.task(task.name, number, len(self._run.tasks))
                if finished(self._run.root.at(task.prefix)) is not None:
                    self._view.skipped()
                else:
                    self._bring_to_end(task)

    def _bring_to_end(self, task: Task) -> None:
        for wait in (*self._waits, None):
            log = self._logs.new(task.name)
            try:
                failure = self._attempt(task, log)
            finally:
                self._keep(task, log)
            if failure is None:
                return
            if wait is None or failure.exit_code not in PASSING:
                raise failure
            # Jitter: stages on several machines that lost the same server should not all come back at once.
            wait *= random.uniform(0.8, 1.2)
            self._view.retry(str(failure), wait)
            self._stop_if_asked(task, self._next(wait))

    def _attempt(self, task: Task, log: Path) -> StageFailed | None:
        arguments = [task.name, "--run", self._run.root.uri, "--job", self._digest, "--live"]
        process = StageProcess(self._starter, arguments, self._inbox, log)
        asked: Signalled | Lost | None = None
        said: Event | None = None
        try:
            while True:
                item = heard(self._inbox)
                if isinstance(item, Exited):
                    break
                if isinstance(item, Event):
                    said = item if item.body["event"] == "error" else said
                    self._show(item)
                elif asked is None:
                    asked = item
                    self._view.stopping()
                    process.ask_to_stop()
                else:
                    process.kill()
        finally:
            # Whatever went wrong in here: no stage process outlives its dailctl.
            process.kill()
        self._stop_if_asked(task, asked)
        return None if item.code == 0 else _failure(task, item.code, said, log)

    def _keep(self, task: Task, log: Path) -> None:
        try:
            self._logs.keep(task.name, log)
        except DailError as err:
            # Why the stage failed matters more than where its log is.
            self._view.say(f"the log stays on this machine, at {log} ({err})")

    def _show(self, event: Event) -> None:
        body = event.body
        match body["event"]:
            case "progress":
                self._view.progress(body["done"], body["total"], body["unit"], body.get("figures", {}))
            case "say":
                self._view.say(body["sentence"])
            case "done":
                self._view.done(body["seconds"], body["counts"])
            case "skipped":
                self._view.skipped()
            case "start":
                self._view.started(body["attempt"])

    def _next(self, timeout: float = 0.0) -> Signalled | Lost | None:
        try:
            item = heard(self._inbox, timeout)
        except queue.Empty:
            return None
        assert isinstance(item, Signalled | Lost), "no process is running, so nothing else can arrive"
        return item

    def _stop_if_asked(self, task: Task, asked: Signalled | Lost | None) -> None:
        if isinstance(asked, Lost):
            raise StageFailed(
                f"{task.name}: another machine took this run over while this one slept; see there how it goes on", TransientError.exit_code
            )
        if asked is not None:
            name = signal.Signals(asked.number).name
            raise Stopped(f"stopped by {name} at {task.name}; everything finished so far is saved", asked.number)


def tasks_from(tasks: Sequence[Task], start: str) -> list[Task] | None:
    """What `--from START` runs again; None where START is nothing.

    A stage stands for itself and all later stages, a task (`train/nll`) for itself and all that build on it.
    """
    if start in STAGES:
        return [task for task in tasks if STAGES.index(task.stage) >= STAGES.index(start)]
    names = {task.name for task in tasks if task.name == start}
    if not names:
        return None
    for task in tasks:
        if names & task.inputs.keys():
            names.add(task.name)
    return [task for task in tasks if task.name in names]


def drop(run: Store, tasks: Iterable[Task]) -> None:
    """Remove the results of `tasks`.

    Last ones first, and manifests before objects: a kill in between leaves nothing that looks finished.
    """
    last_first = list(tasks)[::-1]
    for task in last_first:
        run.delete(f"{task.prefix}/{MANIFEST}")
    for task in last_first:
        for info in list(run.list(f"{task.prefix}/")):
            run.delete(info.key)


def _failure(task: Task, code: int, said: Event | None, log: Path) -> StageFailed:
    if code < 0:
        name = signal.Signals(-code).name
        why = ", most likely because memory ran out" if -code == signal.SIGKILL else ""
        return StageFailed(
            f"{task.name}: the stage was killed by {name} (signal {-code}){why}; what it finished is kept, "
            f"so run the same command again to go on; its log is {log}",
            KILLED - code,
        )
    if said is not None and said.body["exit"] != 1:
        return StageFailed(f"{task.name}: {said.body['message']}", said.body["exit"])
    words = said.body["message"] if said is not None else last_words(log) or f"exit code {code}"
    return StageFailed(f"{task.name}: the stage failed unexpectedly ({words}); the traceback is in {log}", code)
