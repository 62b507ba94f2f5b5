"""One boto3 client for a bucket: impatient at the first contact, patient afterwards."""

from __future__ import annotations

import os
import re
import threading
from typing import TYPE_CHECKING

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError

from dail_runtime.errors import StoreError, TransientError
from dail_runtime.store.s3_errors import code_of, s3_error, s3_errors

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

ATTEMPTS = 8
"""Of one request; botocore waits up to 1, 2, 4, 8, 16, 20, 20 s between them, at random."""
CONNECTIONS = 32
"""Open at once; more callers wait for one another."""


_AWS = "AWS S3"
_ADDRESS = re.compile(r"https?://[^/\s@]+/?$", re.IGNORECASE)


class Connection:
    """The client of a bucket, made and tried with the first request. Safe to use from several threads.

    A job file may name a wrong server, bucket or key. The first request finds that out within ten seconds: it asks for one
    listed key, twice at most. After that the address is right, and a server that restarts is worth waiting for.
    """

    def __init__(self, bucket: str, endpoint: str | None, region: str | None, attempts: int = ATTEMPTS) -> None:
        self.bucket = bucket
        if endpoint is not None and not _ADDRESS.match(endpoint):
            raise StoreError(f"storage.endpoint {endpoint!r} is no address; write http://HOST:PORT or https://HOST")
        self._endpoint = endpoint
        self._region = region
        self._attempts = attempts
        self._client: S3Client | None = None
        self._lock = threading.Lock()

    @property
    def endpoint(self) -> str:
        """The server's address, as errors name it."""
        return self._endpoint or os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or _AWS

    def client(self, prefix: str) -> S3Client:
        """The patient client. Raises StoreError or TransientError where the first contact, listing `prefix`, fails."""
        if self._client is None:
            with self._lock:
                if self._client is None:
                    self._first_contact(prefix)
                    self._client = self._make(self._attempts, connect=5, read=60)
        return self._client

    def _first_contact(self, prefix: str) -> None:
        place = f"s3://{self.bucket}/{prefix}"
        client = self._make(2, connect=3, read=3.5)
        with s3_errors(place, self.endpoint):
            try:
                client.list_objects_v2(Bucket=self.bucket, Prefix=prefix, MaxKeys=1)
            except ClientError as err:
                # Who may not list may still read; and an overloaded server did answer.
                overloaded = isinstance(s3_error(err, place, self.endpoint), TransientError)
                if not overloaded and code_of(err) != "AccessDenied":
                    raise
            finally:
                client.close()

    def _make(self, attempts: int, *, connect: float, read: float) -> S3Client:
        config = Config(
            retries={"mode": "standard", "total_max_attempts": attempts},
            connect_timeout=connect,
            read_timeout=read,
            max_pool_connections=CONNECTIONS,
            tcp_keepalive=True,
            signature_version="s3v4",
            # Servers of one's own rarely have a host name for each bucket. With payload signing every server checks each
            # upload's sha256, also those that know no checksum headers, which is why these are not sent unasked.
            s3={"addressing_style": "auto" if self.endpoint == _AWS else "path", "payload_signing_enabled": True},
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
        )
        session = boto3.session.Session()
        # A server of one's own has no regions, yet the signature needs the name of one.
        region = self._region or session.region_name or "us-east-1"
        return session.client("s3", endpoint_url=self._endpoint, region_name=region, config=config)
