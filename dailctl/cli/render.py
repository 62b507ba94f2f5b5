"""`dailctl render`: the Kubernetes objects of a run, for a look, for Git or for Helm. Needs no cluster."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from dailctl import output
from dailctl.cli.options import Job, Overrides


class Kind(StrEnum):
    """Values of `-o`."""

    YAML = "yaml"
    JSON = "json"
    NAME = "name"
    VALUES = "values"


def render(
    file: Job = None,
    namespace: Annotated[
        str | None, typer.Option("-n", "--namespace", help="Namespace of the objects; cluster.namespace of the job, or default.")
    ] = None,
    form: Annotated[
        Kind,
        typer.Option("-o", "--output", help="yaml and json: the objects; name: their names; values: the values of the chart, for Helm."),
    ] = Kind.YAML,
    to: Annotated[
        Path | None, typer.Option("--to", metavar="FOLDER", help="Write a file for each object and a kustomization.yaml into FOLDER.")
    ] = None,
    overrides: Overrides = None,
) -> None:
    """Print the Kubernetes objects of a job.

    The same job gives the same objects, under names that carry its digest: applying them twice changes nothing, and a
    changed job is a new run. `dailctl submit` applies the same objects. Local data that the job names has to be in the store
    before the run starts; submit uploads it.
    """
    from dail_runtime.spec.content import content_of
    from dail_runtime.spec.load import load_job, resolve_paths
    from dailctl.render.of_job import DEFAULT_NAMESPACE, render_job, unpinned
    from dailctl.render.texts import as_yaml
    from dailctl.runs import the_job_file

    path = file if file is not None else the_job_file()
    job = resolve_paths(load_job(path, overrides or ()), path.absolute().parent)
    rendered = render_job(job, content_of(job), _namespace(namespace) or job.spec.cluster.namespace or DEFAULT_NAMESPACE)
    for sentence in unpinned(job):
        output.warn(sentence)
    if to is not None:
        _write(to, rendered.objects, rendered.run.name)
    elif form is Kind.YAML:
        output.data(as_yaml(rendered.objects))
    elif form is Kind.VALUES:
        output.data(as_yaml([rendered.values]).removeprefix("---\n"))
    elif form is Kind.NAME:
        output.data("".join(f"{one['kind'].lower()}/{one['metadata']['name']}\n" for one in rendered.objects))
    else:
        output.document({"apiVersion": "v1", "kind": "List", "items": list(rendered.objects)}, output.Document.JSON)
    for one in rendered.inputs:
        output.talk(f"{one.path} has to be at {rendered.run.run_uri}/{one.key} before the run starts; dailctl submit uploads it")


def _namespace(name: str | None) -> str | None:
    from dail_runtime.errors import UsageError
    from dail_runtime.spec.kubernetes import checked_namespace

    try:
        return name if name is None else checked_namespace(name)
    except ValueError as err:
        raise UsageError(f"--namespace: {err}") from None


def _write(folder: Path, objects: tuple[dict[str, object], ...], run: str) -> None:
    """Write the files; those of an earlier rendering that are no longer made go."""
    from dail_runtime.errors import UsageError
    from dailctl.render.texts import HEADER, as_files

    files = as_files(objects, run)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in files.items():
            (folder / name).write_text(text, encoding="utf-8")
        for path in folder.glob("*.yaml"):
            if path.name not in files and path.read_text(encoding="utf-8").startswith(HEADER):
                path.unlink()
    except OSError as err:
        raise UsageError(f"--to {folder}: cannot be written ({err.strerror}); choose another folder") from None
    output.talk(f"wrote {len(files)} files of {run} to {folder}")
