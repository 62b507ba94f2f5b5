"""Job files: reading, checking, overriding and anchoring them. Every fault of a file is told at once, one sentence a line."""

from __future__ import annotations

import difflib
import os
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import unquote, urlsplit

from pydantic import ValidationError

from dail_runtime.errors import SpecError
from dail_runtime.spec.explain import explain, locate, misread
from dail_runtime.spec.job import DailJob
from dail_runtime.spec.model import PACKAGE
from dail_runtime.spec.overrides import apply_override
from dail_runtime.spec.secrets import find_secrets
from dail_runtime.spec.source import read_tree
from dail_runtime.spec.tree import Complaint, Group, Place, Scalar, SourceError, plain

MAX_BYTES = 256 * 1024
"""Largest job file; a ConfigMap and a person's patience hold little more."""
START = "apiVersion: dail/v1alpha1, kind: DailJob, metadata and spec"


def load_job(path: Path, overrides: Sequence[str] = ()) -> DailJob:
    """Read and check a job file (YAML, or JSON, which is YAML too). Paths in it stay as they are; see `resolve_paths`.

    Args:
        path: the file.
        overrides: settings such as `train.learningRate=1e-3`: a field below `spec` (or from the top, `metadata.name=x`)
            and its value in YAML. They are put into the file's tree before it is checked.

    Raises:
        SpecError: one line for each fault: `FILE:LINE:COL: field: what; remedy`.
    """
    source = str(path)
    complaints: list[Complaint] = []
    try:
        tree = read_tree(_read_text(path), source, complaints)
        if tree is None:
            raise SourceError([Complaint(Place(source), "", f"the file is empty; a job file begins with {START}")])
        if not isinstance(tree, Group):
            raise SourceError([Complaint(tree.place, "", f"the file is not a mapping of fields; a job file begins with {START}")])
        for override in overrides:
            apply_override(tree, override, complaints)
    except SourceError as err:
        raise SpecError(str(err)) from None
    complaints += find_secrets(tree)
    if complaints:
        # A file that cannot be trusted as it stands (a key twice, a secret in it) is not quoted from any further.
        raise SpecError(_lines(complaints))
    return _check(tree)


def resolve_paths(job: DailJob, base: Path) -> DailJob:
    """The job with every path in it absolute, seen from the folder `base`. s3:// addresses, hub ids and `python:` stay.

    Data and models given as file:// become plain paths.

    Raises:
        SpecError: no place of this machine can be called so.
    """
    spec = job.spec
    uri = spec.storage.uri
    evaluation = tuple(
        one.model_copy(update={"path": _anchor(f"data.evaluation.{index}.path", one.path, base)})
        for index, one in enumerate(spec.data.evaluation)
    )
    update = {
        "model": spec.model.model_copy(update={"id": _anchor_model(spec.model.id, base)}),
        "data": spec.data.model_copy(update={"solutions": _anchor("data.solutions", spec.data.solutions, base), "evaluation": evaluation}),
        "storage": spec.storage.model_copy(update={"uri": uri if "://" in uri else _anchor("storage.uri", uri, base)}),
    }
    return job.model_copy(update={"spec": spec.model_copy(update=update)})


def _anchor(field: str, path: str, base: Path) -> str:
    if path.startswith("file://"):
        path = unquote(urlsplit(path).path)
    if "://" in path:
        return path
    try:
        found = str((base / Path(path).expanduser()).resolve())
        found.encode()
    except UnicodeEncodeError:
        raise SpecError(f"{field}: {found!r}: a name in this path is not UTF-8; rename that folder or file") from None
    except (RuntimeError, ValueError, OSError) as err:
        # Nobody of that name behind ~, links in a circle, a NUL character.
        raise SpecError(f"{field}: {path!r} is no path on this machine ({str(err).rstrip('.')}); correct it") from None
    return found


def _anchor_model(id_: str, base: Path) -> str:
    """A model's id is a folder where it is written as one, or where a folder of that name lies beside the job file."""
    if id_.startswith((PACKAGE, "s3://")):
        return id_
    written_as_path = id_.startswith((".", "/", "~", "file://")) or id_.count("/") > 1
    return _anchor("model.id", id_, base) if written_as_path or os.path.isdir(base / id_) else id_  # noqa: PTH112 (a name may be too long)


def _read_text(path: Path) -> str:
    """The file's text.

    Raises:
        SourceError: it cannot be read, is too large or not UTF-8.
    """

    def fault(sentence: str, line: int = 0, column: int = 0) -> SourceError:
        return SourceError([Complaint(Place(str(path), line, column), "", sentence)])

    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise fault(f"there is no such file; {_neighbours(path)}") from None
    except IsADirectoryError:
        raise fault(f"this is a folder; name the job file in it{_jobs_in(path)}") from None
    except OSError as err:
        raise fault(f"cannot be read ({err.strerror}); check its permissions") from None
    if len(data) > MAX_BYTES:
        raise fault(f"larger than {MAX_BYTES // 1024} KiB, which no job file is; name the job file, not the data")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as err:
        line, column = data.count(b"\n", 0, err.start) + 1, err.start - data.rfind(b"\n", 0, err.start)
        raise fault(f"the byte 0x{data[err.start]:02X} is not UTF-8; save the file as UTF-8", line, column) from None


def _neighbours(path: Path) -> str:
    folder = path.parent
    names = sorted(one.name for one in folder.iterdir()) if folder.is_dir() else []
    near = difflib.get_close_matches(path.name, names, 1) or [name for name in names if name.endswith((".yaml", ".yml"))][:1]
    return f"did you mean {folder / near[0]}?" if near else "check the path, or write a first job file with dailctl init"


def _jobs_in(folder: Path) -> str:
    names = sorted(one.name for one in folder.iterdir() if one.suffix in (".yaml", ".yml"))
    return f", for example {folder / names[0]}" if names else ""


def _check(tree: Group) -> DailJob:
    """The job that the tree describes."""
    foreign = _not_a_job(tree)
    if foreign:
        raise SpecError(_lines(foreign))
    complaints = misread(tree)
    while True:
        try:
            job = DailJob.model_validate(plain(tree))
        except ValidationError as err:
            # A text field takes what was written: a revision 4886e8 is no number there, nor is a label's value true.
            if _take_texts(err, tree):
                continue
            told = {one.place for one in complaints}
            complaints += [one for one in explain(err, tree) if one.place not in told]
        if complaints:
            raise SpecError(_lines(complaints))
        return job


def _not_a_job(tree: Group) -> list[Complaint]:
    """A file of another kind gets one sentence, not one for each of its fields."""
    found = []
    for key, wanted in (("apiVersion", "dail/v1alpha1"), ("kind", "DailJob")):
        node = tree.items[key][1] if key in tree.items else None
        if isinstance(node, Scalar) and node.value is not None and node.text != wanted:
            found.append(Complaint(node.place, key, f"{node.text[:60]!r} is not what dail reads; write {key}: {wanted}"))
    return found


def _take_texts(err: ValidationError, tree: Group) -> bool:
    changed = False
    for details in err.errors(include_url=False):
        node, _, _ = locate(tree, details["loc"])
        if details["type"] == "string_type" and isinstance(node, Scalar) and node.value is not None and node.value != node.text:
            node.value = node.text
            changed = True
    return changed


def _lines(complaints: Sequence[Complaint]) -> str:
    return "\n".join(map(str, sorted(set(complaints))))
