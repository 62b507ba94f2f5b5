"""Passes that all ranks make together: sharded weights are gathered layer by layer in each, by every rank or by none."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from dail_runtime.train.world import World


def rounds(world: World, own: int, *, together: bool, stop: Callable[[], bool] = lambda: False) -> Iterator[int | None]:
    """The numbers 0 .. own - 1 of this rank's passes; ends before the next one where `stop()` holds.

    With `together` all ranks make as many rounds as the busiest one has passes (None: nothing is left to do here, but the others
    need this rank's part of the weights), and end at the same round where `stop()` holds on any of them.
    """
    for number in range(world.most(own) if together else own):
        asked = stop()
        if world.any(asked) if together else asked:
            return
        yield number if number < own else None
