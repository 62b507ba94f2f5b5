"""Live copies of objects: how soon they are whole again after the API server was away."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from dail_runtime.errors import TransientError
from dailctl.kube import cache
from dailctl.kube.cache import Cache
from dailctl.kube.errors import Forbidden, Gone
from dailctl.kube.resources import POD, Object

POD_ONE: Object = {"kind": "Pod", "metadata": {"name": "one", "resourceVersion": "2"}}
LONG = 1000.0
"""Seconds; whoever pauses for so long does not come back in this test."""


class Server:
    """What lists and watches are answered with, one after the other; the last watch stays open."""

    def __init__(self, *answers: Exception | None) -> None:
        self._answers = list(answers)
        self.lists = 0
        self.open = threading.Event()

    def select_from(self, *_: Any, **__: Any) -> tuple[list[Object], str]:
        self.lists += 1
        return [POD_ONE], str(self.lists)

    def watch(self, *_: Any, **__: Any) -> Iterator[Object]:
        answer = self._answers.pop(0) if self._answers else None
        if answer is not None:
            raise answer
        self.open.set()
        threading.Event().wait()
        yield {}


@pytest.fixture
def copies() -> Iterator[Callable[[Server], Cache]]:
    started: list[Cache] = []

    def start(server: Server) -> Cache:
        started.append(Cache(server, POD, lambda: None))  # type: ignore[arg-type]
        started[-1].start()
        return started[-1]

    yield start
    for one in started:
        one.stop()


def test_what_is_too_old_is_listed_at_once(monkeypatch: pytest.MonkeyPatch, copies: Callable[[Server], Cache]) -> None:
    monkeypatch.setattr(cache, "PAUSES", (LONG, 0.0))
    server = Server(Gone("too old", 410))
    copies(server)
    assert server.open.wait(120)
    assert server.lists == 2


def test_a_refusal_at_first_costs_no_long_pause(monkeypatch: pytest.MonkeyPatch, copies: Callable[[Server], Cache]) -> None:
    monkeypatch.setattr(cache, "PAUSES", (0.01, LONG))
    server = Server(TransientError("away"), Forbidden("no roles yet", 403), Forbidden("no roles yet", 403))
    copied = copies(server)
    assert server.open.wait(120)
    assert (copied.refused, [one["metadata"]["name"] for one in copied.objects()]) == (None, ["one"])


def test_what_is_always_too_old_is_listed_with_pauses(monkeypatch: pytest.MonkeyPatch, copies: Callable[[Server], Cache]) -> None:
    monkeypatch.setattr(cache, "PAUSES", (LONG, LONG))
    server = Server(*[Gone("too old", 410)] * 1000)
    assert copies(server).wait(120)
    assert not server.open.wait(1.0)
    assert server.lists == 1
