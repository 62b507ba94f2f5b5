"""Kubeconfig files of the lab: one user each, everything inside the file."""

from __future__ import annotations

import base64
from pathlib import Path

import yaml

from tests.lab.pki import Pair


def with_certificate(path: Path, server: str, authority: bytes, user: str, pair: Pair) -> Path:
    """For a user who is known by a certificate."""
    return _write(path, server, authority, user, {"client-certificate-data": _text(pair.certificate), "client-key-data": _text(pair.key)})


def with_token(path: Path, server: str, authority: bytes, user: str, token: str, namespace: str = "default") -> Path:
    """For a service account."""
    return _write(path, server, authority, user, {"token": token}, namespace)


def server_of(path: Path) -> tuple[str, bytes]:
    """URL and certificate authority (PEM) of the current context's cluster."""
    config = yaml.safe_load(path.read_text())
    context = next(one["context"] for one in config["contexts"] if one["name"] == config["current-context"])
    cluster = next(one["cluster"] for one in config["clusters"] if one["name"] == context["cluster"])
    if "certificate-authority-data" in cluster:
        return cluster["server"], base64.b64decode(cluster["certificate-authority-data"])
    return cluster["server"], (path.parent / cluster["certificate-authority"]).read_bytes()


def _write(path: Path, server: str, authority: bytes, user: str, credentials: dict[str, str], namespace: str = "default") -> Path:
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "lab", "cluster": {"server": server, "certificate-authority-data": _text(authority)}}],
        "users": [{"name": user, "user": credentials}],
        "contexts": [{"name": "lab", "context": {"cluster": "lab", "user": user, "namespace": namespace}}],
        "current-context": "lab",
    }
    path.touch(mode=0o600)
    path.write_text(yaml.safe_dump(config, sort_keys=False))
    return path


def _text(pem: bytes) -> str:
    return base64.b64encode(pem).decode()
