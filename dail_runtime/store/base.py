"""The store interface: named bytes, written whole or not at all, each with its sha256."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from pydantic import BaseModel, ConfigDict


class ObjectInfo(BaseModel):
    """What the store knows of one object."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    key: str
    """Key relative to the store it was asked of."""
    size: int
    """Bytes."""
    sha256: str | None = None
    """Hex digest of the content. `list` may leave it out where asking would cost one request an object."""


class Store(Protocol):
    """A prefix under which objects live. Keys are relative, '/'-separated, and can never leave the prefix.

    Every write is atomic: readers see the old object or the new one. Every read is checked against the sha256 kept at
    writing. All methods are safe to call from several threads.

    Errors, wherever they come from: `StoreError` (refused: bucket, rights, space), `IntegrityError` (bytes differ from
    what was written), `TransientError` (still failing after the retries), `KeyError` (no such object, from `get*`).
    """

    @property
    def uri(self) -> str:
        """`file:///...` or `s3://bucket/prefix`, without a trailing slash."""
        ...

    def at(self, prefix: str) -> Store:
        """The store below `prefix`."""
        ...

    def put(self, key: str, data: bytes) -> ObjectInfo:
        """Write `data`, replacing what was there."""
        ...

    def create(self, key: str, data: bytes) -> bool:
        """Write `data` only if no object has this key; false if one has. Exactly one of several racing calls gets true."""
        ...

    def put_file(self, key: str, path: Path) -> ObjectInfo:
        """Write the content of a file (multipart where large)."""
        ...

    def get(self, key: str) -> bytes:
        """The content, checked. Raises KeyError where there is none."""
        ...

    def get_file(self, key: str, path: Path) -> ObjectInfo:
        """Write the checked content to `path` (atomically: never a half file)."""
        ...

    def head(self, key: str) -> ObjectInfo | None:
        """Size and sha256, or None where there is no such object."""
        ...

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        """Every object whose key starts with `prefix`, sorted by key. Temporary files of unfinished writes are never listed."""
        ...

    def delete(self, key: str) -> None:
        """Remove the object; no error where there is none."""
        ...
