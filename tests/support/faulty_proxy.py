"""An HTTP proxy in front of a real server that does wrong on demand what a healthy server never does."""

from __future__ import annotations

import contextlib
import http.client
import http.server
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import urlsplit


@dataclass(frozen=True)
class Fault:
    """What happens to a request instead of its answer."""

    kind: Literal["answer", "web_page", "reset", "lose_answer", "cut", "change", "hang"]
    """answer: `status` and `code`; nothing reaches the server. web_page: `status` and HTML, as from some other server.
    reset: the connection breaks. lose_answer: the server does it, then the connection breaks. cut: half of the body comes,
    then the connection ends. change: one byte of the body differs. hang: no answer for `seconds`."""
    status: int = 503
    code: str = "SlowDown"
    seconds: float = 30.0


@dataclass
class FaultyProxy:
    """Decides per request; remembers what was asked."""

    endpoint: str
    upstream: str
    plan: Callable[[str, str], Fault | None] = lambda _method, _path: None
    """From method and path (with query) to the fault, or None: pass it on. Replace it at any time."""
    requests: list[tuple[str, str]] = field(default_factory=list)
    """Method and path of every request so far."""

    def times(self, count: int, fault: Fault, *, method: str = "", query: str = "") -> None:
        """Plan `fault` for the next `count` requests with this method and this text in the path."""
        left = [count]

        def plan(asked: str, path: str) -> Fault | None:
            if left[0] and (not method or asked == method) and query in path:
                left[0] -= 1
                return fault
            return None

        self.plan = plan


@contextlib.contextmanager
def faulty_proxy(upstream: str) -> Iterator[FaultyProxy]:
    """A proxy to `upstream` (`http://host:port`) on a free loopback port, until the block ends."""
    proxy = FaultyProxy("", upstream)
    handler = type("Handler", (_Handler,), {"proxy": proxy})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.daemon_threads = True
        server.block_on_close = False
        proxy.endpoint = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        try:
            yield proxy
        finally:
            server.shutdown()
            thread.join()


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    proxy: FaultyProxy

    def _handle(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.proxy.requests.append((self.command, self.path))
        fault = self.proxy.plan(self.command, self.path)
        kind = fault.kind if fault else None
        if fault and kind == "hang":
            time.sleep(fault.seconds)
        if fault and kind == "answer":
            text = f"<Error><Code>{fault.code}</Code><Message>injected</Message></Error>".encode()
            self._answer(fault.status, [("Content-Type", "application/xml"), ("Content-Length", str(len(text)))], text)
            return
        if fault and kind == "web_page":
            page = b"<!doctype html><html><body><p>Welcome<br></body></html>"
            self._answer(fault.status, [("Content-Type", "text/html"), ("Content-Length", str(len(page)))], page)
            return
        if kind in ("reset", "hang"):
            self._reset()
            return
        target = urlsplit(self.proxy.upstream)
        upstream = http.client.HTTPConnection(target.hostname or "", target.port, timeout=60)
        # The headers go as they came, Host included, which the signature covers.
        upstream.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
        for name, value in self.headers.items():
            if name.lower() not in ("connection", "expect"):
                upstream.putheader(name, value)
        upstream.endheaders(body)
        answer = upstream.getresponse()
        content = answer.read()
        upstream.close()
        headers = [(name, value) for name, value in answer.getheaders() if name.lower() not in ("connection", "transfer-encoding")]
        if answer.getheader("Content-Length") is None:
            headers.append(("Content-Length", str(len(content))))
        if kind == "lose_answer":
            self._reset()
        elif kind == "cut":
            self._answer(answer.status, headers, content[: len(content) // 2])
            self.close_connection = True
        elif kind == "change":
            self._answer(answer.status, headers, bytes([content[0] ^ 1]) + content[1:])
        else:
            self._answer(answer.status, headers, content)

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = _handle  # noqa: N815 (the names that http.server looks for)

    def _answer(self, status: int, headers: list[tuple[str, str]], content: bytes) -> None:
        self.send_response_only(status)
        for name, value in headers:
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def _reset(self) -> None:
        # With this option, closing sends RST instead of FIN.
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close_connection = True

    def log_message(self, format: str, *args: object) -> None:
        """Says nothing: the tests say what they expect."""
