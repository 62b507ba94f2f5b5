"""The `storage` section: where a run keeps everything it makes."""

from __future__ import annotations

from urllib.parse import urlsplit

from pydantic import Field, field_validator

from dail_runtime.spec.base import Section


class StorageSpec(Section):
    """A folder or an S3 prefix. Credentials come from the environment or the named Secret, never from this file."""

    uri: str = Field(default="./runs", min_length=1)
    """`./folder` (relative to the job file), `file:///folder` or `s3://bucket/prefix`. The run's objects go under its
    own name below it."""
    endpoint: str | None = None
    """Address of an S3-compatible server (`https://s3.example.org`); null: AWS."""
    region: str | None = None
    """Region of the bucket; null: what the environment says."""
    credentials_secret: str | None = Field(default=None, pattern=r"^[a-z0-9]([-.a-z0-9]*[a-z0-9])?$")
    """Name of the Kubernetes Secret with AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY; null: the pod's own identity."""

    @field_validator("uri", "endpoint")
    @classmethod
    def _no_secrets(cls, address: str | None) -> str | None:
        if address and "://" in address and "@" in address.split("://", 1)[1].split("/", 1)[0]:
            raise ValueError("the address contains credentials; remove them and use credentialsSecret or the environment")
        return address

    @field_validator("uri")
    @classmethod
    def _known_scheme(cls, uri: str) -> str:
        if "://" in uri and uri.split("://", 1)[0] not in ("file", "s3"):
            raise ValueError(f"{uri.split('://', 1)[0]}:// is no store dail knows; use a folder, file:// or s3://")
        return uri

    @field_validator("endpoint")
    @classmethod
    def _is_address(cls, endpoint: str | None) -> str | None:
        if endpoint is not None and not _is_web_address(endpoint):
            raise ValueError(f"{endpoint!r} is no address; write http://HOST:PORT or https://HOST")
        return endpoint


def _is_web_address(text: str) -> bool:
    try:
        parts = urlsplit(text)
        # Not before it is asked for is the port looked at.
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0 and not set(text) & set(" \t\n")
    except ValueError:
        return False
