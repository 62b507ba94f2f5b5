"""Cancel, suspend, resume and delete: what a person wants goes into the record, the conductor does it; where there is no conductor to
do it any more, it is done from here."""

from __future__ import annotations

import time
from collections.abc import Callable

from dail_runtime.errors import ClusterError, Interrupted, TransientError, UsageError
from dailctl.conductor.control import KEY as CONTROL
from dailctl.conductor.control import MANAGER as CONTROL_MANAGER
from dailctl.conductor.control import Control
from dailctl.conductor.status import KEY as STATUS
from dailctl.conductor.status import MANAGER as CONDUCTOR_MANAGER
from dailctl.conductor.status import SUMMARY, RunStatus, summary_of
from dailctl.explain.objects import extended_of
from dailctl.kube import Client, NotFound
from dailctl.kube.resources import (
    CONFIG_MAP,
    DEPLOYMENT,
    JOB,
    PDB,
    POD,
    PYTORCH_JOB,
    SERVICE,
    Object,
    job_is_over,
    name_of,
    owner_reference,
    uid_of,
)
from dailctl.observe.runs import Held, held_of
from dailctl.render.names import RUN_LABEL, conductor_job, conductor_of, tasks_of
from dailctl.submit.apply import apply_owned, start_again
from dailctl.submit.compose import compose_again

LOOK = 1.0
"""Seconds between two looks while something is waited for."""
PATIENCE = 10.0
"""Seconds for a conductor that is not at work yet to begin, where it holds nothing that has to be freed."""
DONE = {"cancel": "cancelled", "suspend": "suspended"}
STAGE_KINDS = (JOB, PYTORCH_JOB, DEPLOYMENT, SERVICE, PDB)
"""What tasks consist of."""

Tell = Callable[[str], None]
"""Takes a sentence about what is waited for."""


def wish(client: Client, held: Held, control: Control) -> None:
    """Write into the record what is wanted of the run.

    Raises:
        ApiError: the user may not, or the run was deleted (or deleted and submitted anew) meanwhile.
    """
    meta = {"name": held.name, "uid": held.uid}
    body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": {CONTROL: control.model_dump_json()}}
    client.apply(body, CONTROL_MANAGER, namespace=held.namespace)


def halt(client: Client, held: Held, word: str, *, seconds: float, tell: Tell) -> RunStatus:
    """Cancel or suspend the run and wait until it holds no pod any more; returns its status then.

    Args:
        client: the cluster.
        held: the run.
        word: `cancel` or `suspend`.
        seconds: how long to wait; 0: only say what is wanted.
        tell: hears what is waited for.

    Raises:
        UsageError: the run has ended already.
        TransientError: pods are still there after so long.
    """
    if held.status.ended:
        if word == "cancel" and held.status.state == "cancelled":
            return held.status
        raise UsageError(f"run {held.name} is {held.status.state} already; there is nothing to {word}")
    wish(client, held, Control(desired="cancel" if word == "cancel" else "suspend", generation=held.control.generation))
    if seconds <= 0:
        return held.status
    began, told, alone = time.monotonic(), "", False
    while True:
        now = read(client, held)
        pods = stage_pods(client, now)
        state = now.status.state
        if not pods and (state == "cancelled" or (word == "suspend" and state == "suspended")):
            return now.status
        if not alone and not conducted(client, now):
            alone = True
            tell(f"run {held.name} has no conductor that could stop it; its objects are removed from here")
            stop_tasks(client, now)
        if alone and not pods:
            return _write_halted(client, now, word)
        if not pods and time.monotonic() - began > PATIENCE and not _works(client, now):
            tell(f"nothing of run {held.name} is on the cluster; its conductor, which has not started yet, will find it {DONE[word]}")
            return now.status
        sentence = f"waiting until {len(pods)} pods have ended" if pods else "waiting for the conductor"
        if sentence != told:
            tell(sentence)
            told = sentence
        if time.monotonic() - began > seconds:
            late = f"{', '.join(name_of(pod) for pod in pods[:3])} did not end" if pods else "its conductor has not answered"
            raise TransientError(f"run {held.name} is to be {DONE[word]}, and {late} yet; dailctl describe {held.name} says why")
        time.sleep(LOOK)


def resume(client: Client, held: Held) -> list[str]:
    """Let a suspended run go on, or one that failed or was cancelled start again where it stopped; returns what was done, in words.

    A conductor that is still there does it. Where there is none, one is made from the job that the record holds.

    Raises:
        UsageError: the run is done, or runs.
        ApiError: the user may not.
        TransientError: the conductor of before neither ends nor goes on.
    """
    if held.status.state == "done":
        raise UsageError(f"run {held.name} is done; a changed job is a new run (dailctl submit)")
    there, generation = conducted(client, held), None
    if held.status.ended:
        generation = start_again(client, held.obj, held.status)
    elif held.control.desired != "run":
        wish(client, held, Control(desired="run", generation=held.control.generation))
    elif there:
        raise UsageError(f"run {held.name} is {held.status.state} already; dailctl describe {held.name} says what it waits for")
    if there and not held.status.ended:
        return []
    objects = compose_again(held.obj, held.namespace)
    return [str(one) for one in apply_owned(client, objects, owner_reference(held.obj), generation)]


def delete(client: Client, held: Held, *, seconds: float, tell: Tell) -> None:
    """Delete the run's record, and with it everything of the run but its results in the store; waits until its pods are gone.

    Raises:
        TransientError: pods are still there after so long.
    """
    client.delete(CONFIG_MAP, held.name, namespace=held.namespace, uid=held.uid)
    end, told = time.monotonic() + seconds, 0
    while seconds > 0:
        left = client.select(POD, namespace=held.namespace, labels=f"{RUN_LABEL}={held.name}")
        if not left:
            return
        if len(left) != told:
            tell(f"waiting until {len(left)} pods have ended")
            told = len(left)
        if time.monotonic() > end:
            raise TransientError(f"run {held.name} is deleted, and pod {name_of(left[0])} did not end yet; dailctl gc shows what is left")
        time.sleep(LOOK)


def read(client: Client, held: Held) -> Held:
    """The run as it is now.

    Raises:
        UsageError: it was deleted.
    """
    try:
        obj = client.get(CONFIG_MAP, held.name, namespace=held.namespace)
    except NotFound:
        obj = None
    if obj is None or uid_of(obj) != held.uid:
        raise UsageError(f"run {held.name} was deleted meanwhile; its finished results are kept in its store")
    return held_of(obj)


def stage_pods(client: Client, held: Held) -> list[Object]:
    """Pods of the run's tasks that have not ended."""
    pods = client.select(POD, namespace=held.namespace, labels=tasks_of(held.name))
    return [pod for pod in pods if (pod.get("status") or {}).get("phase") not in ("Succeeded", "Failed")]


def gpus_of(pods: list[Object]) -> dict[str, int]:
    """Extended resources that pods hold together."""
    total: dict[str, int] = {}
    for pod in pods:
        for name, count in extended_of(pod).items():
            total[name] = total.get(name, 0) + count
    return total


def conducted(client: Client, held: Held) -> bool:
    """Whether a conductor is at work, or about to be: its Job is there and has not ended."""
    job = client.find(JOB, conductor_job(held.name), namespace=held.namespace)
    return job is not None and not job_is_over(job)


def _works(client: Client, held: Held) -> bool:
    """Whether a pod of its conductor runs."""
    pods = client.select(POD, namespace=held.namespace, labels=conductor_of(held.name))
    return any((pod.get("status") or {}).get("phase") == "Running" for pod in pods)


def stop_tasks(client: Client, held: Held) -> None:
    """Delete every object of the run's tasks. For runs without a conductor: it would keep their logs first.

    Raises:
        ApiError: the user may not.
    """
    for kind in STAGE_KINDS:
        try:
            found = client.select(kind, namespace=held.namespace, labels=tasks_of(held.name))
        except NotFound:
            continue
        for one in found:
            client.delete(kind, name_of(one), namespace=held.namespace, propagation="Foreground", uid=uid_of(one))


def _write_halted(client: Client, held: Held, word: str) -> RunStatus:
    """The status that the conductor would have written."""
    if conducted(client, held):
        raise ClusterError(f"run {held.name} has a conductor again; try again")
    # As the conductor does: what was removed ended without a result, and is no failure.
    freed = {"retry_at": None, "pods": 0, "ready": 0, "message": None}
    tasks = tuple(
        one.model_copy(
            update={**freed, "failed_attempt": one.attempts, "state": one.state if one.state in ("done", "waiting") else "waiting"}
        )
        for one in held.status.tasks
    )
    now = client.now()
    update: dict[str, object] = {"tasks": tasks, "updated": now, "state": DONE[word]}
    if word == "cancel":
        update |= {"message": "cancelled; its results are kept", "exit_code": Interrupted.exit_code, "finished": now}
    else:
        update |= {"message": "suspended; resume it to go on"}
    status = held.status.model_copy(update=update)
    summary = summary_of(status).model_dump_json(exclude_defaults=True)
    meta = {"name": held.name, "uid": held.uid, "annotations": {SUMMARY: summary}}
    body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": {STATUS: status.model_dump_json(indent=1)}}
    client.apply(body, CONDUCTOR_MANAGER, namespace=held.namespace)
    return status
