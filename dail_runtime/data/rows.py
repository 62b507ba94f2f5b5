"""Rows of a data file, one at a time, each with its place: JSON Lines, JSON and parquet. A bad row is told, never raised."""

from __future__ import annotations

import gzip
import json
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

from dail_runtime.errors import DataError, SetupError
from dail_runtime.spec.data import FileFormat

MAX_LINE = 8 * 1024 * 1024
"""Most bytes of one row; a longer line is skipped without being held in memory."""
MAX_JSON = 512 * 1024 * 1024
"""Most bytes of a .json file, which is read as a whole."""
WRAPPERS = ("data", "rows", "problems", "examples", "train")
"""Keys under which a JSON object may hold its list of rows."""
ENDINGS: dict[str, FileFormat] = {".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "json", ".parquet": "parquet"}
REMEDY = "save the file as UTF-8"


@dataclass(frozen=True)
class Row:
    """A row as it was written."""

    place: str
    """FILE:LINE, or `FILE row N` for parquet."""
    value: dict[str, Any]
    """Column -> value."""


@dataclass(frozen=True)
class BadRow:
    """A row that cannot be used."""

    place: str
    """As in `Row`."""
    reason: str
    """Short key for counting: not_json, not_utf8, too_long, not_an_object, empty_field, ..."""
    sentence: str
    """What is wrong, and the remedy."""

    def __str__(self) -> str:
        return f"{self.place}: {self.sentence}"


def file_format(name: str, wanted: FileFormat) -> FileFormat:
    """The format of a file: as the job says, else by its ending (`.gz` aside).

    Raises:
        DataError: the ending says nothing.
    """
    if wanted != "auto":
        return wanted
    suffix = Path(name.lower().removesuffix(".gz")).suffix
    if suffix in ENDINGS:
        return ENDINGS[suffix]
    known = ", ".join(ENDINGS)
    raise DataError(f"{name}: the ending {suffix or '(none)'} is none of {known}; convert the file, or name its format in data.format")


def read_rows(path: Path, shown: str, kind: FileFormat) -> Iterator[Row | BadRow]:
    """The rows of the local file `path`, called `shown` in messages; `.gz` is unpacked on the way.

    Raises:
        DataError: the file as a whole cannot be read.
    """
    if kind == "parquet":
        yield from _parquet(path, shown)
        return
    try:
        with path.open("rb") as raw:
            file: IO[bytes] = cast("IO[bytes]", gzip.GzipFile(fileobj=raw)) if shown.lower().endswith(".gz") else raw
            yield from (_json if kind == "json" else _json_lines)(file, shown)
    except (gzip.BadGzipFile, EOFError, zlib.error):
        raise DataError(f"{shown}: the gzip file is damaged or cut off; copy it again") from None
    except OSError as err:
        raise DataError(f"{shown}: cannot be read ({err.strerror or err}); check that it is a file and its permissions") from None


def _json_lines(file: IO[bytes], shown: str) -> Iterator[Row | BadRow]:
    for number, line in _lines(file):
        place = f"{shown}:{number}"
        if line is None:
            yield BadRow(place, "too_long", f"the line has more than {MAX_LINE >> 20} MiB; cut it, or check that rows end with line breaks")
            continue
        try:
            text = line.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as err:
            yield BadRow(place, "not_utf8", f"the byte 0x{line[err.start]:02X} at column {err.start + 1} is not UTF-8; {REMEDY}")
            continue
        if not text.strip():
            continue
        try:
            value = json.loads(text)
        except (ValueError, RecursionError) as err:
            yield BadRow(place, "not_json", _fault(err, text))
            continue
        yield _row(place, value, text)


def _lines(file: IO[bytes]) -> Iterator[tuple[int, bytes | None]]:
    """Line number and line; None for a line over the limit, of which only pieces are ever read."""
    number = 0
    while line := file.readline(MAX_LINE + 1):
        number += 1
        if len(line) > MAX_LINE:
            while line and not line.endswith(b"\n"):
                line = file.readline(1 << 20)
            yield number, None
        else:
            yield number, line


def _fault(err: Exception, text: str) -> str:
    if not isinstance(err, json.JSONDecodeError):
        return "nested too deeply, or a number too long, to be a row; check the line"
    if err.pos >= len(text.rstrip()) or err.msg.startswith("Unterminated string"):
        return "the JSON breaks off before its end; check whether the file was cut off"
    if err.msg == "Extra data":
        return f"more than one JSON value on the line (column {err.colno}); put each row on a line of its own"
    return f"not JSON ({err.msg.lower()} at column {err.colno}); correct the line"


HALF_PAIR = re.compile(r"[\ud800-\udfff]")
ESCAPED_HALF = re.compile(r"\\u[dD][89a-fA-F]")


def _row(place: str, value: Any, text: str) -> Row | BadRow:
    if not isinstance(value, dict):
        return BadRow(place, "not_an_object", f"the row is {_kind(value)}, not an object of columns; write it as {{...}}")
    # Half a \u pair is fine JSON but no text, and nothing later could write it. Rare, so the search runs where one may be.
    if (ESCAPED_HALF.search(text) or HALF_PAIR.search(text)) and HALF_PAIR.search(json.dumps(value, ensure_ascii=False)):
        return BadRow(place, "not_utf8", f"the row holds bytes that are not UTF-8, or half a \\u pair; {REMEDY}")
    return Row(place, value)


def _kind(value: Any) -> str:
    if value is None:
        return "null"
    kinds = {str: "a text", list: "a list", bool: "true or false", int: "a number", float: "a number"}
    return kinds.get(type(value), type(value).__name__)


def _json(file: IO[bytes], shown: str) -> Iterator[Row | BadRow]:
    data = file.read(MAX_JSON + 1)
    if len(data) > MAX_JSON:
        raise DataError(f"{shown}: larger than {MAX_JSON >> 20} MiB, and JSON is read as a whole; save it as JSON Lines (.jsonl)")
    # Bytes that are no UTF-8 stay visible as half pairs, so that only their own rows are bad.
    text = data.decode("utf-8-sig", "surrogateescape")
    decoder = json.JSONDecoder()
    position = _array_start(text, shown, decoder)
    alone = not text[: position - 1].strip()
    line, counted = text.count("\n", 0, position) + 1, position
    while True:
        position = _after_space(text, position)
        if text[position : position + 1] == "]":
            break
        line, counted = line + text.count("\n", counted, position), position
        place = f"{shown}:{line}"
        try:
            value, end = decoder.raw_decode(text, position)
        except (ValueError, RecursionError) as err:
            yield BadRow(place, "not_json", f"{_fault(err, text)}; this row and those after it cannot be read")
            return
        if end - position > MAX_LINE:
            yield BadRow(place, "too_long", f"the row has more than {MAX_LINE >> 20} MiB; cut it")
        else:
            yield _row(place, value, text[position:end])
        position = _after_space(text, end)
        if text[position : position + 1] == ",":
            position += 1
        elif text[position : position + 1] != "]":
            cut = position >= len(text)
            what = "the list of rows has no end; check whether the file was cut off" if cut else "no comma after this row; correct it"
            yield BadRow(place, "not_json", what)
            return
    behind = _after_space(text, position + 1)
    if alone and text[behind:]:
        place = f"{shown}:{text.count(chr(10), 0, behind) + 1}"
        yield BadRow(place, "not_json", "more follows after the list of rows; put all rows into one list")


def _array_start(text: str, shown: str, decoder: json.JSONDecoder) -> int:
    """Position after the '[' of the list of rows: the file's own, or that under one of WRAPPERS."""
    position = _after_space(text, 0)
    if not text[position:]:
        raise DataError(f"{shown}: the file is empty; it should hold a list of rows")
    if text[position] == "[":
        return position + 1
    if HALF_PAIR.match(text, position):
        raise DataError(f"{shown}:1: the file is not UTF-8; {REMEDY}")
    wanted = f"a list of rows, or an object with such a list under {WRAPPERS[0]!r}"
    if text[position] != "{":
        raise DataError(f"{shown}:1: the file does not hold {wanted}; correct it")
    try:
        first = decoder.raw_decode(text, position)
        if text[_after_space(text, first[1]) :][:1]:
            lines = "\n" not in text[position : first[1]]
            remedy = "so it is JSON Lines; write data.format: jsonl" if lines else "each over several lines; put them into one list"
            raise DataError(f"{shown}: the file holds several JSON values, {remedy}")
        if not any(key in WRAPPERS and isinstance(value, list) for key, value in first[0].items()):
            raise DataError(f"{shown}: the file does not hold {wanted}; its keys are: {', '.join(first[0]) or '(none)'}")
        position += 1
        while True:
            key, position = decoder.raw_decode(text, _after_space(text, position))
            position = _after_space(text, _after_space(text, position) + 1)
            if key in WRAPPERS and text[position] == "[":
                return position + 1
            _, position = decoder.raw_decode(text, position)
            position = _after_space(text, position) + 1
    except (ValueError, RecursionError) as err:
        line = text.count("\n", 0, err.pos) + 1 if isinstance(err, json.JSONDecodeError) else 1
        raise DataError(f"{shown}:{line}: {_fault(err, text)}") from None


SPACE = re.compile(r"[ \t\r\n]*")


def _after_space(text: str, position: int) -> int:
    found = SPACE.match(text, position)
    return found.end() if found else position


def _parquet(path: Path, shown: str) -> Iterator[Row | BadRow]:
    try:
        import pyarrow as arrow
        import pyarrow.parquet as parquet
    except ImportError:
        raise SetupError(f"{shown}: parquet needs pyarrow; install it with: pip install 'dail[runtime]'") from None
    number = 0
    try:
        with parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=64):
                names = batch.schema.names
                for index in range(batch.num_rows):
                    number += 1
                    place = f"{shown} row {number}"
                    try:
                        yield Row(place, {name: _cell(column[index]) for name, column in zip(names, batch.columns, strict=True)})
                    except UnicodeDecodeError:
                        yield BadRow(place, "not_utf8", f"the row holds bytes that are not UTF-8; {REMEDY}")
    except (arrow.ArrowException, OSError) as err:
        what = str(err).splitlines()[0].rstrip(".")
        raise DataError(f"{shown}: cannot be read as parquet ({what}); check that it is a whole parquet file") from None


def _cell(scalar: Any) -> Any:
    """The value of a parquet cell; the cell itself where Python has no value for it, such as a time in nanoseconds."""
    if scalar.is_valid and str(scalar.type) == "float":
        # As its 32 bits are written: read as 64 bits, an answer of 0.1 would be 0.10000000149011612.
        return float(scalar.cast("string").as_py())
    try:
        return scalar.as_py()
    except UnicodeDecodeError:
        raise
    except (ValueError, OverflowError):
        return scalar
