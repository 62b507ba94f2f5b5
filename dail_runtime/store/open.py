"""From an address to a store: `file:///folder`, a plain path, or `s3://bucket/prefix`."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import unquote

from dail_runtime.errors import StoreError
from dail_runtime.store.base import Store
from dail_runtime.store.file import FileStore
from dail_runtime.store.keys import check_key

_SCHEME = re.compile(r"^([A-Za-z][A-Za-z0-9+.-]*)://")


def open_store(uri: str, *, endpoint: str | None = None, region: str | None = None) -> Store:
    """The store at `uri`. Nothing is written or asked yet, so a wrong bucket shows with the first request.

    `endpoint` and `region` are for `s3://` and say nothing about folders.
    Raises StoreError where the address is none.
    """
    if "\0" in uri:
        raise StoreError("the storage address contains a NUL character; remove it")
    match = _SCHEME.match(uri)
    scheme = match.group(1).lower() if match else ""
    if scheme == "s3":
        # boto3 takes 0.3 s to import; only those who use S3 pay for it.
        from dail_runtime.store.s3 import S3Store
        from dail_runtime.store.s3_client import Connection

        bucket, _, prefix = uri[len("s3://") :].partition("/")
        if not bucket:
            raise StoreError(f"{uri} names no bucket; write s3://BUCKET/PREFIX")
        if prefix := prefix.rstrip("/"):
            check_key(prefix)
        return S3Store(Connection(bucket, endpoint, region), prefix)
    if scheme == "file":
        host, slash, rest = uri[len("file://") :].partition("/")
        if host not in ("", "localhost") or not slash:
            raise StoreError(f"{uri} names the machine {host!r}; write file:///FOLDER with three slashes, or the plain path")
        return _folder(uri, "/" + unquote(rest))
    if scheme:
        raise StoreError(f"{scheme}:// is no store dail knows; use a folder, file:///FOLDER or s3://BUCKET/PREFIX")
    if not uri:
        raise StoreError("the storage address is empty; use a folder, file:///FOLDER or s3://BUCKET/PREFIX")
    return _folder(uri, uri)


def _folder(uri: str, path: str) -> FileStore:
    try:
        return FileStore(Path(path).expanduser())
    except (RuntimeError, ValueError) as err:
        # Nobody of that name behind ~, or a NUL character.
        raise StoreError(f"{uri!r} is no folder on this machine ({str(err).rstrip('.')}); correct the storage address") from None
