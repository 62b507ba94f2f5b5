"""From rows to problems: cells checked, and the rows of one problem brought together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from dail_runtime.data.columns import ABSENT, Recognised, cell_of
from dail_runtime.data.counts import Counts
from dail_runtime.data.rows import Row
from dail_runtime.data.texts import (
    CellError,
    answer_cell,
    answer_in,
    fingerprint,
    is_empty,
    short_cell,
    solution_cells,
    text_cell,
    tidy_solution,
)
from dail_runtime.records import Problem


@dataclass
class Draft:
    """A problem while its rows come in."""

    id: str | None
    problem: str
    solutions: list[str]
    answer: str | None
    hint: str | None


def draft_of(row: Row, found: Recognised, evaluation: str | None) -> Draft:
    """One row's problem.

    Raises:
        CellError: a cell is missing, empty or of the wrong type.
    """

    def cell(column: str | None, needed: bool) -> Any:
        if column is None:
            return None
        value = cell_of(row.value, column)
        if value is ABSENT and needed:
            raise CellError("missing_column", f"the row has no column {column!r}; add it, or check data.columns")
        return None if value is ABSENT else value

    problem = text_cell(cell(found.problem, True), found.problem)
    solutions: list[str] = []
    solution = cell(found.solution, evaluation is None)
    if found.solution is not None and (evaluation is None or not is_empty(solution)):
        solutions = solution_cells(solution, found.solution)
    given = cell(found.answer, False)
    answer = answer_cell(given, found.answer) if found.answer is not None and not is_empty(given) else None
    for text in solutions:
        answer = answer or answer_in(text)
    if evaluation is not None and answer is None:
        raise CellError("no_answer", "the problem has no answer, which an evaluation set needs; add it")
    hint = cell(found.hint, False)
    id_ = cell(found.id, found.id_needed)
    return Draft(
        id=short_cell(id_, found.id) if found.id is not None and (found.id_needed or not is_empty(id_)) else None,
        problem=problem,
        solutions=[] if evaluation is not None else [tidy_solution(text) for text in solutions],
        answer=answer,
        hint=text_cell(hint, found.hint) if found.hint is not None and not is_empty(hint) else None,
    )


class Collected:
    """Brings rows of one problem together."""

    def __init__(self, evaluation: str | None) -> None:
        self.evaluation = evaluation
        self._drafts: dict[tuple[str, str | None], Draft] = {}
        self._ids: dict[str, str] = {}

    def add(self, new: Draft, counts: Counts) -> None:
        """Take a row in.

        Raises:
            CellError: its id stands for another problem already, or its answer contradicts an earlier row's.
        """
        print_ = fingerprint(new.problem)
        if new.id is not None and self._ids.setdefault(new.id, print_) != print_:
            remedy = "give each problem its own id, or name another column in data.columns.id"
            raise CellError("duplicate_id", f"the id {new.id!r} stands for another problem already; {remedy}")
        # Two ids for one training problem would teach it twice, and could put one half into the held-out set.
        key = (print_, new.id if self.evaluation is not None else None)
        old = self._drafts.setdefault(key, new)
        if old is new:
            return
        if old.answer is not None and new.answer is not None and _differ(old.answer, new.answer):
            raise CellError("conflicting_answer", f"an earlier row answers the same problem with {old.answer!r}; correct one of the two")
        old.answer, old.hint = old.answer or new.answer, old.hint or new.hint
        seen = {fingerprint(one) for one in old.solutions}
        fresh = [one for one in dict.fromkeys(new.solutions) if fingerprint(one) not in seen]
        old.solutions += fresh
        if fresh:
            counts.merged += 1
        else:
            counts.duplicates += 1

    def problems(self) -> list[Problem]:
        """The problems, in order of their first rows."""
        return [
            Problem(
                id=draft.id if draft.id is not None else f"p-{print_[:16]}",
                problem=draft.problem,
                solutions=tuple(draft.solutions),
                answer=draft.answer,
                hint=draft.hint,
                set=self.evaluation or "",
            )
            for (print_, _), draft in self._drafts.items()
        ]


def _differ(one: str, other: str) -> bool:
    """Whether two answers certainly contradict each other: both plain numbers, and not the same one."""
    try:
        # Not `!=`: the answer nan is no other one than nan.
        return abs(float(one.replace(",", "")) - float(other.replace(",", ""))) > 0
    except ValueError:
        return False
