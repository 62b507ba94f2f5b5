"""Which cluster, as whom: a kubeconfig's context, or the identity that a pod is given."""

from __future__ import annotations

import base64
import os
import re
import ssl
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

import yaml

from dail_runtime.errors import ClusterError, UsageError
from dail_runtime.spec.kubernetes import checked_namespace
from dailctl.kube.plugin import ExecPlugin

POD_FILES = Path("/var/run/secrets/kubernetes.io/serviceaccount")
TOKEN_SECONDS = 60.0
"""A token in a file is read again after so long: the kubelet renews it."""
REMEDY = "name a kubeconfig with --kubeconfig or KUBECONFIG, and a context in it with --context"


@dataclass
class Access:
    """How to reach one cluster."""

    server: str
    """`https://host:port`, perhaps with a path."""
    namespace: str
    """Where objects go when nothing else is said."""
    user: str
    """Who asks, for sentences."""
    context: str = ""
    """Name of the kubeconfig's context; '' in a pod."""
    tls: ssl.SSLContext | None = None
    server_name: str | None = None
    """Name the server's certificate is checked against, where it is not that of its address."""
    proxy: str | None = None
    token: Callable[[bool], str | None] = field(default=lambda _: None)
    """The bearer token; True asks for a fresh one, because the server refused the last."""
    headers: Sequence[tuple[str, str]] = ()
    """Of every request: as whom the user wants to be seen (impersonation)."""


def load_access(kubeconfig: Path | None = None, context: str | None = None, namespace: str | None = None) -> Access:
    """The cluster that a kubeconfig's context names, as kubectl would choose it; in a pod without one, the pod's own.

    Raises:
        ClusterError: there is no kubeconfig, or no such context, or it is not complete.
        UsageError: `namespace` cannot be the name of one.
    """
    namespace = _namespace(namespace)
    paths = [kubeconfig] if kubeconfig is not None else [Path(one) for one in os.environ.get("KUBECONFIG", "").split(os.pathsep) if one]
    if not paths and not (default := Path.home() / ".kube" / "config").is_file():
        if (POD_FILES / "token").is_file():
            return in_cluster(namespace)
        raise ClusterError(f"there is no kubeconfig ({default} does not exist); {REMEDY}")
    found = _Kubeconfig(paths or [Path.home() / ".kube" / "config"])
    name = context or found.current
    if not name:
        raise ClusterError(f"{found.shown} has no current context; {REMEDY}")
    chosen, _ = found.entry("contexts", "context", name)
    cluster, cluster_base = found.entry("clusters", "cluster", str(chosen.get("cluster", "")))
    user, user_base = found.entry("users", "user", str(chosen["user"])) if chosen.get("user") else ({}, Path())
    server = str(cluster.get("server") or "").rstrip("/")
    if not re.match(r"https?://[^/]", server):
        has = f"the server {server!r}, which is no address" if server else "no server"
        raise ClusterError(f"{found.shown}: the cluster of context {name} has {has}; write it as https://host:port")
    tls = _tls(cluster, cluster_base, user, user_base)
    return Access(
        server=server,
        namespace=namespace or _namespace(str(chosen.get("namespace") or "default")),
        user=str(user.get("as") or chosen.get("user") or "an anonymous user"),
        context=name,
        tls=tls,
        server_name=cluster.get("tls-server-name"),
        proxy=cluster.get("proxy-url"),
        token=_token(user, user_base, str(chosen.get("user")), cluster, tls),
        headers=_impersonation(user),
    )


def in_cluster(namespace: str | None = None) -> Access:
    """The API server as a pod sees it, with the pod's service account.

    Raises:
        ClusterError: this is no pod with a service account.
    """
    host, port = os.environ.get("KUBERNETES_SERVICE_HOST"), os.environ.get("KUBERNETES_SERVICE_PORT", "443")
    if not host or not (POD_FILES / "token").is_file():
        raise ClusterError("this is no pod with a service account's token; set automountServiceAccountToken, or run it with a kubeconfig")
    own = (POD_FILES / "namespace").read_text().strip() if (POD_FILES / "namespace").is_file() else "default"
    return Access(
        server=f"https://{f'[{host}]' if ':' in host else host}:{port}",
        namespace=namespace or own,
        user="the pod's service account",
        tls=ssl.create_default_context(cafile=str(POD_FILES / "ca.crt")),
        token=_FileToken(POD_FILES / "token"),
    )


def _namespace(name: Any) -> Any:
    """It becomes a part of paths: `..` would lead out of it."""
    try:
        return checked_namespace(name) if name else name
    except ValueError as err:
        raise UsageError(str(err)) from None


def _impersonation(user: dict[str, Any]) -> list[tuple[str, str]]:
    """Headers for `as`, `as-uid`, `as-groups` and `as-user-extra`: without them the user would act with rights of their own."""
    found = [(f"Impersonate-{part}", str(user[name])) for name, part in (("as", "User"), ("as-uid", "Uid")) if user.get(name)]
    found += [("Impersonate-Group", str(group)) for group in user.get("as-groups") or ()]
    extra = user.get("as-user-extra") or {}
    return [*found, *((f"Impersonate-Extra-{quote(str(key), safe='')}", str(one)) for key, many in extra.items() for one in many)]


class _Kubeconfig:
    """Several files as one: the first that has an entry decides. Relative paths count from the file they stand in."""

    def __init__(self, paths: list[Path]) -> None:
        self.shown = os.pathsep.join(map(str, paths))
        self.files = [(path.absolute().parent, self._read(path)) for path in paths if path.is_file()]
        if not self.files:
            raise ClusterError(f"{self.shown}: there is no such kubeconfig; {REMEDY}")
        self.current = next((str(one["current-context"]) for _, one in self.files if one.get("current-context")), "")

    def entry(self, section: str, key: str, name: str) -> tuple[dict[str, Any], Path]:
        names = []
        for base, file in self.files:
            for one in file.get(section) or ():
                if one["name"] == name:
                    return dict(one.get(key) or {}), base
                names.append(str(one["name"]))
        has = f"it has {', '.join(sorted(names))}" if names else "it has none"
        raise ClusterError(f"{self.shown} has no {key} {name!r}; {has}")

    def _read(self, path: Path) -> dict[str, Any]:
        try:
            found = yaml.load(path.read_bytes(), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
        except OSError as err:
            raise ClusterError(f"{path}: cannot be read ({err.strerror}); check its permissions") from None
        except (yaml.YAMLError, UnicodeDecodeError) as err:
            raise ClusterError(f"{path} is not YAML ({' '.join(str(err).split())[:160]}); correct it") from None
        if not isinstance(found, dict):
            raise ClusterError(f"{path} is no kubeconfig; {REMEDY}")
        for section, key in (("contexts", "context"), ("clusters", "cluster"), ("users", "user")):
            entries = found.get(section) or []
            if not isinstance(entries, list) or not all(_is_entry(one, key) for one in entries):
                raise ClusterError(f"{path}: {section} is no list of entries with a name and a {key}; correct it")
        return found


def _is_entry(one: Any, key: str) -> bool:
    inner = one.get(key) or {} if isinstance(one, dict) and "name" in one else None
    return isinstance(inner, dict) and isinstance(inner.get("exec") or {}, dict)


class _FileToken:
    """The token in a file, read again now and then."""

    def __init__(self, path: Path) -> None:
        self._path, self._read_at, self._token = path, float("-inf"), ""
        self._lock = threading.Lock()

    def __call__(self, fresh: bool) -> str | None:
        with self._lock:
            if fresh or time.monotonic() - self._read_at > TOKEN_SECONDS:
                try:
                    self._token = self._path.read_text().strip()
                except OSError as err:
                    raise ClusterError(f"{self._path}: the token cannot be read ({err.strerror})") from None
                except UnicodeDecodeError:
                    raise ClusterError(f"{self._path} holds no token; correct the kubeconfig") from None
                self._read_at = time.monotonic()
            return self._token


def _token(user: dict[str, Any], base: Path, name: str, cluster: dict[str, Any], tls: ssl.SSLContext) -> Callable[[bool], str | None]:
    if user.get("exec"):
        return ExecPlugin(user["exec"], base, name, cluster, lambda certificate, key: load_certificate(tls, certificate, key)).token
    if user.get("tokenFile"):
        return _FileToken(base / str(user["tokenFile"]))
    if user.get("token"):
        return lambda _: str(user["token"])
    if user.get("auth-provider"):
        provider = (user["auth-provider"] or {}).get("name")
        raise ClusterError(
            f"the user {name} logs in with the auth-provider {provider!r}, which Kubernetes 1.26 removed; use its exec plugin"
        )
    if user.get("username"):
        raise ClusterError(f"the user {name} logs in with a password, which Kubernetes 1.19 removed; use a token or a certificate")
    return lambda _: None


def _tls(cluster: dict[str, Any], cluster_base: Path, user: dict[str, Any], user_base: Path) -> ssl.SSLContext:
    try:
        if cluster.get("insecure-skip-tls-verify"):
            tls = ssl.create_default_context()
            tls.check_hostname, tls.verify_mode = False, ssl.CERT_NONE
        else:
            authority = _bytes(cluster, cluster_base, "certificate-authority")
            tls = ssl.create_default_context(cadata=authority.decode() if authority else None)
        certificate, key = _bytes(user, user_base, "client-certificate"), _bytes(user, user_base, "client-key")
        if certificate and key:
            load_certificate(tls, certificate, key)
    except (OSError, ValueError) as err:
        raise ClusterError(f"the kubeconfig's certificates cannot be used ({err}); correct them") from None
    return tls


def load_certificate(tls: ssl.SSLContext, certificate: bytes, key: bytes) -> None:
    """Make `tls` show a client certificate (both PEM). OpenSSL reads them from files only."""
    with tempfile.TemporaryDirectory() as folder:
        pem = Path(folder) / "client.pem"
        pem.touch(mode=0o600)
        pem.write_bytes(certificate + b"\n" + key)
        tls.load_cert_chain(pem)


def _bytes(entry: dict[str, Any], base: Path, name: str) -> bytes | None:
    if entry.get(f"{name}-data"):
        return base64.b64decode(entry[f"{name}-data"])
    return (base / str(entry[name])).read_bytes() if entry.get(name) else None
