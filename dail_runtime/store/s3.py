"""Objects in an S3 bucket: sha256 in the object's metadata, multipart for large files, conditional writes for exclusive ones.

An S3 object appears whole or not at all, together with its metadata, so that content and digest always belong together.
A killed multipart upload leaves parts that no reader sees. The next upload of the same key removes them; where none follows, a
lifecycle rule of the bucket does (AbortIncompleteMultipartUpload).
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import random
import re
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from boto3.s3.transfer import TransferConfig
from botocore.exceptions import BotoCoreError, ClientError

from dail_runtime.errors import DailError, IntegrityError
from dail_runtime.store import disk
from dail_runtime.store.base import ObjectInfo
from dail_runtime.store.keys import check_key, join, key_problem
from dail_runtime.store.s3_client import Connection
from dail_runtime.store.s3_errors import code_of, is_missing, s3_error, s3_errors, status_of

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

PART = 64 << 20
"""Bytes: larger files go up and come down in parts of this size, in parallel. S3 takes 10,000 parts: 640 GB."""
TRANSFER = TransferConfig(multipart_threshold=PART, multipart_chunksize=PART, max_concurrency=8, preferred_transfer_client="classic")

_SHA256 = "dail-sha256"
_WRITE = "dail-write"
_TRIES = 5
_TRIES_OF_CHANGED_BYTES = 2
_DIGEST = re.compile(r"[0-9a-f]{64}")
_T = TypeVar("_T")


class S3Store:
    """The objects below `prefix` of a bucket. Nothing is asked of the server before the first request."""

    def __init__(self, connection: Connection, prefix: str = "") -> None:
        self._connection = connection
        self._prefix = prefix

    @property
    def uri(self) -> str:
        """`s3://bucket/prefix`, without a trailing slash."""
        return f"s3://{self._connection.bucket}/{self._prefix}".rstrip("/")

    def __repr__(self) -> str:
        return f"S3Store({self.uri})"

    def at(self, prefix: str) -> S3Store:
        """The store below `prefix`, over the same connections."""
        return S3Store(self._connection, self._full(prefix))

    def put(self, key: str, data: bytes) -> ObjectInfo:
        """Write `data`, replacing what was there."""
        sha = hashlib.sha256(data)
        with self._request(key) as (client, place):
            client.put_object(**place, Body=data, Metadata={_SHA256: sha.hexdigest()}, ChecksumSHA256=_base64(sha.digest()))
        return ObjectInfo(key=key, size=len(data), sha256=sha.hexdigest())

    def create(self, key: str, data: bytes) -> bool:
        """Write `data` only if no object has this key; false if one has."""
        sha, write = hashlib.sha256(data), uuid.uuid4().hex
        metadata = {_SHA256: sha.hexdigest(), _WRITE: write}

        def attempt() -> bool:
            with self._request(key) as (client, place):
                try:
                    client.put_object(**place, Body=data, IfNoneMatch="*", Metadata=metadata, ChecksumSHA256=_base64(sha.digest()))
                except ClientError as err:
                    if code_of(err) == "ConditionalRequestConflict":
                        # Two writers at the very same time: neither has won yet.
                        raise _FlawedError(s3_error(err, self._place(key), self._connection.endpoint)) from err
                    if status_of(err) != 412:
                        raise
                    # The object may be ours: written by an attempt whose answer was lost.
                    return client.head_object(**place)["Metadata"].get(_WRITE) == write
                return True

        try:
            return _until_sound(attempt)
        except KeyError:
            return False  # It was there, and has been deleted since.

    def put_file(self, key: str, path: Path) -> ObjectInfo:
        """Write the content of the file at `path`; in parts where it is larger than PART."""
        with disk.disk_errors(path), path.open("rb") as file:
            before = path.stat()
            if before.st_size <= PART:
                return self.put(key, file.read())
            # Metadata go up with the first byte, so the digest must be known before.
            sha = hashlib.sha256()
            for chunk in disk.read_chunks(file, path):
                sha.update(chunk)
            file.seek(0)
            with self._request(key) as (client, place):
                _abort_earlier_uploads(client, place)
                client.upload_fileobj(file, **place, ExtraArgs={"Metadata": {_SHA256: sha.hexdigest()}}, Config=TRANSFER)
            after = path.stat()
        if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
            raise IntegrityError(f"{path} changed while it was written to {self._place(key)}; write it again")
        return ObjectInfo(key=key, size=before.st_size, sha256=sha.hexdigest())

    def get(self, key: str) -> bytes:
        """The content, checked. Raises KeyError where there is none."""

        def attempt() -> bytes:
            with self._request(key) as (client, place):
                answer = client.get_object(**place)
                try:
                    with contextlib.closing(answer["Body"]) as body:
                        data = body.read()
                except BotoCoreError as err:
                    # botocore tries requests again, but not bodies that break off.
                    raise _FlawedError(s3_error(err, self._place(key), self._connection.endpoint)) from err
            self._check(key, answer["Metadata"], len(data), hashlib.sha256(data).hexdigest())
            return data

        return _until_sound(attempt)

    def get_file(self, key: str, path: Path) -> ObjectInfo:
        """Write the checked content to `path`, whole or not at all."""

        def attempt() -> ObjectInfo:
            with disk.incoming(path) as target:
                with self._request(key) as (client, place):
                    metadata = client.head_object(**place)["Metadata"]
                    client.download_fileobj(**place, Fileobj=target, Config=TRANSFER)
                target.flush()
                size, sha = 0, hashlib.sha256()
                with Path(target.name).open("rb") as copy:
                    for chunk in disk.read_chunks(copy, path):
                        size += len(chunk)
                        sha.update(chunk)
                self._check(key, metadata, size, sha.hexdigest())
                return ObjectInfo(key=key, size=size, sha256=sha.hexdigest())

        return _until_sound(attempt)

    def head(self, key: str) -> ObjectInfo | None:
        """Size and sha256 (None for an object that dail did not write), or None where there is no such object."""
        try:
            with self._request(key) as (client, place):
                answer = client.head_object(**place)
        except KeyError:
            return None
        return ObjectInfo(key=key, size=answer["ContentLength"], sha256=_digest_in(answer["Metadata"]))

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        """Every object whose key starts with `prefix`, sorted by key, without digests (they would cost a request each)."""
        if folder := prefix.rpartition("/")[0]:
            check_key(folder)
        base = f"{self._prefix}/" if self._prefix else ""
        found = []
        with self._errors(prefix):
            pages = self._connection.client(self._prefix).get_paginator("list_objects_v2")
            for page in pages.paginate(Bucket=self._connection.bucket, Prefix=base + prefix):
                for each in page.get("Contents", []):
                    key = each["Key"][len(base) :]
                    # Consoles mark "folders" by empty objects whose key ends with a slash.
                    if not key_problem(key):
                        found.append(ObjectInfo(key=key, size=each["Size"]))
        # Not every server lists in order.
        yield from sorted(found, key=lambda info: info.key)

    def delete(self, key: str) -> None:
        """Remove the object; no error where there is none."""
        with contextlib.suppress(KeyError), self._request(key) as (client, place):
            client.delete_object(**place)

    def _full(self, key: str) -> str:
        return check_key(join(self._prefix, key))

    def _place(self, key: str) -> str:
        return f"{self.uri}/{key}"

    def _errors(self, key: str) -> contextlib.AbstractContextManager[None]:
        return s3_errors(self._place(key), self._connection.endpoint)

    @contextlib.contextmanager
    def _request(self, key: str) -> Iterator[tuple[S3Client, Any]]:
        """The client and the arguments that name the object. Raises KeyError where the server knows no such object."""
        place = {"Bucket": self._connection.bucket, "Key": self._full(key)}
        with self._errors(key):
            client = self._connection.client(self._prefix)
            try:
                yield client, place
            except ClientError as err:
                if is_missing(err):
                    raise KeyError(key) from None
                if code_of(err) in ("400", "403"):
                    # The answer to a HEAD has no room for the reason; that to another request has.
                    client.list_objects_v2(Bucket=place["Bucket"], Prefix=place["Key"], MaxKeys=1)
                raise

    def _check(self, key: str, metadata: Mapping[str, str], size: int, digest: str) -> None:
        """Raises _FlawedError with an IntegrityError unless the content is what was written."""
        recorded = _digest_in(metadata)
        if recorded and recorded != digest:
            error = IntegrityError(
                f"{self._place(key)} is not what was written: it has {size} bytes with sha256 {digest[:12]}..., "
                f"recorded is {recorded[:12]}...; delete it so that it is made again"
            )
            raise _FlawedError(error, _TRIES_OF_CHANGED_BYTES)


class _FlawedError(Exception):
    """An answer came and was not sound; `tries` says how often such an answer is worth asking for."""

    def __init__(self, error: DailError, tries: int = _TRIES) -> None:
        super().__init__(str(error))
        self.error = error
        self.tries = tries


def _until_sound(attempt: Callable[[], _T]) -> _T:
    """`attempt()`, again after a random pause where the answer was flawed."""
    tried = 0
    while True:
        try:
            return attempt()
        except _FlawedError as flaw:
            tried += 1
            if tried >= flaw.tries:
                raise flaw.error from flaw
            time.sleep(random.uniform(0, 0.25 * 2**tried))


def _abort_earlier_uploads(client: S3Client, place: Mapping[str, str]) -> None:
    """Free the parts that killed uploads of this key left. A key has one writer; of two, the later one goes on."""
    # Who may not list or abort uploads may still upload, and some servers know neither.
    with contextlib.suppress(ClientError):
        pages = client.get_paginator("list_multipart_uploads").paginate(Bucket=place["Bucket"], Prefix=place["Key"])
        for upload in (one for page in pages for one in page.get("Uploads", [])):
            if upload["Key"] == place["Key"]:
                client.abort_multipart_upload(Bucket=place["Bucket"], Key=place["Key"], UploadId=upload["UploadId"])


def _digest_in(metadata: Mapping[str, str]) -> str | None:
    digest = metadata.get(_SHA256, "")
    return digest if _DIGEST.fullmatch(digest) else None


def _base64(digest: bytes) -> str:
    return base64.b64encode(digest).decode()
