"""`dailctl render`: the Kubernetes objects of a run, for a look, for Git or for Helm. Needs no cluster."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dailctl import output
from dailctl.cli.options import Job, Overrides

if TYPE_CHECKING:
    from dail_runtime.spec import DailJob
    from dailctl.render.of_job import Rendered
    from dailctl.render.parse import Object


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
    upload: Annotated[
        bool, typer.Option("--upload", help="Also bring local data and models that the job names to its store, as submit does.")
    ] = False,
    overrides: Overrides = None,
) -> None:
    """Print the Kubernetes objects of a job.

    The same job gives the same objects, under names that carry its digest: applying them twice changes nothing, and a
    changed job is a new run. `dailctl submit` applies the same objects. No cluster is needed.
    """
    from dail_runtime.spec.content import content_of
    from dail_runtime.spec.load import load_job, resolve_paths
    from dailctl.render.of_job import DEFAULT_NAMESPACE, render_job, unpinned
    from dailctl.render.texts import as_yaml
    from dailctl.runs import the_job_file

    path = file if file is not None else the_job_file()
    job = resolve_paths(load_job(path, overrides or ()), path.absolute().parent)
    content = content_of(job)
    rendered = render_job(job, content, _namespace(namespace) or job.spec.cluster.namespace or DEFAULT_NAMESPACE)
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
    if upload:
        _upload(rendered, job, content)
    elif rendered.inputs:
        paths = ", ".join(one.path for one in rendered.inputs)
        output.talk(f"local data is not in the store yet unless it was uploaded before ({paths}); say --upload, or use dailctl submit")


def _namespace(name: str | None) -> str | None:
    from dail_runtime.errors import UsageError
    from dail_runtime.spec.kubernetes import checked_namespace

    try:
        return name if name is None else checked_namespace(name)
    except ValueError as err:
        raise UsageError(f"--namespace: {err}") from None


def _upload(rendered: Rendered, job: DailJob, content: Mapping[str, str]) -> None:
    from dail_runtime.store import open_store
    from dailctl.staging import missing, upload, uploads_of

    storage = job.spec.storage
    root = open_store(rendered.run.run_uri, endpoint=storage.endpoint, region=storage.region)
    wanted = missing(root, uploads_of(rendered.inputs, content))
    upload(root, wanted, lambda one: output.talk(f"uploading {one.path} ({output.size(one.size)})"))
    if not wanted:
        output.talk(f"all local data is at {rendered.run.run_uri}")


def _write(folder: Path, objects: tuple[Object, ...], run: str) -> None:
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
