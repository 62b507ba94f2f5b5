"""Waiting that counts what happens, not seconds: machines differ in speed, not in what happens on them."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

SILENCE = 600.0
"""Seconds in which nothing at all has happened: then it never will. Kubernetes' own controllers wait up to a minute between two tries
to reach an API server that was away, and may need several."""
LOOK = 0.2

Seen = TypeVar("Seen")


def wait_for(
    look: Callable[[], Seen],
    done: Callable[[Seen], bool],
    *,
    moves: Callable[[Seen], object] = lambda seen: seen,
    told: Callable[[Seen], object] = lambda seen: seen,
    seconds: float = SILENCE,
) -> Seen:
    """Look until it is done; returns what was seen then. Fails where nothing that `moves` tells apart has changed for so long."""
    last, since = object(), time.monotonic()
    while not done(seen := look()):
        if (now := moves(seen)) != last:
            last, since = now, time.monotonic()
        assert time.monotonic() - since < seconds, f"nothing has happened for {seconds:.0f} s: {told(seen)}"
        time.sleep(LOOK)
    return seen
