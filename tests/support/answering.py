"""An HTTP server that gives the answers it was told, one after the other, and remembers what it was asked: for what no healthy API server
of the lab would say."""

from __future__ import annotations

import contextlib
import http.server
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from email.message import Message
from typing import Any


@dataclass(frozen=True)
class Answer:
    """One answer."""

    body: dict[str, Any] | bytes = field(default_factory=dict)
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)


@dataclass
class Answering:
    """What is still to be answered, and what was asked."""

    address: str
    answers: list[Answer]
    """The last is given again and again."""
    asked: list[tuple[str, Message]] = field(default_factory=list)
    """Path and headers of every request."""


@contextlib.contextmanager
def answering(*answers: Answer) -> Iterator[Answering]:
    """Such a server on a free loopback port, until the block ends."""
    told = Answering("", list(answers))
    handler = type("Handler", (_Handler,), {"told": told})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        told.address = f"http://127.0.0.1:{server.server_address[1]}"
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield told
        server.shutdown()


class _Handler(http.server.BaseHTTPRequestHandler):
    told: Answering

    def do_GET(self) -> None:
        self.told.asked.append((self.path, self.headers))
        answer = self.told.answers[0] if len(self.told.answers) == 1 else self.told.answers.pop(0)
        body = answer.body if isinstance(answer.body, bytes) else json.dumps(answer.body).encode()
        self.send_response(answer.status)
        for name, value in {**answer.headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""
