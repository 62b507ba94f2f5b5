"""The held-out set: the evaluation problems of a job that names none."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from dail_runtime.data.texts import fingerprint
from dail_runtime.errors import DataError
from dail_runtime.records import Problem

HELDOUT = "heldout"
SHARE = 10
"""One in so many problems is held out."""


def hold_out(problems: Sequence[Problem], seed: int) -> tuple[list[Problem], list[Problem]]:
    """Training problems, and a seeded tenth (at least one) of those with an answer as the set `heldout`.

    A problem's place depends on its text and the seed alone: neither the order of the rows nor their ids move it.

    Raises:
        DataError: no problem has an answer, or none would be left to train on.
    """

    def rank(problem: Problem) -> str:
        return hashlib.sha256(f"{seed} {fingerprint(problem.problem)}".encode()).hexdigest()

    able = sorted((one for one in problems if one.answer is not None), key=rank)
    remedy = "name a file of problems with answers in data.evaluation"
    if not able:
        raise DataError(f"data.evaluation is empty and no problem of the solutions file has an answer to measure with; {remedy}")
    if len(problems) < 2:
        raise DataError(f"data.evaluation is empty and the solutions file has one problem, so that none could be held out; {remedy}")
    chosen = {one.id for one in able[: max(1, len(problems) // SHARE)]}
    held = [one.model_copy(update={"set": HELDOUT, "solutions": (), "hint": None}) for one in problems if one.id in chosen]
    training = [one for one in problems if one.id not in chosen]
    if not training:
        raise DataError(f"data.evaluation is empty and holding out leaves nothing to train on; {remedy}")
    return training, held
