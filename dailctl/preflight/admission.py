"""Whether the API server would take what the run consists of: asked by dry runs, in which nothing is created.

What it makes of a task's objects would otherwise be known when their turn comes, after hours of other tasks.
"""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

from dail_runtime.errors import DailError, TransientError
from dailctl.explain.objects import pool_of
from dailctl.explain.refusals import refused
from dailctl.kube import Client, Forbidden, Invalid
from dailctl.kube.resources import PYTORCH_JOB, Object, label_of, shown
from dailctl.preflight.finding import GET_OPERATOR, Finding, pods_of
from dailctl.render.names import COMPONENT_LABEL, STAGE_LABEL, TASK_LABEL

AT_ONCE = 16
DENIALS = ("admission webhook", "ValidatingAdmissionPolicy", "exceeded quota", "failed quota", "LimitRange")
"""Words by which a refusal that comes from a cluster's policies is told from a missing right."""
NO_DRY_RUN = "does not support dry run"


def refused_objects(client: Client, objects: Iterable[Object]) -> list[Finding]:
    """What the API server does not take of the run's own objects and of its tasks'.

    Missing rights, APIs and namespaces are for other checks to tell. What a policy of the cluster denies is a warning where the
    conductor would ask for it: it is another user, and asks later. So is a full quota: it may have room by then.
    """
    # Of several variants, the objects of a stage differ in names and numbers alone.
    kinds = {(one["kind"], label_of(one, STAGE_LABEL), label_of(one, COMPONENT_LABEL)): one for one in objects}
    with ThreadPoolExecutor(AT_ONCE) as pool:
        found = pool.map(lambda one: _look(client, one), kinds.values())
    return [finding for finding in found if finding is not None]


def _look(client: Client, obj: Object) -> Finding | None:
    try:
        client.create(obj, dry_run=True)
    except (Invalid, Forbidden) as err:
        return _refusal(obj, err)
    except TransientError as err:
        return Finding("objects", f"whether the API server takes {shown(obj)} is not known: {err}", final=False)
    except DailError:
        return None
    return None


def _refusal(obj: Object, err: Invalid | Forbidden) -> Finding | None:
    text = str(err)
    if NO_DRY_RUN in text:
        return None
    if any(words in text for words in DENIALS):
        cause = refused(text, shown(obj))
        return Finding("objects", cause.told, final=cause.final and label_of(obj, TASK_LABEL) is None)
    if isinstance(err, Forbidden):
        return None
    said = text.partition(": ")[2] or text
    # What is around the pods is the chart's and not the job's: an operator of another version has other fields.
    foreign = obj["kind"] == PYTORCH_JOB.kind and "spec." in said and ".template." not in said
    return Finding("objects", f"the API server refuses {shown(obj)}: {said}; {GET_OPERATOR if foreign else f'correct {_place(obj)}'}")


def _place(obj: Object) -> str:
    """Where the job says what was refused."""
    places = {pool_of({"metadata": one.template["metadata"]}) for one in pods_of([obj])}
    return " and ".join(sorted(places)) or "the job's cluster section"
