"""From a data file to problems, every bad row counted."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from dail_runtime.data.collect import Collected, draft_of
from dail_runtime.data.columns import Recognised, recognise
from dail_runtime.data.counts import Counts
from dail_runtime.data.rows import BadRow, Row, file_format, read_rows
from dail_runtime.data.texts import CellError
from dail_runtime.errors import DataError
from dail_runtime.records import Problem
from dail_runtime.spec.data import Columns, FileFormat
from dail_runtime.store import open_store

SAMPLE = 50
"""Rows looked at to recognise the columns."""
SHOWN = 5
"""Bad rows that an error names before it only counts."""


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
        collected = Collected(evaluation)
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


def _take(row: Row, found: Recognised | None, collected: Collected, counts: Counts) -> BadRow | None:
    if found is None:
        return BadRow(row.place, "missing_column", "the columns are not known, since the rows before are all bad; correct those")
    try:
        collected.add(draft_of(row, found, collected.evaluation), counts)
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
