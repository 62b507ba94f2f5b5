"""Everything that the API tells of one run, asked for at once; what the user may not read is left out and named."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace

from dailctl.explain import Seen
from dailctl.explain.objects import conditions_of, spec_of
from dailctl.kube import Client, Forbidden, NotFound
from dailctl.kube.resources import DEPLOYMENT, EVENT, JOB, NODE, POD, PVC, PYTORCH_JOB, Object, Resource, label_of
from dailctl.observe.runs import Held
from dailctl.render.names import RUN_LABEL, TASK_LABEL

CONDUCTOR = "conductor"
"""Stands where a task's name does, for the conductor's own objects."""
WORKLOAD = Resource("kueue.x-k8s.io/v1beta1", "Workload", "workloads")
KINDS = (JOB, DEPLOYMENT, PYTORCH_JOB)


@dataclass(frozen=True)
class Gathered:
    """What there is of a run."""

    everything: Seen = field(default_factory=Seen)
    """Objects, the conductor's Job among them, and pods of the run; events, nodes, claims and queues of the namespace."""
    unknown: tuple[str, ...] = ()
    """Kinds that the user may not read: `events`, `nodes`."""
    slugs: dict[str, str] = field(default_factory=dict)
    """Label of a task -> its name."""

    def task_of(self, obj: Object) -> str:
        """The task that an object belongs to."""
        slug = label_of(obj, TASK_LABEL)
        return self.slugs.get(slug, slug) if slug is not None else CONDUCTOR

    def tasks(self) -> list[str]:
        """Tasks that have objects or pods, the conductor first."""
        names = dict.fromkeys(self.task_of(one) for one in (*self.everything.objects, *self.everything.pods))
        return sorted(
            names, key=lambda name: (name != CONDUCTOR, list(self.slugs.values()).index(name) if name in self.slugs.values() else -1)
        )

    def seen(self, task: str) -> Seen:
        """What explanations of a task are made from."""
        return replace(
            self.everything,
            objects=tuple(one for one in self.everything.objects if self.task_of(one) == task),
            pods=tuple(one for one in self.everything.pods if self.task_of(one) == task),
        )


def gather(client: Client, held: Held) -> Gathered:
    """Look at a run. Nodes, claims and queues are asked for only where a pod waits for them: there may be thousands.

    Raises:
        TransientError: the API server does not answer.
    """
    labels = f"{RUN_LABEL}={held.name}"
    first = _ask(client, held.namespace, [(kind, labels) for kind in KINDS] + [(POD, labels), (EVENT, "")])
    seen = Seen(
        objects=tuple(one for kind in KINDS for one in first.get(kind.plural) or ()),
        pods=tuple(first.get(POD.plural) or ()),
        events=tuple(first.get(EVENT.plural) or ()),
    )
    waits = [pod for pod in seen.pods if conditions_of(pod).get("PodScheduled", {}).get("status") == "False"]
    queues = [one for one in seen.objects if _suspended(one)]
    wanted = ([(NODE, ""), (PVC, "")] if waits else []) + ([(client.served(WORKLOAD), "")] if queues else [])
    then = _ask(client, held.namespace, wanted) if wanted else {}
    nodes = then.get(NODE.plural)
    return Gathered(
        everything=replace(
            seen,
            nodes=tuple(nodes) if nodes is not None else None,
            claims=tuple(then.get(PVC.plural) or ()),
            workloads=tuple(then.get(WORKLOAD.plural) or ()),
        ),
        unknown=tuple(name for name, objects in {**first, **then}.items() if objects is None),
        slugs={task.slug: task.name for task in held.record.tasks},
    )


def _ask(client: Client, namespace: str, wanted: Sequence[tuple[Resource, str]]) -> dict[str, list[Object] | None]:
    """Plural -> the objects; None where the user may not list them, nothing where the cluster has no such API."""

    def ask(resource: Resource, labels: str) -> Callable[[], list[Object] | None]:
        def one() -> list[Object] | None:
            try:
                return client.select(resource, namespace=namespace, labels=labels)
            except Forbidden:
                return None
            except NotFound:
                return []

        return one

    with ThreadPoolExecutor(len(wanted)) as pool:
        found = pool.map(lambda question: question(), [ask(resource, labels) for resource, labels in wanted])
        return dict(zip((resource.plural for resource, _ in wanted), found, strict=True))


def _suspended(obj: Object) -> bool:
    return bool(spec_of(obj).get("suspend") or (spec_of(obj).get("runPolicy") or {}).get("suspend"))
