"""From a data file to problems: rows read, checked, several solutions of one problem brought together, every bad row counted."""

from __future__ import annotations

import itertools
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from dail_runtime.data.columns import Recognised, recognise
from dail_runtime.data.rows import BadRow, Row, file_format, read_rows
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
from dail_runtime.errors import DataError
from dail_runtime.records import Problem
from dail_runtime.spec.data import Columns, FileFormat
from dail_runtime.store import open_store

SAMPLE = 50
"""Rows looked at to recognise the columns."""
SHOWN = 5
"""Bad rows that an error names before it only counts."""
KEPT_BAD = 1000
"""Bad rows kept with their sentence; the rest is counted."""


@dataclass
class Counts:
    """What became of a file's rows."""

    rows: int = 0
    """Rows read, bad ones included."""
    problems: int = 0
    """Problems made of them."""
    solutions: int = 0
    """Expert solutions of these problems."""
    merged: int = 0
    """Rows that gave a problem another solution."""
    duplicates: int = 0
    """Rows that said nothing new."""
    dropped: Counter[str] = field(default_factory=Counter)
    """Reason -> bad rows."""
    bad: list[BadRow] = field(default_factory=list)
    """The first bad rows, with place and sentence."""

    def drop(self, row: BadRow) -> None:
        """Count a bad row."""
        self.dropped[row.reason] += 1
        if len(self.bad) < KEPT_BAD:
            self.bad.append(row)

    def numbers(self) -> dict[str, Any]:
        """The counts for a manifest."""
        own = {name: getattr(self, name) for name in ("rows", "problems", "solutions", "merged", "duplicates")}
        return {**own, "dropped": dict(sorted(self.dropped.items()))}


def read_problems(
    uri: str,
    format: FileFormat = "auto",
    columns: Columns | None = None,
    on_bad_row: Literal["stop", "skip"] = "stop",
    *,
    field: str = "data",
    evaluation: str | None = None,
    limit: int | None = None,
    endpoint: str | None = None,
    region: str | None = None,
) -> tuple[list[Problem], Counts]:
    """The problems of a file, in its order.

    Training problems need a solution; rows with the same problem are one problem with several solutions. Evaluation
    problems (`evaluation` is the set's name) need an answer and stay apart where their ids differ; their solutions only
    serve to find the answer. Problems without an id get one made from their text, so it does not depend on the order.

    Args:
        uri: path or s3:// address.
        format: `auto` goes by the ending.
        columns: names of the columns; what is None is recognised.
        on_bad_row: `stop` raises, `skip` counts and goes on.
        field: the job file's section, for messages: `data` or `data.evaluation.0`.
        evaluation: name of the evaluation set; None: training problems.
        limit: stop after so many good rows.
        endpoint, region: for s3:// addresses.

    Raises:
        DataError: the file cannot be read, its columns are not clear, or a row is bad (`stop`), or all are.
    """
    counts = Counts()
    with _local(uri, field, endpoint, region) as path:
        stream = read_rows(path, uri, file_format(uri, format))
        head: list[Row | BadRow] = []
        good: list[dict[str, Any]] = []
        for one in stream:
            head.append(one)
            if isinstance(one, Row):
                good.append(one.value)
            if len(good) == SAMPLE:
                break
        if not head:
            raise DataError(f"{uri}: the file has no rows; check the path")
        collected = _Collected(evaluation)
        found = (
            recognise(good, columns or Columns(), shown=uri, field=f"{field}.columns", evaluation=evaluation is not None) if good else None
        )
        for one in itertools.chain(head, stream):
            counts.rows += 1
            # Without a single good row in the head, no column is known; what follows is counted only.
            bad = one if isinstance(one, BadRow) else _take(one, found, collected, counts)
            if bad is not None:
                counts.drop(bad)
            if limit is not None and counts.rows - counts.dropped.total() >= limit:
                break
    problems = collected.problems()
    counts.problems, counts.solutions = len(problems), sum(len(one.solutions) for one in problems)
    if counts.dropped and (on_bad_row == "stop" or not problems):
        raise DataError(_told(counts, uri, stopped=bool(problems)))
    return problems, counts


def _take(row: Row, found: Recognised | None, collected: _Collected, counts: Counts) -> BadRow | None:
    if found is None:
        return BadRow(row.place, "missing_column", "the columns are not known, since the rows before are all bad; correct those")
    try:
        collected.add(_draft(row, found, collected.evaluation), counts)
    except CellError as err:
        return BadRow(row.place, err.reason, str(err))
    return None


def _told(counts: Counts, uri: str, stopped: bool) -> str:
    lines = [str(one) for one in counts.bad[:SHOWN]]
    total = counts.dropped.total()
    reasons = ", ".join(f"{n} {reason}" for reason, n in counts.dropped.most_common())
    remedy = "correct them, or set data.onBadRow: skip to go on without them" if stopped else "no good row is left; correct them"
    return "\n".join([*lines, f"{uri}: {total} of {counts.rows} rows are bad ({reasons}); {remedy}"])


@contextmanager
def _local(uri: str, field: str, endpoint: str | None, region: str | None) -> Iterator[Path]:
    """The file on this machine; s3:// objects are fetched to a temporary file."""
    if uri.startswith("s3://"):
        folder, _, name = uri.rpartition("/")
        with tempfile.TemporaryDirectory() as temporary:
            path = Path(temporary) / "data"
            try:
                open_store(folder, endpoint=endpoint, region=region).get_file(name, path)
            except KeyError:
                raise DataError(f"{field}: {uri}: there is no such object; check the path") from None
            yield path
        return
    path = Path(uri)
    if not path.exists():
        raise DataError(f"{field}: {uri}: there is no such file; check the path (it counts from the job file's folder)")
    if path.is_dir():
        raise DataError(f"{field}: {uri}: this is a folder; name the file in it")
    yield path


@dataclass
class _Draft:
    """A problem while its rows come in."""

    id: str | None
    problem: str
    solutions: list[str]
    answer: str | None
    hint: str | None


def _draft(row: Row, found: Recognised, evaluation: str | None) -> _Draft:
    """One row's problem.

    Raises:
        CellError: a cell is missing, empty or of the wrong type.
    """

    def cell(column: str | None, needed: bool) -> Any:
        if column is None:
            return None
        if column not in row.value and needed:
            raise CellError("missing_column", f"the row has no column {column!r}; add it, or check data.columns")
        return row.value.get(column)

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
    return _Draft(
        id=short_cell(id_, found.id) if found.id is not None and (found.id_needed or not is_empty(id_)) else None,
        problem=problem,
        solutions=[] if evaluation is not None else [tidy_solution(text) for text in solutions],
        answer=answer,
        hint=text_cell(hint, found.hint) if found.hint is not None and not is_empty(hint) else None,
    )


class _Collected:
    """Brings rows of one problem together."""

    def __init__(self, evaluation: str | None) -> None:
        self.evaluation = evaluation
        self._drafts: dict[tuple[str, str | None], _Draft] = {}
        self._ids: dict[str, str] = {}

    def add(self, new: _Draft, counts: Counts) -> None:
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
        return float(one.replace(",", "")) != float(other.replace(",", ""))
    except ValueError:
        return False
