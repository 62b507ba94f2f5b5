"""One HTTP request to the API server: credentials, passing faults tried again, every other fault one sentence."""

from __future__ import annotations

import contextlib
import copy
import json
import random
import re
import socket
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode

import urllib3
from urllib3.connection import HTTPConnection
from urllib3.exceptions import HTTPError, LocationParseError, ProxyError, SSLError

from dail_runtime.errors import ClusterError, DailError, TransientError
from dailctl.kube.clock import ServerClock
from dailctl.kube.config import Access
from dailctl.kube.errors import Overloaded, api_error
from dailctl.kube.proxy import proxy_for, through
from dailctl.kube.resources import Object

CONNECT, READ = 5.0, 30.0
"""Seconds."""
PATIENCE = 6.0
"""Seconds in which a request that fails by a passing fault is tried again: what a person waits for."""
CONNECTIONS = 32

_KEEPALIVE = [
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    # A watch is silent for minutes. A peer that vanished without a word is to be noticed within half a minute.
    *(
        (socket.IPPROTO_TCP, getattr(socket, name), value)
        for name, value in (("TCP_KEEPIDLE", 15), ("TCP_KEEPINTVL", 5), ("TCP_KEEPCNT", 3))
        if hasattr(socket, name)
    ),
]


@dataclass(frozen=True)
class Request:
    """What is sent. Each request of dail may safely arrive twice."""

    method: str
    path: str
    asked: str
    """What it asks for, in words: `read pods x in namespace ml`."""
    query: Mapping[str, str] = field(default_factory=dict)
    """Empty values are left out."""
    body: Object | None = None
    content_type: str = "application/json"
    accept: str = "application/json"
    read_seconds: float = READ
    """How long the server may be silent."""


class Transport:
    """Connections to one API server."""

    def __init__(self, access: Access, patience: float = PATIENCE) -> None:
        self.access = access
        self.clock = ServerClock()
        self._patience = patience
        options: dict[str, Any] = {
            "ssl_context": access.tls,
            "maxsize": CONNECTIONS,
            "retries": False,
            "socket_options": [*HTTPConnection.default_socket_options, *_KEEPALIVE],
        }
        if access.server_name:
            options |= {"server_hostname": access.server_name, "assert_hostname": access.server_name}
        proxy = access.proxy or proxy_for(access.server)
        self._pool: urllib3.PoolManager = through(proxy, options) if proxy else urllib3.PoolManager(**options)

    def with_patience(self, seconds: float) -> Transport:
        """The same connections, on which requests are tried again for so long."""
        other = copy.copy(self)
        other._patience = seconds
        return other

    def close(self) -> None:
        """Close idle connections."""
        self._pool.clear()

    def json(self, request: Request) -> Object:
        """The answer's JSON object. Raises ApiError, or TransientError after `patience`."""
        end, pause = time.monotonic() + self._patience, 0.1
        while True:
            try:
                with self._opened(request) as answer:
                    return self._object(answer.read(), request)
            except TransientError as err:
                wait = random.uniform(0.5, 1.5) * pause
                if isinstance(err, Overloaded):
                    wait = max(wait, err.seconds)
                if time.monotonic() + wait > end:
                    raise
                time.sleep(wait)
                pause = min(2 * pause, 5.0)

    def _object(self, text: bytes, request: Request) -> Object:
        try:
            return object_in(text)
        except ValueError:
            raise ClusterError(f"cannot {request.asked}: {self.access.server} is no Kubernetes API server; check the kubeconfig") from None

    def read(self, request: Request, keep: int | None = None) -> bytes:
        """The answer as it is, or its last `keep` bytes; not tried again."""
        with self._opened(request) as answer:
            if keep is None:
                return bytes(answer.read())
            found = bytearray()
            for chunk in answer.stream(1 << 16):
                found += chunk
                if len(found) > keep + (1 << 20):
                    del found[:-keep]
            return bytes(found[-keep:])

    def lines(self, request: Request, *, unfinished: bool = False) -> Iterator[bytes]:
        """The answer's lines as they come, empty ones left out; not tried again. `unfinished`: also a last one without an end."""
        with self._opened(request) as answer:
            yield from joined(answer.stream(1 << 16), unfinished=unfinished)

    @contextlib.contextmanager
    def _opened(self, request: Request) -> Iterator[urllib3.BaseHTTPResponse]:
        answer = self._send(request)
        try:
            yield answer
        except HTTPError as err:
            # Not only a broken connection: also a watch whose peer stopped sending.
            sentence = f"cannot {request.asked}: the connection to {self.access.server} broke off ({_brief(err)}); try again"
            raise TransientError(sentence) from None
        finally:
            # An answer read to its end has given its connection back already; any other (a watch) takes it along.
            answer.close()

    def _send(self, request: Request, fresh: bool = False) -> urllib3.BaseHTTPResponse:
        said = {name: value for name, value in request.query.items() if value}
        url = f"{self.access.server}{request.path}{'?' + urlencode(said) if said else ''}"
        headers = urllib3.HTTPHeaderDict({"Accept": request.accept, "User-Agent": "dailctl"})
        for name, value in (*self.access.headers, *self._authorization(fresh)):
            headers.add(name, value)
        if request.body is not None:
            headers["Content-Type"] = request.content_type
        body = None if request.body is None else json.dumps(request.body).encode()
        timeout = urllib3.Timeout(connect=CONNECT, read=request.read_seconds)
        try:
            answer = self._pool.request(
                request.method, url, headers=headers, body=body, timeout=timeout, preload_content=False, redirect=False
            )
        except HTTPError as err:
            raise _unreachable(err, self.access, request.asked) from None
        self.clock.hear(answer.headers.get("Date"))
        if answer.status < 300:
            return answer
        with contextlib.closing(answer):
            if answer.status == 401 and not fresh:
                # A connection keeps the certificate it was opened with.
                self._pool.clear()
                return self._send(request, fresh=True)
            raise api_error(answer.status, _status_of(answer), request.asked, self.access.user, answer.headers.get("Retry-After"))

    def _authorization(self, fresh: bool) -> list[tuple[str, str]]:
        token = self.access.token(fresh)
        if token and not re.fullmatch(r"[!-~]+", token):
            # The library would say so, too, and show the token.
            raise ClusterError(f"the token of {self.access.user} has characters that none may have; renew it, or correct the kubeconfig")
        return [("Authorization", f"Bearer {token}")] if token else []


def object_in(text: bytes) -> Object:
    """The JSON object that is all of the text. Raises ValueError where it is something else."""
    found = json.loads(text)
    if not isinstance(found, dict):
        raise ValueError(f"{type(found).__name__} is no object")
    return found


def joined(chunks: Iterable[bytes], *, unfinished: bool) -> Iterator[bytes]:
    """The lines of chunks, empty ones left out; however long a line is, its bytes are copied once."""
    parts: list[bytes] = []
    for chunk in chunks:
        first, *others = chunk.split(b"\n")
        parts.append(first)
        if others:
            yield from (line for line in (b"".join(parts), *others[:-1]) if line)
            parts = [others[-1]]
    if unfinished and (rest := b"".join(parts)):
        yield rest


def _status_of(answer: urllib3.BaseHTTPResponse) -> Object:
    """The `Status` object of a refusal; whatever else it is, as its message."""
    try:
        text = answer.read(1 << 20)
        found = json.loads(text)
    except HTTPError:
        return {}
    except ValueError:
        return {"message": text[:200].decode(errors="replace")}
    return found if isinstance(found, dict) else {}


def _unreachable(err: HTTPError, access: Access, asked: str) -> DailError:
    where = f"{access.server} (context {access.context})" if access.context else access.server
    if isinstance(err, SSLError) or "CERTIFICATE_VERIFY_FAILED" in str(err):
        return ClusterError(f"cannot {asked}: the certificate of {where} is not accepted ({_brief(err)}); correct the kubeconfig")
    if isinstance(err, LocationParseError):
        return ClusterError(f"cannot {asked}: {access.server} is no address; correct the kubeconfig")
    if isinstance(err, ProxyError):
        said = _brief(err.original_error)
        return TransientError(f"cannot {asked}: {where} cannot be reached through its proxy ({said}); check HTTPS_PROXY, or proxy-url")
    return TransientError(f"cannot {asked}: the cluster at {where} cannot be reached ({_brief(err)}); check the network and the kubeconfig")


def _brief(err: BaseException) -> str:
    """The library's last words without its object addresses."""
    text = " ".join(str(err).split())
    text = text.rpartition(">: ")[2] or text
    return text if len(text) <= 160 else f"{text[:157]}..."
