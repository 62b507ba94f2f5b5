"""Why a container ended: its exit code, what it said last, and what the node says of it."""

from __future__ import annotations

import json
import re
import signal
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from dailctl.explain import table
from dailctl.explain.cause import Cause, one_line
from dailctl.explain.objects import (
    BEGINNING,
    OWN_CONTAINERS,
    about,
    conditions_of,
    containers_of,
    extended_of,
    latest,
    limit_of,
    pool_of,
    spec_of,
    status_of,
    time_of,
)
from dailctl.kube.resources import Object, name_of, shown

USER_ERRORS = range(2, 64)
PASSING = range(64, 126)
NOT_STARTED = (126, 127)
FINAL_CODES = (*USER_ERRORS, *NOT_STARTED)
"""After these the same again would fail again, whatever was said."""
LOOP = 3
"""So many ends of a container are a loop."""
_SIGKILL, _SIGTERM = 137, 143
_SHUT_DOWN = ("NodeLost", "NodeShutdown", "Shutdown", "Terminated")
_PUT_OUT = ("Evicted",)
"""The kubelet's words in a pod's status."""
_OUT_OF_SIGHT = ("Unknown", "ContainerStatusUnknown")
_NEVER_BEGAN = ("StartError", "ContainerCannotRun")
"""Those of a container: it was lost with its node's memory of it, or its program could not be started."""
_NO_PROGRAM = re.compile(r"executable file not found|exec format|no such file|permission denied")

_GPU_MEMORY = re.compile(r"CUDA out of memory|OutOfMemoryError: CUDA|CUDA error: out of memory|HIP out of memory", re.IGNORECASE)
_NO_CUDA = re.compile(
    r"no CUDA-capable device|CUDA is not available|No CUDA GPUs|no NVIDIA driver|Torch not compiled with CUDA"
    r"|driver version is insufficient|libcuda\.so|no kernel image is available|were asked for.*(?:CUDA|GPU)|sees no GPU"
    r"|CUDA unknown error|Failed to initialize NVML|Failed to infer device type|nvidia-container-cli",
    re.IGNORECASE,
)
_BROKEN = re.compile(
    r"uncorrectable.*ECC|GPU is lost|fallen off the bus|CUDA error: (?:hardware|unknown) error|NVLink error", re.IGNORECASE
)
_PEERS = re.compile(
    r"Watchdog caught collective operation timeout|ncclRemoteError|ncclSystemError|NCCL (?:error|communicator was aborted)|DistBackendError"
    r"|gloo.*(?:[Tt]imed out|Connection (?:closed|reset))|Timed out waiting .*(?:recv|send|clients)"
    r"|Rendezvous(?:Timeout|Connection|Closed)Error|Dist(?:Store|Network)Error"
)
_PATTERNS = (
    *((_GPU_MEMORY, table.GPU_MEMORY), (_BROKEN, table.GPU_BROKEN), (_NO_CUDA, table.CUDA_MISSING)),
    (_PEERS, table.PEERS_TIMED_OUT),
)


@dataclass(frozen=True)
class Ended:
    """One end of a container."""

    pod: Object
    container: Object
    code: int
    reason: str
    """The kubelet's word: `Error`, `OOMKilled`."""
    said: str
    """The last lines it wrote."""
    finished: datetime
    restarts: int


def ends_of(pod: Object) -> list[Ended]:
    """How containers of the pod ended badly: now, and before they were started again."""
    found = []
    for container, status in containers_of(pod):
        for place in ("state", "lastState"):
            ended = (status.get(place) or {}).get("terminated")
            if ended and int(ended.get("exitCode") or 0):
                reason, said = str(ended.get("reason", "")), str(ended.get("message") or "")
                when, restarts = time_of(ended.get("finishedAt")) or BEGINNING, int(status.get("restartCount") or 0)
                found.append(Ended(pod, container, int(ended["exitCode"]), reason, said, when, restarts))
    return found


def taken_away(pod: Object) -> Cause | None:
    """What took the pod away, where it did not end by itself."""
    target, status = conditions_of(pod).get("DisruptionTarget", {}), status_of(pod)
    reason = str(target.get("reason", "")) if target.get("status") == "True" else ""
    said = target.get("message") or status.get("message") or reason or status.get("reason") or ""
    facts = {"pod": name_of(pod), "pool": pool_of(pod), "node": spec_of(pod).get("nodeName", "?"), "said": said}
    if reason == "PreemptionByScheduler" or status.get("reason") == "Preempting":
        return table.PREEMPTED.of(shown(pod), **facts)
    if reason in ("DeletionByTaintManager", "DeletionByPodGC") or status.get("reason") in _SHUT_DOWN:
        return table.NODE_LOST.of(shown(pod), **facts)
    if reason == "EvictionByEvictionAPI":
        return table.DRAINED.of(shown(pod), **facts)
    if reason == "TerminationByKubelet" or status.get("reason") in _PUT_OUT:
        return table.EVICTED.of(shown(pod), **facts)
    if reason:
        return table.DRAINED.of(shown(pod), **facts)
    if status.get("phase") == "Failed" and status.get("reason") and not ends_of(pod):
        late = too_late(shown(pod), str(status["reason"]), str(said))
        return late or table.REJECTED.of(
            shown(pod), **{**facts, "said": said if status["reason"] in said else f"{status['reason']}: {said}"}
        )
    return None


def ended_cause(ended: Ended, events: Iterable[Object] = (), recorded: str | None = None) -> Cause:
    """Why a container ended with a code other than 0. `recorded`: what its stage stored of its end, should its last words be lost."""
    subject, pod, node = shown(ended.pod), name_of(ended.pod), spec_of(ended.pod).get("nodeName", "?")
    facts = {"pod": pod, "container": ended.container.get("name", "?"), "pool": pool_of(ended.pod), "code": ended.code}
    event = str((said_error(ended.said) or {}).get("message") or recorded or "")
    said = event or last_line(ended.said) or ended.reason or "it said nothing"
    if ended.reason == "OOMKilled":
        own = ended.container.get("name") in OWN_CONTAINERS
        remedy = None if own else "dail does not make that container: raise its limit where the cluster's webhook or operator sets it"
        return table.OUT_OF_MEMORY.of(subject, **facts, limit=limit_of(ended.container, "memory"), remedy=remedy)
    probe = latest(about(ended.pod, events), "Unhealthy") if ended.code in (_SIGKILL, _SIGTERM) else None
    killed = latest(about(ended.pod, events), "Killing")
    if probe is not None and killed is not None and "probe" in str(killed.get("message")):
        kind = str(probe.get("message", "")).split(" ")[0].lower()
        return table.LIVENESS.of(subject, **facts, probe=kind, said=probe.get("message", ""))
    if ended.reason in _OUT_OF_SIGHT:
        return table.NODE_LOST.of(subject, **facts, node=node, said=ended.said or "it came back, and the container was gone")
    for pattern, row in _PATTERNS:
        if pattern.search(ended.said):
            gpus = ", ".join(f"{count} {name}" for name, count in extended_of(ended.pod).items()) or "none"
            return row.of(subject, **facts, node=node, gpus=gpus, said=said if event else _line_with(ended.said, pattern))
    if ended.code in USER_ERRORS:
        return table.USER_ERROR.of(subject, **facts, said=_whole(said, event, facts))
    if ended.code in NOT_STARTED or (ended.reason in _NEVER_BEGAN and _NO_PROGRAM.search(ended.said)):
        return table.COMMAND_MISSING.of(subject, **facts, said=said)
    if ended.code in PASSING or ended.reason in _NEVER_BEGAN:
        return table.PASSING_FAULT.of(subject, **facts, said=_whole(said, event, facts))
    if ended.code == _SIGTERM:
        return table.STOPPED.of(subject, **facts)
    if ended.restarts >= LOOP:
        return table.CRASH_LOOP.of(subject, **facts, times=ended.restarts + 1, said=said)
    if (name := _signal(ended.code - 128)) is not None:
        return table.SIGNALLED.of(subject, **facts, signal=name, said=said)
    if ended.code >= 128:
        return table.PASSING_FAULT.of(subject, **facts, said=_whole(said, event, facts))
    return table.CRASH.of(subject, **facts, said=said)


def too_late(owner: str, reason: str, message: str) -> Cause | None:
    """That a workload ran into its deadline, where its condition says so: Jobs by a reason of its own, PyTorchJobs by the message alone."""
    if reason != "DeadlineExceeded" and "longer than specified deadline" not in message:
        return None
    return table.DEADLINE.of(owner, owner=owner, said=message or reason)


def said_error(text: str) -> dict[str, Any] | None:
    """The stage's own last word, an event line `{"event": "error", ...}`, in the end of a log."""
    for line in reversed(text.splitlines()):
        if '"event"' in line and '"error"' in line:
            try:
                found = json.loads(line[line.index("{") :])
            except (RecursionError, ValueError):
                continue
            if isinstance(found, dict) and found.get("event") == "error":
                return found
    return None


def last_line(text: str) -> str:
    """The last line that says anything."""
    return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "")


def _whole(said: str, event: str, facts: dict[str, object]) -> str:
    """A stage's own sentence stands for itself; any other last line needs to be introduced."""
    return said if event else f"container {facts['container']} of pod {facts['pod']} ended with code {facts['code']}: {said}"


def _line_with(text: str, pattern: re.Pattern[str]) -> str:
    return one_line(next((line for line in text.splitlines() if pattern.search(line)), text))


def _signal(number: int) -> str | None:
    """The name of a signal; None where there is none of that number."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}" if 0 < number < 65 else None
