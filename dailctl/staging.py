"""Makes a job fit for a cluster: its local data goes to the store once, by content, and the job then names it there."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from dail_runtime.errors import DataError, ModelError, SpecError
from dail_runtime.spec import DailJob
from dail_runtime.spec.content import MODEL_FILES
from dail_runtime.spec.rewrite import VllmHttpEngine
from dail_runtime.store import Store

INPUTS = "inputs"
"""Below the run's root: `inputs/<digest>/<file>`."""

_PLAIN_NAME = re.compile(r"\w[\w.-]{0,99}", re.ASCII)


@dataclass(frozen=True)
class Upload:
    """One local file that pods need."""

    path: Path
    key: str
    """Below the run's root."""
    sha256: str | None
    """Of its content, where it is known: a data file's. Model files are known by the digest of their folder, in `key`."""


@dataclass(frozen=True)
class Staged:
    """A job as pods read it."""

    job: DailJob
    """Every path in it is an s3:// address, and its engine is named."""
    content: dict[str, str]
    """Digests of its outside inputs, under their new names: the same digests, so the same plan as on the machine the files are on."""
    uploads: tuple[Upload, ...]
    """What has to be in the store before the first pod starts."""


def for_cluster(job: DailJob, content: Mapping[str, str]) -> Staged:
    """What runs on a cluster when `job` (resolved, its inputs' digests in `content`) is submitted. Nothing is read or written.

    A job that names no engine gets `vllm-http`: its servers are the run's own.

    Raises:
        SpecError: the store is a folder, which pods cannot reach.
    """
    spec = job.spec
    if not spec.storage.uri.startswith("s3://"):
        raise SpecError(
            f"storage.uri: {spec.storage.uri} is a folder of this machine, which pods cannot reach; "
            "set storage.uri to s3://BUCKET/PREFIX (or run the job here with dailctl run)"
        )
    root = f"{spec.storage.uri.rstrip('/')}/{job.metadata.name}"
    uploads: dict[str, Upload] = {}
    moved: dict[str, str] = {}

    def data(path: str) -> str:
        if "://" in path:
            return path
        digest = content[path]
        key = f"{INPUTS}/{digest}/{_safe_name(path)}"
        uploads[key] = Upload(Path(path), key, digest)
        moved[path] = f"{root}/{key}"
        return moved[path]

    def model(id_: str) -> str:
        if not Path(id_).is_absolute():
            return id_
        folder = f"{INPUTS}/{content[id_]}"
        for file in _model_files(Path(id_)):
            uploads[f"{folder}/{file.name}"] = Upload(file, f"{folder}/{file.name}", None)
        moved[id_] = f"{root}/{folder}"
        return moved[id_]

    update = {
        "model": spec.model.model_copy(update={"id": model(spec.model.id)}),
        "data": spec.data.model_copy(
            update={
                "solutions": data(spec.data.solutions),
                "evaluation": tuple(one.model_copy(update={"path": data(one.path)}) for one in spec.data.evaluation),
            }
        ),
        "rewrite": spec.rewrite
        if "engine" in spec.rewrite.model_fields_set
        else spec.rewrite.model_copy(update={"engine": VllmHttpEngine(kind="vllm-http")}),
    }
    staged = job.model_copy(update={"spec": spec.model_copy(update=update)})
    # Checked once more: a variant's own overrides have to go together with the engine that was filled in.
    staged = DailJob.model_validate(staged.model_dump(mode="json"))
    return Staged(staged, {moved.get(name, name): digest for name, digest in content.items()}, tuple(uploads.values()))


def missing(root: Store, uploads: tuple[Upload, ...]) -> list[Upload]:
    """Those of `uploads` that the store does not have yet. A key names the content, so an object of the right size is the right one."""
    return [one for one in uploads if (info := root.head(one.key)) is None or info.size != _size(one)]


def upload(root: Store, uploads: list[Upload], told: Callable[[Upload, int], None]) -> None:
    """Bring `uploads` to the store; `told` hears of each, with its size in bytes, before it goes.

    Raises:
        DataError, ModelError: a file is gone, or changed since its digest was taken.
    """
    for one in uploads:
        told(one, _size(one))
        info = root.put_file(one.key, one.path)
        if one.sha256 is not None and info.sha256 != one.sha256:
            root.delete(one.key)
            raise DataError(f"{one.path} changed while it was submitted; submit the job again")


def _size(one: Upload) -> int:
    try:
        return one.path.stat().st_size
    except OSError as err:
        kind = DataError if one.sha256 is not None else ModelError
        raise kind(f"{one.path}: cannot be read ({err.strerror}); check the path and its permissions") from None


def _model_files(folder: Path) -> Iterator[Path]:
    return (path for path in sorted(folder.iterdir()) if path.is_file() and _PLAIN_NAME.fullmatch(path.name) and path.suffix in MODEL_FILES)


def _safe_name(path: str) -> str:
    """The file's own name where it is a plain one; its ending, by which the format is told, is always kept."""
    name = PurePosixPath(path).name
    if _PLAIN_NAME.fullmatch(name):
        return name
    suffix = PurePosixPath(path).suffix
    return f"data{suffix}" if _PLAIN_NAME.fullmatch(suffix[1:]) else "data"
