"""Brings a job's local data and model to the store, each file once: its key is made from what is in it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from dail_runtime.errors import DataError, ModelError
from dail_runtime.spec.content import MODEL_FILES
from dail_runtime.store import Store
from dailctl.render.cluster_job import Input

_MODEL_FILE = re.compile(r"\w[\w.-]*", re.ASCII)
"""The names that a stage fetches of a model (dail_runtime/models/locate.py)."""


@dataclass(frozen=True)
class Upload:
    """One local file that pods need."""

    path: Path
    key: str
    """Below the run's root."""
    size: int
    """Bytes."""
    sha256: str | None
    """Of its content, where it is known: a data file's. Model files are known by the digest of their folder, in `key`."""


def uploads_of(inputs: Sequence[Input], content: Mapping[str, str]) -> list[Upload]:
    """The files that the inputs of a job consist of; `content`: digests by local path.

    Raises:
        DataError, ModelError: one is gone.
    """
    found = []
    for one in inputs:
        if one.folder:
            found += [Upload(path, f"{one.key}/{path.name}", _size(path, ModelError), None) for path in _model_files(Path(one.path))]
        else:
            found.append(Upload(Path(one.path), one.key, _size(Path(one.path), DataError), content[one.path]))
    return found


def missing(root: Store, uploads: Sequence[Upload]) -> list[Upload]:
    """Those that the store does not have yet. A key names the content, so an object of the right size is the right one."""
    return [one for one in uploads if (info := root.head(one.key)) is None or info.size != one.size]


def upload(root: Store, uploads: Sequence[Upload], told: Callable[[Upload], None]) -> None:
    """Bring `uploads` to the store; `told` hears of each before it goes.

    Raises:
        DataError: a data file changed since its digest was taken; it is not kept.
    """
    for one in uploads:
        told(one)
        info = root.put_file(one.key, one.path)
        if one.sha256 is not None and info.sha256 != one.sha256:
            root.delete(one.key)
            raise DataError(f"{one.path} changed while it was submitted; submit the job again")


def _size(path: Path, kind: type[DataError | ModelError]) -> int:
    try:
        return path.stat().st_size
    except OSError as err:
        raise kind(f"{path}: cannot be read ({err.strerror}); check the path and its permissions") from None


def _model_files(folder: Path) -> Iterator[Path]:
    return (path for path in sorted(folder.iterdir()) if path.is_file() and _MODEL_FILE.fullmatch(path.name) and path.suffix in MODEL_FILES)
