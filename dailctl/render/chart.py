"""From values to Kubernetes objects, through the chart and Helm's own library; what comes back is parsed and checked here."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import dailctl
from dail_runtime.errors import SetupError, SpecError
from dailctl.render.check import check_objects
from dailctl.render.parse import Object, parse
from dailctl.render.record import RunRecord, TaskRecord

CHART = "dail-run"
HOOK = "helm.sh/hook"
ORDER = (
    "ConfigMap",
    "ServiceAccount",
    "Role",
    "RoleBinding",
    "NetworkPolicy",
    "PersistentVolumeClaim",
    "Service",
    "PodDisruptionBudget",
    "Deployment",
    "Job",
    "PyTorchJob",
)
"""Kinds in the order in which they are applied: the record first, what runs last."""


def chart_folder() -> Path:
    """The chart: inside the installed package, or in the source tree.

    Raises:
        SetupError: it is in neither.
    """
    package = Path(dailctl.__file__).parent
    for folder in (package / "charts" / CHART, package.parent / "charts" / CHART):
        if (folder / "Chart.yaml").is_file():
            return folder
    raise SetupError("the chart dail-run is not part of this installation; install dail again from its wheel or source tree")


def render(values: Mapping[str, Any], namespace: str) -> list[Object]:
    """The objects of one run, in the order in which they are applied. The record (a ConfigMap) is the first.

    Raises:
        SpecError: the chart refuses the values, or what it makes of them could not be applied.
        SetupError: the chart or Helm's library is missing.
    """
    run = RunRecord.model_validate(values["run"])
    documents = render_templates(values, run.name, namespace)
    objects = [one for text in documents for one in parse(text) if HOOK not in one["metadata"].get("annotations", {})]
    objects = in_order(objects)
    problems = check_objects([*objects, *_distinct(objects[0], run.tasks)])
    names = [task.object for task in run.tasks]
    problems += [f"two tasks have the name {name}; rename a variant" for name in sorted({name for name in names if names.count(name) > 1})]
    if problems:
        raise SpecError("\n".join(problems))
    return objects


def render_templates(values: Mapping[str, Any], release: str, namespace: str) -> list[str]:
    """What the chart's templates give, as text; also its test hook."""
    try:
        import helm_python
    except ImportError:
        raise SetupError("Helm's library is not installed; install it with pip install 'dail[cluster]'") from None
    try:
        found = _chart().render(dict(values), name=release, namespace=namespace)
    except helm_python.HelmError as err:
        raise SpecError(_sentence(err)) from None
    return [text for name, text in sorted(found.items()) if name.endswith(".yaml")]


def task_objects(record: Object, task: TaskRecord) -> list[Object]:
    """The objects of one task, from the record, in the order in which they are applied."""
    return in_order(parse(record["data"][task.manifests]))


def _distinct(record: Object, tasks: Iterable[TaskRecord]) -> Iterator[Object]:
    """The tasks' objects without those that differ from an earlier one in the task's names alone.

    Names are letters, digits and '-', so such objects are alike in all that is checked. A run of many variants costs no more
    than one of two.
    """
    seen = set()
    for task in tasks:
        for text in record["data"][task.manifests].split("\n---\n"):
            kind = text
            for name in (task.object, task.name, task.slug, task.stage):
                kind = kind.replace(name, "-")
            if kind not in seen:
                seen.add(kind)
                yield from parse(text)


def in_order(objects: Iterable[Object]) -> list[Object]:
    """Sorted by kind (what others need comes first), then by name."""
    return sorted(objects, key=lambda one: (ORDER.index(one["kind"]), one["metadata"]["name"]))


@cache
def _chart() -> Any:
    import helm_python

    return helm_python.Chart.load(chart_folder())


def _sentence(err: Exception) -> str:
    """Helm's message on one line."""
    lines = [line.strip(" -") for line in str(err).splitlines() if line.strip()]
    return f"the chart refuses the job: {'; '.join(lines)}"
