"""Whether a refusal of the API server is to be believed."""

from __future__ import annotations

import time
from collections.abc import Callable

from dail_runtime.errors import DailError
from dailctl.kube.errors import ApiError

REFUSALS = 20.0
"""Seconds for which a refusal may pass."""


class Refusals:
    """How long the API server has refused something.

    After its start it knows neither roles nor webhooks for a moment, on a busy machine for minutes. What it refuses before it says
    that it is ready does not count.
    """

    def __init__(self, ready: Callable[[], bool], clock: Callable[[], float] = time.monotonic) -> None:
        self._ready, self._clock = ready, clock
        self._since: float | None = None

    def stay(self) -> bool:
        """Hear of one more; whether they have lasted for too long to pass by themselves."""
        if self._since is None or not self._ready():
            self._since = self._clock()
        return self._clock() - self._since > REFUSALS

    def judge(self, refused: DailError | None) -> None:
        """Raise what a copy of objects is refused with, where it lasts or is no word of the API server (a login that ended): whoever
        waits for the copy to change would wait for ever."""
        if refused is None:
            self.over()
        elif not isinstance(refused, ApiError) or self.stay():
            raise refused

    def over(self) -> None:
        """Hear that nothing is refused any more."""
        self._since = None
