"""One conductor at a time: a coordination.k8s.io Lease that its holder renews."""

from __future__ import annotations

import contextlib
import threading
import time
import uuid
from collections.abc import Callable
from datetime import UTC, datetime

from dail_runtime.errors import DailError, TransientError
from dailctl.conductor.pods import is_over
from dailctl.conductor.status import MANAGER
from dailctl.kube import ApiError, Client, Conflict, NotFound
from dailctl.kube.resources import LEASE, POD, Object

DURATION = 30
"""Seconds after which a silent holder may be replaced."""
RENEW = 10.0
SURE = 20.0
"""So long after its last renewal a holder may act: clearly less than DURATION."""
LOOK = 3.0
"""Seconds between two looks at a lease that another holds."""


class Lease:
    """The lease called `name`.

    A holder's silence is measured by the clock of whoever waits, so clocks need not agree. A holder whose pod is gone, or
    that was an earlier process of the same pod, is replaced at once.
    """

    def __init__(self, client: Client, name: str, pod: str | None, owner: Object, labels: dict[str, str], lost: Callable[[], None]) -> None:
        self._client, self._name, self._pod, self._owner, self._labels = client, name, pod, owner, labels
        self._lost = lost
        self.identity = f"{pod or 'process'}_{uuid.uuid4()}"
        self.refused: ApiError | None = None
        """Why it is not renewed: the API server refuses it, and is not only away."""
        self._renewed = float("-inf")
        self._held: Object | None = None
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="lease", daemon=True)

    def acquire(self, waiting: Callable[[str], None]) -> None:
        """Wait until the lease is ours, then keep it; `waiting` hears the holder's name once, where there is one.

        Raises:
            DailError: the API server refuses or cannot be reached.
        """
        seen: tuple[str, float] | None = None
        while True:
            found = self._client.find(LEASE, self._name)
            if found is None or self._may_take(found, seen):
                if self._take(found):
                    self._thread.start()
                    return
                continue
            if seen is None:
                waiting(str(found["spec"].get("holderIdentity", "")).rpartition("_")[0])
            if seen is None or seen[0] != _mark(found):
                seen = _mark(found), time.monotonic()
            time.sleep(LOOK)

    def is_ours(self) -> bool:
        """Whether acting is safe now."""
        return time.monotonic() - self._renewed < SURE

    def require(self) -> None:
        """Raise TransientError where acting is not safe now."""
        if not self.is_ours():
            raise TransientError(f"the lease {self._name} was not renewed for {SURE:g} s; nothing is done until it is certain who holds it")

    def release(self) -> None:
        """Stop renewing, and let the next one have it at once."""
        self._end.set()
        if self._thread.is_alive():
            self._thread.join()
        held = self._held
        if held is not None:
            with contextlib.suppress(DailError):
                self._write(held, {"holderIdentity": ""})

    def _may_take(self, found: Object, seen: tuple[str, float] | None) -> bool:
        holder = str(found["spec"].get("holderIdentity") or "")
        pod = holder.rpartition("_")[0]
        if not holder or (self._pod is not None and pod == self._pod):
            return True
        if pod != "process":
            there = self._client.find(POD, pod)
            if there is None or is_over(there):
                return True
        return seen is not None and seen[0] == _mark(found) and time.monotonic() - seen[1] > DURATION

    def _take(self, found: Object | None) -> bool:
        asked, now = time.monotonic(), _now()
        transitions = int(found["spec"].get("leaseTransitions", 0)) + 1 if found is not None else 0
        spec: Object = {"holderIdentity": self.identity, "leaseDurationSeconds": DURATION, "leaseTransitions": transitions}
        spec |= {"acquireTime": now, "renewTime": now}
        try:
            if found is None:
                meta = {"name": self._name, "labels": self._labels, "ownerReferences": [self._owner]}
                lease = {"apiVersion": LEASE.api_version, "kind": LEASE.kind, "metadata": meta, "spec": spec}
                self._held = self._client.create(lease, manager=MANAGER)
            else:
                self._held = self._write(found, spec)
        except Conflict:
            # Another one was faster, or our own request arrived and its answer did not: the next look tells.
            return self._is_mine()
        self._renewed = asked
        return True

    def _write(self, held: Object, spec: Object) -> Object:
        """Change the lease as it was read. Raises Conflict where someone has written it since."""
        version = {"resourceVersion": held["metadata"]["resourceVersion"]}
        return self._client.merge(LEASE, self._name, {"metadata": version, "spec": spec})

    def _is_mine(self) -> bool:
        found = self._client.find(LEASE, self._name)
        if found is None or found["spec"].get("holderIdentity") != self.identity:
            return False
        self._held, self._renewed = found, time.monotonic()
        return True

    def _made_anew(self) -> bool:
        """Makes it anew where someone has removed it; whether nobody else was faster."""
        return self._client.find(LEASE, self._name) is None and self._take(None)

    def _beat(self) -> None:
        while not self._end.wait(RENEW if self.is_ours() else LOOK):
            asked = time.monotonic()
            held = self._held
            assert held is not None, "the thread starts when the lease is held"
            try:
                self._held = self._write(held, {"renewTime": _now()})
                self._renewed, self.refused = asked, None
            except (Conflict, NotFound):
                with contextlib.suppress(DailError):
                    if not (self._is_mine() or self._made_anew()):
                        self._renewed = float("-inf")
                        self._lost()
                        return
            except DailError as err:
                # The API server may be restarting; whether acting is still safe, `is_ours` says.
                self.refused = err if isinstance(err, ApiError) else None


def _mark(lease: Object) -> str:
    """What changes with every renewal."""
    return f"{lease['spec'].get('holderIdentity')} {lease['spec'].get('renewTime')}"


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
