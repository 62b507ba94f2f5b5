"""Credentials from a program that the kubeconfig names, as the clouds' own tools give them (client.authentication.k8s.io)."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from dail_runtime.errors import ClusterError

MARGIN = timedelta(seconds=30)
"""Credentials are renewed so long before they expire."""
SECONDS = 120.0
"""The program may open a browser and wait for a person."""


class ExecPlugin:
    """One `exec` entry of a kubeconfig. Safe to use from several threads."""

    def __init__(
        self, entry: dict[str, Any], base: Path, user: str, cluster: dict[str, Any], certify: Callable[[bytes, bytes], None]
    ) -> None:
        self._entry, self._base, self._user, self._cluster = entry, base, user, cluster
        self._certify = certify
        """Makes connections show a client certificate (PEM) and its key, which programs may give instead of a token or beside it."""
        self._lock = threading.Lock()
        self._asked = False
        self._token: str | None = None
        self._expires: datetime | None = None

    def token(self, fresh: bool) -> str | None:
        """The token (None where the program gives certificates), from the program where it was not asked yet, what it gave expires, or
        `fresh` asks for another.

        Raises:
            ClusterError: the program is not there, fails, or gives no credentials.
        """
        with self._lock:
            if fresh or not self._asked or (self._expires is not None and datetime.now(UTC) > self._expires - MARGIN):
                self._ask()
            return self._token

    def _ask(self) -> None:
        command = str(self._entry.get("command", ""))
        # A path is relative to the kubeconfig; a bare name is looked up in PATH.
        program = str(self._base / command) if os.sep in command else command
        version = str(self._entry.get("apiVersion", "client.authentication.k8s.io/v1"))
        request: dict[str, Any] = {"apiVersion": version, "kind": "ExecCredential", "spec": {"interactive": sys.stdin.isatty()}}
        if self._entry.get("provideClusterInfo"):
            known = ("server", "tls-server-name", "insecure-skip-tls-verify", "certificate-authority-data", "proxy-url")
            request["spec"]["cluster"] = {name: self._cluster[name] for name in known if name in self._cluster}
        environment = {**os.environ, "KUBERNETES_EXEC_INFO": json.dumps(request)}
        environment |= {str(one["name"]): str(one.get("value") or "") for one in self._entry.get("env") or ()}
        try:
            ended = subprocess.run(
                [program, *map(str, self._entry.get("args") or ())],
                env=environment,
                stdout=subprocess.PIPE,
                timeout=SECONDS,
                check=False,
            )
        except FileNotFoundError:
            hint = " ".join(str(self._entry.get("installHint") or "install it, or choose another context").split())
            raise ClusterError(f"the program {command!r}, which logs {self._user} in, is not installed; {hint}") from None
        except (OSError, subprocess.TimeoutExpired) as err:
            raise ClusterError(f"the program {command!r}, which logs {self._user} in, failed ({err}); run it by hand to see why") from None
        self._take(command, ended)

    def _take(self, command: str, ended: subprocess.CompletedProcess[bytes]) -> None:
        status: dict[str, Any] = {}
        if ended.returncode == 0:
            try:
                status = json.loads(ended.stdout).get("status") or {}
            except (ValueError, AttributeError):
                status = {}
        certificate, key = (str(status.get(name) or "").encode() for name in ("clientCertificateData", "clientKeyData"))
        if not status.get("token") and not (certificate and key):
            what = f"ended with code {ended.returncode}" if ended.returncode else "gave no token and no certificate"
            raise ClusterError(f"the program {command!r}, which logs {self._user} in, {what}; log in anew, or run it by hand to see why")
        expires = status.get("expirationTimestamp")
        try:
            self._expires = _moment(str(expires)) if expires else None
            if certificate and key:
                self._certify(certificate, key)
        except (OSError, ValueError) as err:
            raise ClusterError(
                f"the program {command!r}, which logs {self._user} in, gave what cannot be used ({err}); run it by hand to see it"
            ) from None
        self._token = str(status["token"]) if status.get("token") else None
        self._asked = True


def _moment(text: str) -> datetime:
    """The moment that an RFC 3339 time names; one without a zone is UTC."""
    found = datetime.fromisoformat(text)
    return found if found.tzinfo is not None else found.replace(tzinfo=UTC)
