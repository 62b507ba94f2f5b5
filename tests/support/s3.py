"""Fixtures over a real S3 server: one server a session, a bucket of its own for each test."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import boto3
import pytest

from dail_runtime.store.s3 import S3Store
from dail_runtime.store.s3_client import Connection
from tests.lab import versitygw
from tests.lab.binaries import missing
from tests.support.require import require


@dataclass(frozen=True)
class Bucket:
    """A bucket on the real server; the environment of the test has its credentials."""

    server: versitygw.Server
    name: str

    @property
    def uri(self) -> str:
        """`s3://NAME`."""
        return f"s3://{self.name}"

    def store(self, prefix: str = "", *, endpoint: str | None = None, attempts: int = 3) -> S3Store:
        """A store with connections of its own."""
        return S3Store(Connection(self.name, endpoint or self.server.endpoint, None, attempts), prefix)

    def file_of(self, key: str) -> Path:
        """Where the server keeps the object, for tests that damage it."""
        return self.server.folder / self.name / key


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[versitygw.Server]:
    """The session's S3 server."""
    reason = missing(("versitygw",))
    require(not reason, reason)
    with versitygw.running(tmp_path_factory.mktemp("s3")) as server:
        yield server


@pytest.fixture
def bucket(s3_server: versitygw.Server, monkeypatch: pytest.MonkeyPatch) -> Bucket:
    """An empty bucket, with its credentials in the environment."""
    for name in ("AWS_SESSION_TOKEN", "AWS_PROFILE", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"):
        monkeypatch.delenv(name, raising=False)
    for name, value in s3_server.environment().items():
        monkeypatch.setenv(name, value)
    name = f"test-{uuid.uuid4().hex[:12]}"
    boto3.session.Session().client("s3", endpoint_url=s3_server.endpoint).create_bucket(Bucket=name)
    return Bucket(s3_server, name)
