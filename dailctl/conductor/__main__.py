"""`python -m dailctl.conductor --run R`: the process of a run's conductor.

It ends with 0 where the run is done, cancelled or deleted. A failed run ends it with the run's code (2..63, so that its Job is
not started again; codes above become 8). SIGTERM ends it with 143: another takes over where it was.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from datetime import UTC, datetime

import dail_runtime
from dail_runtime.errors import DailError, ResultError, TransientError
from dail_runtime.metrics import serve_metrics
from dail_runtime.store import Store, open_store
from dailctl.conductor.archive import Archive
from dailctl.conductor.control import read_control
from dailctl.conductor.decide import Note
from dailctl.conductor.eyes import Eyes
from dailctl.conductor.hands import Hands, manifests_of
from dailctl.conductor.lease import Lease
from dailctl.conductor.loop import Conductor, expected_of, failed_status, first_status
from dailctl.conductor.metrics import RunMetrics
from dailctl.conductor.status import RunStatus
from dailctl.conductor.store import RunStore, run_store
from dailctl.kube import Client, Conflict, Forbidden, Invalid, NotFound, Refusals, Unauthorized, load_access
from dailctl.kube.resources import CONFIG_MAP, Object, owner_reference, uid_of
from dailctl.preflight.admission import refused_objects
from dailctl.render.names import COMPONENT_LABEL
from dailctl.render.record import RunRecord, run_of_record

PATIENCE = 60.0
"""Seconds for which one request is tried again."""
BRIEF = 2.0
"""The same for one whose answer may also come later."""
HIGHEST_FINAL = 63
MOST_LINES = 5000


def main(argv: list[str] | None = None) -> int:
    """Conduct the run; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m dailctl.conductor", description="Bring a run on a cluster to its end.")
    parser.add_argument("--run", required=True, metavar="R", help="name of the run's record, a ConfigMap")
    name = parser.parse_args(argv).run
    signal.signal(signal.SIGTERM, lambda *_: os._exit(143))
    try:
        # A pod has its own identity; on a laptop the kubeconfig says where.
        client = Client(load_access(namespace=os.environ.get("POD_NAMESPACE")), patience=PATIENCE)
        status = _patiently(client, lambda: conduct(client, name, os.environ.get("POD_NAME")))
    except DailError as err:
        say(str(err))
        return err.exit_code
    if status is None or status.state != "failed":
        return 0
    code = status.exit_code or 0
    return code if 2 <= code <= HIGHEST_FINAL else ResultError.exit_code


def _patiently(client: Client, conducting: Callable[[], RunStatus | None]) -> RunStatus | None:
    """Try again where the API server refuses at first: no other start of the conductor follows one that it refused."""
    refusals = Refusals(client.ready)
    while True:
        try:
            return conducting()
        except (Unauthorized, Forbidden, Conflict) as err:
            if refusals.stay():
                raise
            say(f"waits: {err}")
            time.sleep(2.0)


def conduct(client: Client, name: str, pod: str | None) -> RunStatus | None:
    """Bring the run called `name` to its end; its last status, None where it was deleted.

    Raises:
        DailError: it cannot be conducted now; the record says why where it can.
    """
    held = client.find(CONFIG_MAP, name)
    if held is None:
        # Whoever deletes the record wants the run to be gone; everything else of it goes with the record.
        say(f"run {name} was deleted")
        return None
    record = run_of_record(held.get("data") or {})
    labels = {**(held["metadata"].get("labels") or {}), COMPONENT_LABEL: "conductor"}
    changed, lost = threading.Event(), threading.Event()

    def lose() -> None:
        lost.set()
        changed.set()

    lease = Lease(client, record.name, pod, owner_reference(held), labels, lose)
    lease.acquire(lambda holder: say(f"waits for the conductor {holder}, which holds this run"))
    # Read once more: until now another conductor may have written.
    held = client.get(CONFIG_MAP, name)
    data: dict[str, str] = held.get("data") or {}
    manifests = manifests_of(record, data)
    hands = Hands(client, record, held, manifests, pod, lease.require)
    status = first_status(record, data)
    say(f"dail {dail_runtime.__version__} conducts {record.name}: {len(record.tasks)} tasks")
    eyes = Eyes(client, record, manifests, changed.set)
    try:
        store, status = _store(client, record, data, status, hands)
        try:
            eyes.open()
            if status.started is None:
                _check(client, manifests)
        except (NotFound, Invalid) as err:
            # A kind that the run needs is not there, or the cluster will not take a task's objects: nothing but a person can help.
            hands.write_status(failed_status(status, err, read_control(data), hands.now()), _version(client, name))
            hands.tell(Note("RunFailed", str(err), warning=True))
            hands.hand_over()
            raise
        archive = Archive(client, store.root, record.name)
        expected = expected_of(manifests)
        try:
            conductor = Conductor(
                record, uid_of(held), eyes, hands, store, archive, lease, Refusals(client.ready), changed, lost, expected, say, pod, status
            )  # fmt: skip
            serve_metrics(RunMetrics(record, lambda: conductor.status, lambda: conductor.looked))
            return conductor.run()
        finally:
            LOG.keep(store.root, record.name)
    finally:
        eyes.close()
        lease.release()


def _version(client: Client, name: str) -> str:
    return str(client.get(CONFIG_MAP, name)["metadata"]["resourceVersion"])


def _check(client: Client, manifests: Mapping[str, tuple[Object, ...]]) -> None:
    """Before a run begins that Helm or Git applied: what `dailctl submit` asks beforehand. The last task's turn may come in days.

    Raises:
        Invalid: the API server would refuse an object of a task.
    """
    found = refused_objects(client.with_patience(BRIEF), (one for objects in manifests.values() for one in objects))
    sentences = [one.sentence for one in found if one.final]
    if sentences:
        raise Invalid("; ".join(sentences))


def _store(client: Client, record: RunRecord, data: dict[str, str], status: RunStatus, hands: Hands) -> tuple[RunStore, RunStatus]:
    try:
        return run_store(record, data), status
    except TransientError:
        raise
    except DailError as err:
        # Told where people look, and what is left of the run goes: a store that refuses now will refuse again.
        say(str(err))
        status = failed_status(status, err, read_control(data), hands.now())
        hands.write_status(status, _version(client, record.name))
        root = open_store(record.run_uri, endpoint=record.endpoint, region=record.region)
        return RunStore(None, root, err), status


class _Log:
    """What the conductor said, kept for the store: its own pod goes soon after it ends."""

    def __init__(self) -> None:
        self._lines: deque[str] = deque(maxlen=MOST_LINES)

    def add(self, line: str) -> None:
        self._lines.append(line)

    def keep(self, root: Store, run: str) -> None:
        with contextlib.suppress(DailError):
            stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
            root.put(f"logs/conductor/{run}/{stamp}.log", "".join(self._lines).encode())


LOG = _Log()


def say(sentence: str) -> None:
    """A line of the conductor's log."""
    line = f"{datetime.now(UTC).strftime('%Y-%m-%dT%H:%M:%SZ')} {sentence}\n"
    LOG.add(line)
    sys.stderr.write(line)
    sys.stderr.flush()


if __name__ == "__main__":
    # Not sys.exit: threads that watch end with the process, whatever they wait for.
    code = main()
    sys.stderr.flush()
    os._exit(code)
