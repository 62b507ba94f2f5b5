"""The API server's time, as its answers tell it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from dailctl.kube import clock as subject
from dailctl.kube.clock import ServerClock

START = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


@pytest.fixture
def gone(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Seconds gone by, to be set."""
    seconds = [100.0]
    monkeypatch.setattr(subject.time, "monotonic", lambda: seconds[0])
    return seconds


def date(seconds: float) -> str:
    return format_datetime((START + timedelta(seconds=seconds)).replace(microsecond=0), usegmt=True)


def test_it_is_the_servers_time_whatever_this_machine_has(gone: list[float]) -> None:
    clock = ServerClock()
    clock.hear(date(0))
    gone[0] += 61.5
    assert clock.now() == START + timedelta(seconds=61.5)


def test_answers_of_the_same_second_do_not_set_it_back(gone: list[float]) -> None:
    clock, told = ServerClock(), []
    for late in (0.4, 0.9, 1.1, 1.8, 2.0, 2.7):
        gone[0] = 100 + late
        clock.hear(date(late))
        told.append((clock.now() - START).total_seconds())
    assert told == sorted(told)
    assert all(late - 1 < at <= late + 1e-6 for at, late in zip(told, (0.4, 0.9, 1.1, 1.8, 2.0, 2.7), strict=True))


@pytest.mark.usefixtures("gone")
def test_a_server_whose_clock_was_set_is_followed() -> None:
    clock = ServerClock()
    clock.hear(date(0))
    clock.hear(date(-600))
    assert abs((clock.now() - START).total_seconds() + 600) <= 1


@pytest.mark.parametrize("nothing", [None, "", "yesterday"])
def test_without_a_date_it_is_this_machines_time(nothing: str | None) -> None:
    clock = ServerClock()
    clock.hear(nothing)
    assert abs(clock.now() - datetime.now(UTC)) < timedelta(seconds=5)
