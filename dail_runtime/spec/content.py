"""What a job's outside inputs hold: a digest for each data file and for the model, so that results go by content, not by name."""

from __future__ import annotations

import difflib
import hashlib
import importlib.metadata
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from dail_runtime.errors import DataError, ModelError
from dail_runtime.spec.job import DailJob
from dail_runtime.spec.model import PACKAGE, ModelSpec
from dail_runtime.store import Store, digest_of, open_store

MODEL_FILES = (".safetensors", ".json", ".jinja", ".txt", ".model", ".gguf")
"""Endings of the files that make up a model; a changed README is no other model."""
LARGE = 16 * 1024 * 1024
"""Model files of this size and above are digested by samples."""
SAMPLES = 64
SAMPLE_BYTES = 64 * 1024


def content_of(job: DailJob) -> dict[str, str]:
    """Path, URI or model id (as the resolved job names it) -> digest of what is there. Reads, never writes; needs no torch.

    Data files: sha256. Model folders: names, sizes and contents; of files over 16 MB, 64 pieces spread over the file stand
    for the whole, which any training of the weights changes. Hub ids: `id@revision`; `python:` ids: `id@version`.

    Raises:
        DataError: a data file is missing or cannot be read.
        ModelError: the model's folder or package is missing.
    """
    storage = job.spec.storage
    found: dict[str, str] = {}
    named = [("data.solutions", job.spec.data.solutions)]
    named += [(f"data.evaluation.{index}.path", one.path) for index, one in enumerate(job.spec.data.evaluation)]
    for field, uri in named:
        if uri not in found:
            found[uri] = file_digest(field, uri, storage.endpoint, storage.region)
    found[job.spec.model.id] = _model_digest(job.spec.model, storage.endpoint, storage.region)
    return found


def file_digest(field: str, uri: str, endpoint: str | None, region: str | None) -> str:
    """sha256 of a data file or s3:// object; `field` is where the job names it.

    Raises:
        DataError: it is missing or cannot be read.
    """
    if uri.startswith("s3://"):
        folder, _, name = uri.rpartition("/")
        store = open_store(folder, endpoint=endpoint, region=region)
        digest = _object_digest(store, name)
        if digest is None:
            raise DataError(f"{field}: {uri}: there is no such object; check the path")
        return digest
    if "://" in uri:
        raise DataError(f"{field}: {uri}: only files and s3:// objects are read; download it first and name the file")
    path = Path(uri)
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError:
        names = [one.name for one in path.parent.iterdir()] if path.parent.is_dir() else []
        near = difflib.get_close_matches(path.name, names, 1)
        remedy = f"did you mean {near[0]}?" if near else "check the path (it counts from the job file's folder)"
        raise DataError(f"{field}: {path}: there is no such file; {remedy}") from None
    except IsADirectoryError:
        raise DataError(f"{field}: {path}: this is a folder; name the file in it") from None
    except OSError as err:
        raise DataError(f"{field}: {path}: cannot be read ({err.strerror}); check its permissions") from None


def _object_digest(store: Store, key: str) -> str | None:
    """sha256 of an object, as the store keeps it or, for objects put there by others, computed."""
    info = store.head(key)
    if info is None or info.sha256 is not None:
        return info.sha256 if info else None
    with tempfile.TemporaryDirectory() as folder:
        # Written to a file, not held in memory: a data file may be larger than that.
        return store.get_file(key, Path(folder) / "object").sha256


def _model_digest(model: ModelSpec, endpoint: str | None, region: str | None) -> str:
    if model.id.startswith(PACKAGE):
        return f"{model.id}@{_package_version(model.id.removeprefix('python:'))}"
    if model.id.startswith("s3://"):
        store = open_store(model.id, endpoint=endpoint, region=region)
        parts = [(info.key, info.size, _small_object(store, info.key, info.size)) for info in store.list() if _counts(info.key)]
        if not parts:
            raise ModelError(f"model.id: {model.id}: there are no model files; check the prefix")
        return digest_of(parts)
    if "://" in model.id:
        raise ModelError(f"model.id: {model.id}: only folders, s3:// prefixes, hub ids and python: packages are read; download it first")
    folder = Path(model.id)
    if folder.is_absolute():
        if not folder.is_dir():
            raise ModelError(f"model.id: {folder}: there is no such folder; check the path (it counts from the job file's folder)")
        files = sorted(path for path in folder.iterdir() if path.is_file() and _counts(path.name))
        if not files:
            raise ModelError(f"model.id: {folder}: the folder holds no model files ({', '.join(MODEL_FILES)}); check the path")
        return digest_of([(path.name, path.stat().st_size, _sampled(path)) for path in files])
    return f"{model.id}@{model.revision or 'main'}"


def _counts(name: str) -> bool:
    return name.endswith(MODEL_FILES) and not name.startswith(".") and "/" not in name


def _small_object(store: Store, key: str, size: int) -> str | None:
    """The sha256 the store keeps; where it keeps none, that of small objects (name and size must do for large ones)."""
    info = store.head(key)
    if info is not None and info.sha256 is not None:
        return info.sha256
    return _object_digest(store, key) if size < LARGE else None


def _sampled(path: Path) -> str:
    """sha256 of the file, or of evenly spread pieces of it where it is large."""
    sha = hashlib.sha256()
    size = path.stat().st_size
    with path.open("rb") as file:
        if size < LARGE:
            return hashlib.file_digest(file, "sha256").hexdigest()
        for offset in _offsets(size):
            file.seek(offset)
            sha.update(file.read(SAMPLE_BYTES))
    return sha.hexdigest()


def _offsets(size: int) -> Iterable[int]:
    last = size - SAMPLE_BYTES
    return (last * index // (SAMPLES - 1) for index in range(SAMPLES))


def _package_version(name: str) -> str:
    """Version of the installed distribution `name`, or of the one that brings the module `name`."""

    def candidates() -> Iterator[str]:
        yield name
        # Looks at every installed package, so only where the name is not one itself.
        yield from importlib.metadata.packages_distributions().get(name.replace("-", "_"), ())

    for candidate in candidates():
        try:
            return importlib.metadata.version(candidate)
        except (importlib.metadata.PackageNotFoundError, ValueError):
            continue
    raise ModelError(f"model.id: python:{name}: the package is not installed; install it (pip install {name}) or correct the name")
