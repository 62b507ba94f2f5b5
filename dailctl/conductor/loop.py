"""The conductor at work: look, decide, write the status, act; and again whenever something changes."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime

from dail_runtime.errors import DailError, StoreError, TransientError
from dailctl.conductor.archive import Archive
from dailctl.conductor.control import Control, read_control
from dailctl.conductor.decide import Action, Decision, Live, Note, World, decide
from dailctl.conductor.eyes import Eyes
from dailctl.conductor.hands import Hands
from dailctl.conductor.lease import Lease
from dailctl.conductor.status import KEY, RunStatus, fresh_status, known_status
from dailctl.conductor.store import RunStore
from dailctl.explain.refusals import refused
from dailctl.explain.table import QUOTA, WEBHOOK_DOWN
from dailctl.kube import ApiError, Conflict, Refusals
from dailctl.kube.resources import Object, name_of, uid_of
from dailctl.render.record import RunRecord

TICK = 10.0
"""Seconds after which the world is looked at even if nothing was heard: progress lies in the store, which tells nobody."""
STATUS_EVERY = 5.0
"""Seconds between two statuses that differ by their progress alone."""
PAUSES = (1.0, 15.0)
"""Shortest and longest wait, in seconds, after the API server or the store failed."""

WORTH_A_WORD = 3
"""Failures in a row after which the run's status says what hinders it: most faults are over by then."""

Say = Callable[[str], None]


@dataclass
class Conductor:
    """Brings one run to its end."""

    record: RunRecord
    uid: str
    """Of the record: another of the same name is another run."""
    eyes: Eyes
    hands: Hands
    store: RunStore
    archive: Archive
    lease: Lease
    refusals: Refusals
    changed: threading.Event
    """Set by whoever sees something new."""
    lost: threading.Event
    """Set where another conductor took over."""
    expected: Mapping[str, frozenset[tuple[str, str]]]
    say: Say
    pod: str | None
    """The conductor's own pod."""
    status: RunStatus
    """What is known of the run: its record's, at first."""
    looked: datetime | None = None
    """When it last saw everything of the run and did what was due; the API server's time."""
    _written: str | None = None
    """The status that it wrote last, or began with, as the record has it."""
    _written_at: float = float("-inf")
    _failures: int = 0
    """How often in a row it could not do what was due."""
    _hindered: str | None = None
    """Why, where that has lasted for a while."""

    def run(self) -> RunStatus | None:
        """Work until the run has ended and nothing is left of it; returns its last status, None where the run was deleted.

        Raises:
            TransientError: another conductor took over.
            ApiError: the API server does not let it hold the run any more.
        """
        pause = PAUSES[0]
        while True:
            self.changed.clear()
            if self.lost.is_set():
                raise TransientError("another conductor holds this run's lease now")
            if not self.lease.is_ours():
                # Cut off from the API server. Nothing is done until it is certain that nobody else does it.
                if (refused := self.lease.refused) is not None and self.refusals.stay():
                    raise refused
                self.lost.wait(1.0)
                continue
            held = self.eyes.record()
            if held is None or uid_of(held) != self.uid:
                return None
            try:
                decision = self._decide(held)
                if self._act(held, decision):
                    return self.status
            except DailError as err:
                self._endure(held, err)
                self.lost.wait(pause)
                pause = min(2 * pause, PAUSES[1])
                continue
            self.refusals.over()
            pause, self.looked = PAUSES[0], self.hands.now()
            self._failures, self._hindered = 0, None
            late = (decision.wake - self.hands.now()).total_seconds() if decision.wake is not None else TICK
            self.changed.wait(min(TICK, max(0.0, late)))

    def _decide(self, held: Object) -> Decision:
        live = self.eyes.live()
        status, now = self.status, self.hands.now()
        for task in status.tasks:
            if task.name in live and task.state not in ("waiting", "done"):
                self.hands.meter(task.name, task.attempts).see(live[task.name].pods, now)
                self.archive.take(task.name, task.attempts, live[task.name].pods, every=False)
        self.archive.forget({uid_of(pod) for one in live.values() for pod in one.pods})
        world = World(
            now=now,
            control=read_control(held.get("data") or {}),
            live=live,
            expected=self.expected,
            finished=self.store.finished,
            recorded=self.store.recorded,
            progress=self.store.progress,
        )
        return decide(self.record, status, world)

    def _act(self, held: Object, decision: Decision) -> bool:
        """Write the status, then do what was decided; whether the run is over."""
        self._write(held, self._told(decision.status))
        for note in decision.notes:
            self.say(note.sentence)
            self.hands.tell(note)
        for action in decision.actions:
            if action.kind == "end":
                if decision.status.state == "done":
                    self._publish()
                self.hands.hand_over()
                return True
            self._do(action, decision.status)
        return False

    def _publish(self) -> None:
        """Put the report at the root. Where that cannot be, the run is done all the same: the report's task has it."""
        try:
            self.store.publish_report()
        except TransientError:
            raise
        except DailError as err:
            self.say(f"the report is not published: {err}")

    def _do(self, action: Action, status: RunStatus) -> None:
        live = self.eyes.live().get(action.task, Live())
        if action.kind == "apply":
            self.hands.apply(action.task, action.attempt, live, self.eyes.take)
            return
        for sentence in self.hands.remove(action.task, status.task(action.task).attempts, live, self.archive, self.store):
            self.say(sentence)

    def _write(self, held: Object, status: RunStatus) -> None:
        """Put the status into the record as it was seen; one that differs by its progress alone only now and then.

        What another has made of it is not left standing.
        """
        status = status.model_copy(update={"conductor": self.pod})
        data = held.get("data") or {}
        if self._written is None and known_status(self.record, data) == self.status:
            # What this conductor began with.
            self._written = data[KEY]
        same = _telling(status) == _telling(self.status) and data.get(KEY) == self._written
        if same and (status.tasks == self.status.tasks or time.monotonic() - self._written_at < STATUS_EVERY):
            return
        stamped = status.model_copy(update={"updated": self.hands.now()})
        record = self.hands.write_status(stamped, held["metadata"]["resourceVersion"])
        self.eyes.take(record)
        self.status, self._written, self._written_at = status, record["data"][KEY], time.monotonic()

    def _told(self, status: RunStatus) -> RunStatus:
        """The status, with what hinders the conductor as its message."""
        return status if self._hindered is None or status.ended else status.model_copy(update={"message": self._hindered})

    def _endure(self, held: Object, err: DailError) -> None:
        """Wait a fault out, or end the run by it: the store's refusal is final, the API server's only when it stays.

        A quota that is used up and a webhook that is down are waited for, as by pods.
        """
        # Before it failed it may have written the status, and thereby changed the record.
        held = self.eyes.record() or held
        cause = refused(str(err), f"run {self.record.name}")
        passing = isinstance(err, TransientError | Conflict) or (isinstance(err, ApiError) and not cause.final)
        if passing or not (isinstance(err, StoreError) or self.refusals.stay()):
            self.say(f"waits: {err}")
            self._failures += 1
            if self._failures >= WORTH_A_WORD:
                self._hindered = cause.told if cause.name in (QUOTA.name, WEBHOOK_DOWN.name) else str(err)
                with contextlib.suppress(DailError):
                    self._write(held, self._told(self.status))
            return
        self.say(str(err))
        self.refusals.over()
        with contextlib.suppress(TransientError, Conflict):
            self._write(held, failed_status(self.status, err, read_control(held.get("data") or {}), self.hands.now()))
            self.hands.tell(Note("RunFailed", str(err), warning=True))


def failed_status(status: RunStatus, err: DailError, control: Control, now: datetime) -> RunStatus:
    """The status of a run that ends by a fault of its surroundings: the store, the cluster's rights."""
    update = {"state": "failed", "message": str(err), "exit_code": err.exit_code, "finished": now, "generation": control.generation}
    return status.model_copy(update={**update, "updated": now})


def first_status(record: RunRecord, data: Mapping[str, str]) -> RunStatus:
    """What the record says of the run; else that nothing is known: the store knows which tasks are done."""
    return known_status(record, data) or fresh_status((task.name, task.slug, task.stage) for task in record.tasks)


def expected_of(manifests: Mapping[str, tuple[Object, ...]]) -> dict[str, frozenset[tuple[str, str]]]:
    """(kind, name) of every object of each task."""
    return {task: frozenset((one["kind"], name_of(one)) for one in objects) for task, objects in manifests.items()}


def _telling(status: RunStatus) -> object:
    """What of a status must be told at once: all but counters that move all the time."""
    tasks = [(one.name, one.state, one.attempts, one.failed_attempt, one.message, one.ready, one.restarts) for one in status.tasks]
    return status.state, status.message, status.generation, tasks
