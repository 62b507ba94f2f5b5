"""How slow this machine is, so that limits in seconds mean the same on all: they are written for one that has time."""

from __future__ import annotations

import time
from collections.abc import Callable

REFERENCE = 0.06
"""Seconds that a machine which has time needs for `_piece`, amply."""


def slowness(clock: Callable[[], float] = time.monotonic) -> float:
    """How many times slower this machine is at this moment than the limits are written for; 1.0 where it is not.

    `clock`: of the wall, which counts what else the machine does; time.process_time counts the processor alone.
    """
    begin = clock()
    _piece()
    return max(1.0, (clock() - begin) / REFERENCE)


def assert_takes_less(seconds: float, work: Callable[[], object]) -> None:
    """Fail where `work` never takes less, times the slowness around it: what it costs, not what else the machine does meanwhile."""
    took = []
    for _ in range(3):
        before, begin = slowness(), time.monotonic()
        work()
        took.append((time.monotonic() - begin) / max(before, slowness()))
        if took[-1] < seconds:
            return
    raise AssertionError(f"it takes more than {seconds} s: {', '.join(f'{one:.1f}' for one in took)}")


def _piece() -> int:
    """Some work of a fixed size."""
    total = 0
    for number in range(1_000_000):
        total += number * number
    return total
