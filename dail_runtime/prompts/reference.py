"""Whose solution a problem is shown: its own, or, as a control that must not help, another problem's."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Literal

from dail_runtime.errors import DataError
from dail_runtime.records import Problem


def references(problems: Sequence[Problem], which: Literal["own", "other"], seed: int) -> dict[str, Problem]:
    """Problem id -> the problem whose solution, answer and landmarks are shown with it.

    `other` puts all problems on one ring in a seeded order and gives each its neighbour, so that none keeps its own and each
    solution is used once. The ring depends on ids and seed alone, not on the order of `problems`; give the same problems in
    rewriting and in training.

    Raises:
        DataError: `other` with fewer than two problems.
    """
    if which == "own":
        return {problem.id: problem for problem in problems}
    if len(problems) < 2:
        raise DataError(f"reference: other needs at least two problems, and there are {len(problems)}; add problems, or use reference: own")
    ring = sorted(problems, key=lambda problem: hashlib.sha256(f"{seed}\n{problem.id}".encode()).digest())
    return {problem.id: other for problem, other in zip(ring, [*ring[1:], ring[0]], strict=True)}
