"""One run as a whole: from its record and what the cluster has of it to one description, and to the text that people read. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from dailctl import output
from dailctl.conductor.status import TaskStatus, summary_of
from dailctl.explain import explain
from dailctl.explain.objects import conditions_of, containers_of, extended_of, seen_at, spec_of, status_of, times_of
from dailctl.explain.task import SILENCE
from dailctl.kube.resources import JOB, Object, label_of, name_of
from dailctl.observe.model import CauseView, EventView, PodView, RunDescription, TaskView
from dailctl.observe.runs import Held, view_of
from dailctl.observe.seen import CONDUCTOR, Gathered
from dailctl.observe.tables import event_table, pod_table, task_table
from dailctl.render.names import COMPONENT_LABEL
from dailctl.render.record import RunRecord

LAST_EVENTS = 12


def description(held: Held, found: Gathered, now: datetime) -> RunDescription:
    """Everything known of a run at this moment."""
    run = view_of(held.obj, summary_of(held.status))
    if run.message is None and _is_left_alone(held, found, now):
        run = run.model_copy(update={"message": f"it has no conductor, whose Job is gone; dailctl resume {run.name} starts another"})
    causes = tuple(
        CauseView(
            cause=cause.name,
            when=cause.when,
            task=task,
            subject=cause.subject,
            sentence=cause.sentence,
            remedy=cause.remedy,
            final=cause.final,
        )
        for task in found.tasks()
        for cause in explain(found.seen(task), now)
    )
    conductors = [
        pod for pod in found.everything.pods if label_of(pod, COMPONENT_LABEL) == "conductor" and status_of(pod).get("phase") == "Running"
    ]
    return RunDescription(
        **dict(run),
        store=held.record.run_uri,
        job_digest=held.record.job_digest,
        dail_version=held.record.dail_version,
        desired=held.control.desired,
        exit_code=held.status.exit_code,
        conductor=name_of(conductors[0]) if conductors else None,
        tasks=tuple(task_view(task) for task in held.status.tasks),
        causes=causes,
        pods_now=tuple(pod_view(pod, found.task_of(pod)) for pod in found.everything.pods),
        events=tuple(events_of(found.everything.events, held.record)),
        unknown=found.unknown,
    )


def _is_left_alone(held: Held, found: Gathered, now: datetime) -> bool:
    """Whether a run that has not ended lacks the Job of its conductor, and whoever applies it had the time to make one."""
    there = any(one["kind"] == JOB.kind and found.task_of(one) == CONDUCTOR for one in found.everything.objects)
    created = datetime.fromisoformat(held.obj["metadata"]["creationTimestamp"])
    return not (held.status.ended or there or JOB.plural in found.unknown) and (now - created).total_seconds() > SILENCE


def task_view(task: TaskStatus) -> TaskView:
    """A task as it is printed."""
    return TaskView(**{name: getattr(task, name) for name in TaskView.model_fields})


def pod_view(pod: Object, task: str) -> PodView:
    """A pod as it is printed."""
    meta = pod["metadata"]
    return PodView(
        name=name_of(pod),
        task=task,
        component=label_of(pod, COMPONENT_LABEL) or "?",
        state=pod_state(pod),
        ready=conditions_of(pod).get("Ready", {}).get("status") == "True",
        restarts=sum(int(status.get("restartCount", 0)) for _, status in containers_of(pod)),
        node=spec_of(pod).get("nodeName"),
        gpus=extended_of(pod),
        created=datetime.fromisoformat(meta["creationTimestamp"]),
    )


def pod_state(pod: Object) -> str:
    """What kubectl shows as STATUS: the reason of a container that waits or ended, else the pod's phase."""
    if pod["metadata"].get("deletionTimestamp"):
        return "Terminating"
    status = status_of(pod)
    for _, container in containers_of(pod):
        state = container.get("state") or {}
        for word in ("waiting", "terminated"):
            if (reason := (state.get(word) or {}).get("reason")) and reason != "Completed":
                return str(reason)
    return str(status.get("reason") or status.get("phase") or "Pending")


def events_of(events: Iterable[Object], record: RunRecord) -> list[EventView]:
    """The events about anything of a run, the oldest first; pods that are gone included."""
    return sorted((event_view(one) for one in events if is_about(one, record)), key=lambda view: view.last)


def is_about(event: Object, record: RunRecord) -> bool:
    """Whether an event is about the run's record, its conductor, or an object or pod of one of its tasks: all are called after them."""
    name = str((event.get("involvedObject") or {}).get("name", ""))
    names = (record.name, *(task.object for task in record.tasks))
    return name in names or name.startswith(tuple(f"{one}-" for one in names))


def event_view(event: Object) -> EventView:
    """An event as it is printed."""
    about = event.get("involvedObject") or {}
    group = str(about.get("apiVersion", "")).rpartition("/")[0]
    kind = str(about.get("kind", "?")).lower()
    return EventView(
        object=f"{kind}{'.' + group if group else ''}/{about.get('name', '?')}",
        type=str(event.get("type") or "Normal"),
        reason=str(event.get("reason") or "-"),
        message=" ".join(str(event.get("message") or "").split()),
        count=times_of(event),
        last=seen_at(event),
    )


def described(run: RunDescription, *, width: int | None = None) -> str:
    """The text."""
    facts = [
        ("Name", run.name),
        ("Namespace", run.namespace),
        ("Job", f"{run.job} (saved as {run.job_digest}, by dail {run.dail_version})"),
        ("State", f"{run.state}{f' ({run.now})' if run.now else ''}{_wished(run)}"),
        ("Message", run.message or "-"),
        ("Store", run.store),
        ("Submitted", _when(run.created)),
        ("Started", _when(run.started)),
        ("Finished", _when(run.finished) + (f", exit code {run.exit_code}" if run.exit_code is not None else "")),
        ("Conductor", run.conductor or "no pod of it runs"),
    ]
    # A line each: no message can pass for another fact.
    parts = ["".join(f"{name + ':':<12}{' '.join(text.split())}\n" for name, text in facts)]
    parts.append("Tasks:\n" + _indented(task_table(run.tasks, width=_less(width))))
    if run.causes:
        parts.append("Why:\n" + "".join(f"  {one.subject} ({one.task}): {one.sentence}\n    -> {one.remedy}\n" for one in run.causes))
    if run.pods_now:
        parts.append("Pods:\n" + _indented(pod_table(run.pods_now, width=_less(width))))
    if run.events:
        last = run.events[-LAST_EVENTS:]
        left = f" (the last {len(last)} of {len(run.events)}; dailctl events {run.name} has all)" if len(last) < len(run.events) else ""
        parts.append(f"Events{left}:\n" + _indented(event_table(last, width=_less(width))))
    if run.unknown:
        parts.append(f"Not known: you may not list {', '.join(run.unknown)} here.\n")
    return output.printable("".join(parts))


def _wished(run: RunDescription) -> str:
    if run.desired == "run" or run.state in ("cancelled", "suspended", "done", "failed"):
        return ""
    return f", to be {'cancelled' if run.desired == 'cancel' else 'suspended'}"


def _when(moment: datetime | None) -> str:
    return "-" if moment is None else f"{moment.strftime('%Y-%m-%dT%H:%M:%SZ')} ({output.age(moment)} ago)"


def _less(width: int | None) -> int | None:
    return None if width is None else width - 2


def _indented(text: str) -> str:
    return "".join(f"  {line}\n" for line in text.splitlines())
