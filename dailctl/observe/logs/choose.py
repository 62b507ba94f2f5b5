"""Which task's log, and which of its pods. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from dail_runtime.errors import UsageError
from dailctl.explain.objects import OWN_CONTAINERS, spec_of, status_of
from dailctl.kube.resources import Object, label_of, name_of
from dailctl.observe.runs import Held
from dailctl.observe.seen import CONDUCTOR
from dailctl.render.names import COMPONENT_LABEL


@dataclass(frozen=True)
class Wanted:
    """What a person wants to read."""

    stage: str | None = None
    """A stage, a task, or `conductor`; None: the task at work."""
    replica: str | None = None
    """A model server or rank by number, a pod by name, or `all`; None: the stage's own process."""
    attempt: int | None = None
    """This attempt, from the archive."""
    previous: bool = False
    """The container or attempt before."""
    since: str | None = None
    """RFC 3339 time."""
    tail: int | None = None
    """Only so many last lines."""
    raw: bool = False
    """Every line as it was written."""


EVERY = "all"
"""As --replica: all pods of the task."""
SERVER = "server"
_REPLICA, _INDEX = "training.kubeflow.org/replica-type", "training.kubeflow.org/replica-index"


def chosen_task(held: Held, stage: str | None) -> str:
    """The task that `stage` means: its name, its label, or its stage where the run has one such task (or one at work).

    Without it: the task at work, else the one that failed, else the last that ran.

    Raises:
        UsageError: the run has no such task, or several.
    """
    tasks = held.status.tasks
    began = [task for task in tasks if task.attempts or task.state not in ("waiting", "done")]
    if stage is None:
        going = [task for task in began if task.state != "done"]
        return (going or began[-1:] or list(tasks[:1]))[0].name
    if stage == CONDUCTOR:
        return CONDUCTOR
    for task in tasks:
        if stage in (task.name, task.slug):
            return task.name
    of_stage = [task for task in tasks if task.stage == stage]
    if len(of_stage) > 1:
        of_stage = [task for task in of_stage if task.state not in ("waiting", "done")] or of_stage
    if len(of_stage) == 1:
        return of_stage[0].name
    has = ", ".join([*(task.name for task in (of_stage or tasks)), *(() if of_stage else (CONDUCTOR,))])
    what = "has several tasks of stage" if of_stage else "has no task or stage"
    raise UsageError(f"run {held.name} {what} {stage!r}: {has}; name one of them with --stage")


def chosen_pods(pods: Iterable[Object], replica: str | None) -> list[Object]:
    """The pods of one task whose logs are meant, in their order.

    Args:
        pods: all the task has.
        replica: None: the stage's own process (the driver, or the first rank of training), its newest pod last; a number: this model
            server or rank; `all`: every pod; else the name of a pod.

    Raises:
        UsageError: it is no such thing.
    """
    found = sorted(pods, key=_order)
    if replica == EVERY:
        return found
    servers = [pod for pod in found if label_of(pod, COMPONENT_LABEL) == SERVER]
    own = [pod for pod in found if pod not in servers]
    ranks = [pod for pod in own if label_of(pod, _REPLICA)]
    if replica is None:
        return [pod for pod in own if pod not in ranks[1:]]
    if not replica.isdigit():
        return [pod for pod in found if name_of(pod) == replica]
    numbered = servers or ranks or own
    return numbered[int(replica) : int(replica) + 1]


def containers(pod: Object) -> list[str]:
    """Names of its containers, dail's own first: a webhook may have put others before it."""
    names = [str(one["name"]) for one in spec_of(pod).get("containers") or ()]
    return sorted(names, key=lambda name: name not in OWN_CONTAINERS)


def container_state(pod: Object, container: str) -> tuple[str, int]:
    """(`waiting`, `running` or `terminated`; restarts) of a container."""
    for status in status_of(pod).get("containerStatuses") or ():
        if status.get("name") == container:
            state = status.get("state") or {}
            word = next((word for word in ("running", "terminated") if word in state), "waiting")
            return word, int(status.get("restartCount", 0))
    return "waiting", 0


def archived(keys: Sequence[str], replica: str | None, attempt: int | None, *, previous: bool) -> list[str]:
    """Which of a task's archived logs are meant.

    Args:
        keys: `attempt-<n>/<pod>.<container>.log` and `....restart-<k>.log`, below the task's folder.
        replica: as in `chosen_pods`.
        attempt: this attempt; None: the last.
        previous: the one before.
    """
    numbers = sorted({number for key in keys if (number := attempt_of(key)) is not None})
    wanted = attempt if attempt is not None else numbers[-1] if numbers else 0
    if previous:
        wanted = max((number for number in numbers if number < wanted), default=0)
    mine = sorted(key for key in keys if attempt_of(key) == wanted)
    if replica == EVERY:
        return mine
    servers = [key for key in mine if ".server." in key]
    own = [key for key in mine if key not in servers and _container_of(key) in OWN_CONTAINERS]
    ranks = sorted((key for key in own if ".pytorch." in key), key=lambda key: ("-master-" not in key, len(key), key))
    if replica is None:
        return [key for key in own if key not in ranks[1:]] if not ranks else [*ranks[:1]]
    if not replica.isdigit():
        return [key for key in mine if f"/{replica}." in key]
    pods = list(dict.fromkeys(_pod_of(key) for key in (servers or ranks or own)))
    named = pods[int(replica) : int(replica) + 1]
    return [key for key in mine if _pod_of(key) in named]


def attempt_of(key: str) -> int | None:
    """The attempt that an archived log is of; None for the conductor's, which are numbered by time."""
    number = key.partition("attempt-")[2].partition("/")[0]
    return int(number) if number.isdigit() else None


def _pod_of(key: str) -> str:
    return key.rpartition("/")[2].partition(".")[0]


def _container_of(key: str) -> str:
    return key.rpartition("/")[2].split(".")[1]


def _order(pod: Object) -> tuple[bool, int, str, str]:
    """Ranks in their order, everything else by age."""
    replica, index = label_of(pod, _REPLICA), label_of(pod, _INDEX) or "0"
    return replica == "worker", int(index) if index.isdigit() else 0, str(pod["metadata"].get("creationTimestamp")), name_of(pod)
