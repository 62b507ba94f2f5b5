"""Metrics for Prometheus: an HTTP endpoint where DAIL_METRICS_PORT names a port, nothing at all elsewhere."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from typing import Protocol

from prometheus_client import Metric

PORT = "DAIL_METRICS_PORT"


class Source(Protocol):
    """What is measured."""

    def collect(self) -> Iterable[Metric]:
        """The metrics as they are now. Called from the endpoint's own thread."""
        ...


def serve_metrics(source: Source) -> int | None:
    """Serve `source` at /metrics on the port that the environment names; returns the port, None where there is none.

    A port that cannot be had is told of on standard error and passed over: a run must not fail because nobody can watch it.
    """
    text = os.environ.get(PORT, "")
    if not text:
        return None
    from prometheus_client import CollectorRegistry, start_http_server

    registry = CollectorRegistry()
    registry.register(source)
    try:
        server, _ = start_http_server(int(text), registry=registry)
    except (OSError, ValueError, OverflowError) as err:
        print(f"no metrics: {PORT}={text} cannot be listened on ({err})", file=sys.stderr, flush=True)
        return None
    return int(server.server_port)
