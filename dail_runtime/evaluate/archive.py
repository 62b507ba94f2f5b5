"""What is kept of each problem: its answers in full and their grades. An evaluation that starts again goes on from here."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from dail_runtime.evaluate.records import RESPONSES, RESULTS, ProblemResult
from dail_runtime.records import Problem, Rollout
from dail_runtime.store import Store, safe_key

_AT_ONCE = 16


@dataclass(frozen=True)
class Item:
    """A problem to measure on."""

    problem: Problem
    """With its evaluation set."""
    answer: str
    """The known answer."""
    prompt: tuple[int, ...]
    """The student's prompt."""

    @property
    def name(self) -> str:
        """`set/id`."""
        return f"{self.problem.set}/{self.problem.id}"

    @property
    def key(self) -> str:
        """Name of its objects."""
        return f"{safe_key(self.name)}.json"


class Archive:
    """The stored answers and results of one evaluated model. The answers of a problem are always stored before their grades."""

    def __init__(self, out: Store) -> None:
        self._out = out
        self._results: dict[str, ProblemResult] = {}

    def recall(self, items: Sequence[Item]) -> list[Item]:
        """Read the results that `items` have; returns the items whose answers are stored and not graded."""
        graded, answered = self._keys(RESULTS), self._keys(RESPONSES)
        known = [item for item in items if item.key in graded]
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            for item, data in zip(known, pool.map(lambda item: self._out.get(RESULTS + item.key), known), strict=True):
                self._results[item.name] = ProblemResult.model_validate_json(data)
        return [item for item in items if item.key in answered - graded]

    def result(self, item: Item) -> ProblemResult | None:
        """The result of `item`, or None where it has none yet."""
        return self._results.get(item.name)

    def results(self, items: Iterable[Item]) -> list[ProblemResult]:
        """The results of `items`, all of which must have one."""
        return [self._results[item.name] for item in items]

    def rollout(self, item: Item) -> Rollout:
        """The answers of `item` in full."""
        return Rollout.model_validate_json(self._out.get(RESPONSES + item.key))

    def keep_rollout(self, item: Item, rollout: Rollout) -> None:
        """Store the answers of `item`."""
        self._out.put(RESPONSES + item.key, rollout.model_dump_json().encode())

    def keep(self, item: Item, result: ProblemResult) -> None:
        """Store the result of `item`, replacing an earlier one."""
        self._out.put(RESULTS + item.key, result.model_dump_json().encode())
        self._results[item.name] = result

    def _keys(self, prefix: str) -> set[str]:
        return {info.key.removeprefix(prefix) for info in self._out.list(prefix)}
