"""Why an attempt failed, and whether another one may help. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Literal

from dail_runtime.errors import ClusterError, IntegrityError, Interrupted, TransientError
from dail_runtime.stages.jobs import Attempt
from dailctl.backends.workload import Reading
from dailctl.conductor.pods import Ending, disrupted, endings
from dailctl.explain.endings import last_line, said_error
from dailctl.kube.resources import Object

Kind = Literal["final", "memory", "passing", "disrupted"]

MEMORY_RETRIES = 1
"""A stage that resumes may get past the peak that killed it; twice is no accident."""
DISRUPTIONS = 50
"""So often an attempt may be preempted, evicted or lose its node. It is not the job's fault, but it should end some day."""
PAUSES = (5, 20, 60, 180)
"""Seconds before the attempts that follow passing faults."""
UNEXPECTED = 1
FINAL_CODES = (*range(2, 64), 126, 127)
"""User errors, and a command that the image does not have."""
SIGKILLED, SIGTERMED = 137, 143


@dataclass(frozen=True)
class Failure:
    """How an attempt ended without a result."""

    kind: Kind
    """`final`: the same again would fail again; `memory`: a container took more than its limit; `passing`: a fault of the
    store, a server, the process; `disrupted`: the cluster took the pod away."""
    sentence: str
    exit_code: int


def classify(reading: Reading, pods: Sequence[Object], recorded: Attempt | None) -> Failure:
    """Why a workload failed.

    Args:
        reading: what the workload's controller says.
        pods: the task's pods as far as they are still there.
        recorded: the attempt's own record in the store, where the stage could still write one.
    """
    ended = [one for pod in pods for one in endings(pod) if one.code != 0]
    # The one that decides: a final fault explains the others, which often only lost their peer.
    final = sorted((one for one in ended if one.code in FINAL_CODES), key=lambda one: one.finished)
    if final:
        return Failure("final", _sentence(final[0], recorded), final[0].code)
    memory = [one for one in ended if one.reason == "OOMKilled"]
    if memory:
        what = f"container {memory[0].container} of pod {memory[0].pod} took more memory than its limit"
        return Failure("memory", f"{what}; raise the pool's memory in cluster.pools", SIGKILLED)
    gone = [word for pod in pods if (word := disrupted(pod))]
    if gone:
        return Failure("disrupted", f"a pod was taken away: {gone[0]}", SIGTERMED)
    if ended:
        # Times are whole seconds. A process that lost its peer ends "unexpectedly" in the same one as the peer that was killed.
        first = min(ended, key=lambda one: (one.code == UNEXPECTED, one.finished))
        return Failure(_kind_of(first.code), _sentence(first, recorded), first.code)
    said = reading.message or reading.reason or "no reason is given"
    if reading.reason == "DeadlineExceeded":
        return Failure("final", f"it took longer than it may ({said})", ClusterError.exit_code)
    return Failure("passing", f"its pods are gone ({said})", TransientError.exit_code)


def lost_result() -> Failure:
    """The workload succeeded, and the store has no result."""
    sentence = "the stage ended well, yet the store does not have its result; check that nothing removes objects below the run's root"
    return Failure("passing", sentence, IntegrityError.exit_code)


def may_retry(kind: Kind, times: int, attempts: int) -> bool:
    """Whether another attempt is due after the `times`-th failure of this kind, where a task may have `attempts`."""
    match kind:
        case "final":
            return False
        case "memory":
            return times <= MEMORY_RETRIES
        case "passing":
            return times < attempts
        case "disrupted":
            return times <= DISRUPTIONS


def pause_before_retry(kind: Kind, times: int) -> timedelta:
    """How long to wait before the next attempt."""
    if kind == "disrupted":
        return timedelta(seconds=1)
    return timedelta(seconds=PAUSES[min(times, len(PAUSES)) - 1])


def _kind_of(code: int) -> Kind:
    if code == UNEXPECTED or code in FINAL_CODES:
        return "final"
    return "disrupted" if code == SIGTERMED else "passing"


def _sentence(ending: Ending, recorded: Attempt | None) -> str:
    said = said_error(ending.message)
    if said is not None and said.get("message"):
        return str(said["message"])
    if recorded is not None and recorded.error and recorded.exit_code == ending.code:
        return recorded.error
    if ending.code == Interrupted.exit_code:
        return f"pod {ending.pod} was asked to stop, and saved"
    if ending.code == SIGKILLED:
        return f"container {ending.container} of pod {ending.pod} was killed (SIGKILL)"
    words = last_line(ending.message)
    return f"container {ending.container} of pod {ending.pod} ended with code {ending.code}" + (f": {words}" if words else "")
