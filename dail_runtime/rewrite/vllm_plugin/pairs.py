"""The pairs that a scheduler knows: which half belongs to which, which pairs are whole, and who waits for a mate."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from dail_runtime.rewrite.vllm_plugin.requests import Row

if TYPE_CHECKING:
    from vllm.v1.request import Request

ORDER = ("student", "teacher")


@dataclass(eq=False)
class Pair:
    """Two requests that decode in lockstep."""

    name: str
    since: float
    """When its first half arrived (monotonic seconds)."""
    wait: float
    """Seconds that half waits for the other."""
    halves: dict[str, Request] = field(default_factory=dict)
    """By role."""

    @property
    def whole(self) -> bool:
        """Both halves are here."""
        return len(self.halves) == len(ORDER)

    def members(self) -> list[Request]:
        """The halves that are here, the student first."""
        return [self.halves[role] for role in ORDER if role in self.halves]

    def mate(self, request: Request) -> Request | None:
        """The other half."""
        return next((half for half in self.halves.values() if half is not request), None)


class Pairs:
    """All pairs with at least one half in the scheduler."""

    def __init__(self) -> None:
        self._by_name: dict[str, Pair] = {}
        self._by_request: dict[str, Pair] = {}

    def __bool__(self) -> bool:
        return bool(self._by_name)

    def __iter__(self) -> Iterator[Pair]:
        return iter(self._by_name.values())

    def of(self, request_id: str) -> Pair | None:
        """The pair of a request; None for plain and single ones."""
        return self._by_request.get(request_id)

    def add(self, request: Request, row: Row, now: float) -> Pair | None:
        """Register a half; None where its place is taken."""
        pair = self._by_name.setdefault(row.pair, Pair(row.pair, now, row.wait))
        if row.role in pair.halves:
            return None
        pair.halves[row.role] = request
        self._by_request[request.request_id] = pair
        return pair

    def remove(self, request_id: str) -> Request | None:
        """Forget the pair of a finished half; returns the mate that it leaves behind."""
        pair = self._by_request.get(request_id)
        if pair is None:
            return None
        del self._by_name[pair.name]
        mate = None
        for half in pair.halves.values():
            del self._by_request[half.request_id]
            mate = mate if half.request_id == request_id else half
        return mate
