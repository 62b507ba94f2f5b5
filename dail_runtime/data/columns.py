"""Which column is which: as the job file says, else by the names that public data sets use."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dail_runtime.errors import DataError
from dail_runtime.spec.data import Columns

KNOWN: dict[str, tuple[str, ...]] = {
    # e1-verifiable and e1-proof (the paper's own), MATH, OpenR1, NuminaMath
    "id": ("id", "problem_id", "unique_id", "uuid", "question_id", "task_id"),
    # MATH, AIME, e1 | s1K, LIMO, GSM8K, GPQA
    "problem": ("problem", "question", "problem_statement", "problem_text", "prompt", "query", "instruction"),
    "solution": ("solution", "solutions", "expert_solution", "expert_solutions", "reference_solution", "human_solution"),
    "answer": ("answer", "final_answer", "correct_answer", "expected_answer", "ground_truth", "gold_answer"),
    "hint": ("landmarks",),
}
"""Role -> names that stand for it, in any case, with '_', '-' or ' ' between words. Columns that models wrote (attempt,
response, deepseek_attempt, ...) are never taken for an expert's."""

ANSWER_MARK = re.compile(r"^####[ \t]*\S", re.MULTILINE)
"""GSM8K's way to end a solution with its answer."""


ABSENT = object()
"""What `cell_of` finds where nothing is."""


def cell_of(row: Mapping[str, Any], name: str) -> Any:
    """The value of the column `name`, or ABSENT.

    Where no column is called so, dots lead into objects and lists: `meta.solution.text`, `messages.1.content`.
    """
    if name in row:
        return row[name]
    value: Any = row
    for part in name.split("."):
        if isinstance(value, Mapping) and part in value:
            value = value[part]
        elif isinstance(value, Sequence) and not isinstance(value, str | bytes) and part.isdecimal() and int(part) < len(value):
            value = value[int(part)]
        else:
            return ABSENT
    return value


@dataclass(frozen=True)
class Recognised:
    """The column of each role; None: there is none."""

    id_needed: bool
    """Whether the job file names the id's column; a recognised one may be empty, and the id is then made from the text."""

    id: str | None
    problem: str
    solution: str | None
    answer: str | None
    hint: str | None


def recognise(sample: Sequence[dict[str, Any]], columns: Columns, *, shown: str, field: str, evaluation: bool) -> Recognised:
    """The columns of a file, from its first rows.

    Args:
        sample: rows; a column counts as there when one of them has it.
        columns: what the job file says; its names win.
        shown: the file's name, for messages.
        field: where the job file says so (`data.columns`), for messages.
        evaluation: an evaluation set needs answers, or solutions that end with them; training problems need solutions.

    Raises:
        DataError: a named column is not there, or none or several could be meant.
    """
    names = list(dict.fromkeys(name for row in sample for name in row))
    found: dict[str, str | None] = {}
    for role, name in columns.model_dump().items():
        if name is not None and all(cell_of(row, name) is ABSENT for row in sample):
            near = difflib.get_close_matches(name, names, 1)
            remedy = f"did you mean {near[0]}?" if near else f"its columns are: {', '.join(names)}"
            raise DataError(f"{shown}: {field}.{role} names the column {name!r}, which the file does not have; {remedy}")
        found[role] = name
    taken = {name for name in found.values() if name is not None}
    for role, known in KNOWN.items():
        if found[role] is None:
            found[role] = _by_name(role, known, [name for name in names if name not in taken], shown, field)
    if found["solution"] is None and not evaluation and _mostly_marked(sample, found["answer"]):
        found["solution"], found["answer"] = found["answer"], None
    if found["problem"] is None:
        raise DataError(_missing("problem's text", "problem", names, shown, field))
    if not evaluation and found["solution"] is None:
        raise DataError(_missing("expert's solution", "solution", names, shown, field))
    if evaluation and found["solution"] is None and found["answer"] is None:
        raise DataError(_missing("answer, which an evaluation set needs,", "answer", names, shown, field))
    return Recognised(columns.id is not None, found["id"], found["problem"], found["solution"], found["answer"], found["hint"])


def _by_name(role: str, known: tuple[str, ...], names: list[str], shown: str, field: str) -> str | None:
    plain = {name: re.sub(r"[\s\-]+", "_", name.strip().lower()) for name in names}
    candidates = [name for wanted in known for name in names if plain[name] == wanted]
    # Any of several ids does; any of several problems, solutions or answers may be the wrong one.
    if len(candidates) > 1 and role != "id":
        several = " and ".join(candidates)
        raise DataError(f"{shown}: the columns {several} could each be the {role}; say which, for example {field}.{role}: {candidates[0]}")
    return candidates[0] if candidates else None


def _missing(what: str, role: str, names: list[str], shown: str, field: str) -> str:
    return f"{shown}: no column for the {what} is recognised; the columns are: {', '.join(names)}; name one in {field}.{role}"


def _mostly_marked(sample: Sequence[dict[str, Any]], column: str | None) -> bool:
    values = [value for row in sample if column is not None and isinstance(value := cell_of(row, column), str) and value.strip()]
    marked = sum(1 for value in values if ANSWER_MARK.search(value))
    return bool(values) and marked * 2 > len(values)
