"""A task's manifest: written last, it says that the task is done, from which inputs, and what it wrote."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from datetime import datetime
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from dail_runtime.errors import IntegrityError
from dail_runtime.store.base import ObjectInfo, Store

MANIFEST = "_manifest.json"


class Manifest(BaseModel):
    """The proof that a task finished."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    task: str
    """`stage` or `stage/name`, for example `train/nll`."""
    digest: str
    """Digest of the task's inputs: settings, upstream digests, code format."""
    inputs: dict[str, str]
    """Upstream task -> digest."""
    objects: tuple[ObjectInfo, ...]
    """Everything the task wrote, relative to its own prefix."""
    counts: dict[str, Any]
    """Numbers worth showing: rows, traces, dropped by reason."""
    started: datetime
    """When the first attempt began (UTC)."""
    finished: datetime
    """When the manifest was written (UTC)."""
    seconds: float
    """Wall time of all attempts together."""
    attempts: int
    """How many times the task was started."""
    versions: dict[str, str]
    """Version of dail and of the libraries that shape the result."""


def digest_of(value: Any) -> str:
    """sha256 (hex) of the canonical JSON of `value`: sorted keys, no spaces, UTF-8."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def read_manifest(store: Store) -> Manifest | None:
    """The manifest of the task whose prefix `store` is, or None where the task has not finished."""
    try:
        return Manifest.model_validate_json(store.get(MANIFEST))
    except KeyError:
        return None
    except ValidationError as err:
        raise IntegrityError(
            f"{store.uri}/{MANIFEST} is not a manifest ({err.error_count()} errors); delete it to run the task again"
        ) from None


def write_manifest(store: Store, manifest: Manifest) -> None:
    """Write the manifest; the task counts as done from this call on."""
    store.put(MANIFEST, manifest.model_dump_json(indent=1).encode())


def missing_objects(store: Store, manifest: Manifest) -> Iterable[str]:
    """Keys the manifest lists that the store no longer has, or has with another size."""
    there = {info.key: info.size for info in store.list()}
    return [info.key for info in manifest.objects if there.get(info.key) != info.size]
