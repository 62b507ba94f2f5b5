"""What happens to a run, seen from outside: its record, its pods while they come and go, and what is left of it."""

from __future__ import annotations

import contextlib
import subprocess
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from dailctl.conductor.status import RunStatus, read_status
from tests.lab.cluster import Cluster, KubectlError, Object

RUN, TASK = "dail.dev/run", "dail.dev/task"
REPLICA = "training.kubeflow.org/replica-type"
OF_THE_NAMESPACE = {"ConfigMap/kube-root-ca.crt", "ServiceAccount/default"}
"""What every namespace has, soon after it is made."""


CONDUCTOR_SECONDS = 300.0
"""In which a conductor comes to write a status: most of it is for a node that pulls its image."""


@dataclass
class Seen:
    """What was seen of a run's pods."""

    servers: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    """Task -> most model servers that ran at the same time."""
    ready: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    """Task -> most model servers that were ready at the same time."""
    trainers: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    """Task -> kinds of training pods that ran: master, worker."""

    def take(self, pods: list[Object]) -> None:
        """Add what these pods show."""
        for task in {pod["metadata"]["labels"].get(TASK) for pod in pods} - {None}:
            own = [pod for pod in pods if pod["metadata"]["labels"].get(TASK) == task]
            servers = [pod for pod in own if pod["metadata"]["labels"].get("app.kubernetes.io/component") == "server"]
            self.servers[task] = max(self.servers[task], len([pod for pod in servers if pod["status"].get("phase") == "Running"]))
            self.ready[task] = max(self.ready[task], len([pod for pod in servers if _is_ready(pod)]))
            ran = [pod for pod in own if REPLICA in pod["metadata"]["labels"] and pod["status"].get("phase") in ("Running", "Succeeded")]
            self.trainers[task] |= {pod["metadata"]["labels"][REPLICA] for pod in ran}


def record_of(cluster: Cluster, namespace: str) -> Object | None:
    """The record of the namespace's one run; None where there is none yet."""
    found = [one for one in cluster.get("configmaps", namespace=namespace, selector=RUN)["items"] if "run.json" in one.get("data", {})]
    return found[0] if found else None


def watch(cluster: Cluster, namespace: str, limit: float) -> tuple[RunStatus, Seen]:
    """Looks on until the run has ended; AssertionError, with what its pods say, where it takes longer than `limit` seconds."""
    seen, start, told = Seen(), time.monotonic(), ""
    status: RunStatus | None = None
    while True:
        # The API server may be away for a moment on a busy machine.
        with contextlib.suppress(KubectlError, subprocess.TimeoutExpired):
            record = record_of(cluster, namespace)
            seen.take(cluster.get("pods", namespace=namespace)["items"])
            status = read_status(record["data"]) if record else None
            if status is not None and status.ended:
                return status, seen
            line = _line(status)
            if line != told:
                print(f"{time.monotonic() - start:6.0f} s  {line}", flush=True)
                told = line
        late = status is None and time.monotonic() - start > CONDUCTOR_SECONDS
        assert not late, f"the run's conductor has not begun after {CONDUCTOR_SECONDS:.0f} s\n{diagnosis(cluster, namespace)}"
        assert time.monotonic() - start < limit, f"the run has not ended after {limit:.0f} s\n{diagnosis(cluster, namespace)}"
        time.sleep(1)


def objects_of(cluster: Cluster, namespace: str) -> set[str]:
    """Everything in the namespace: KIND/NAME. Events, and what is measured of pods, are no objects of a run."""
    listed = cluster.kubectl("api-resources", "--namespaced", "--verbs=list", "--output=name").split()
    kinds = [one for one in listed if "events" not in one and not one.endswith(".metrics.k8s.io")]
    items = cluster.get(",".join(kinds), namespace=namespace)["items"]
    return {f"{one['kind']}/{one['metadata']['name']}" for one in items}


def left_over(cluster: Cluster, namespace: str, before: set[str], limit: float) -> list[str]:
    """What the namespace has after `limit` seconds, or when it is one object (the record), that was not there `before`."""
    end = time.monotonic() + limit
    while True:
        left = sorted(objects_of(cluster, namespace) - before - OF_THE_NAMESPACE)
        if time.monotonic() > end or len(left) == 1:
            return left
        time.sleep(1)


def diagnosis(cluster: Cluster, namespace: str) -> str:
    """What a person would look at first."""
    return "\n\n".join(_diagnosis(cluster, namespace))


def _diagnosis(cluster: Cluster, namespace: str) -> Iterator[str]:
    where = f"--namespace={namespace}"
    yield _tried(cluster, "get", "all,pytorchjobs", "--output=wide", where)
    yield _tried(cluster, "get", "events", "--sort-by=.lastTimestamp", where)[-6000:]
    for pod in _tried(cluster, "get", "pods", "--output=name", where).split():
        yield f"== {pod}\n" + _tried(cluster, "logs", pod, "--all-containers", "--tail=40", where)[-4000:]


def _tried(cluster: Cluster, *words: str) -> str:
    try:
        return cluster.kubectl(*words)
    except (KubectlError, subprocess.TimeoutExpired) as err:
        return str(err)


def _is_ready(pod: dict[str, Any]) -> bool:
    return any(one["type"] == "Ready" and one["status"] == "True" for one in pod["status"].get("conditions", []))


def _line(status: RunStatus | None) -> str:
    if status is None:
        return "no conductor has written a status yet"
    tasks = [f"{one.name} {one.state}" + (f" ({one.message})" if one.message else "") for one in status.tasks if one.state != "waiting"]
    return f"{status.state}: {', '.join(tasks)}" + (f" · {status.message}" if status.message else "")
