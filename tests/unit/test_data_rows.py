"""Reading rows: every layout, and every way a row can be broken, told with file and line."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dail_runtime.data import rows
from dail_runtime.data.rows import BadRow, Row, file_format, read_rows
from dail_runtime.errors import DataError

GOOD = {"problem": "a", "solution": "b"}


def read(folder: Path, content: bytes | str, name: str = "x.jsonl") -> list[Row | BadRow]:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return list(read_rows(path, name, file_format(name, "auto")))


def faults(found: list[Row | BadRow]) -> list[tuple[str, str]]:
    return [(one.place, one.reason) for one in found if isinstance(one, BadRow)]


def test_lines_become_rows_whatever_ends_them(tmp_path: Path) -> None:
    line = json.dumps(GOOD)
    found = read(tmp_path, f"\ufeff{line}\r\n\n  \n{line}\n{line}\n\n\n")
    assert [one.place for one in found] == ["x.jsonl:1", "x.jsonl:4", "x.jsonl:5"]
    assert all(isinstance(one, Row) and one.value == GOOD for one in found)


def test_line_separators_inside_a_text_do_not_end_a_row(tmp_path: Path) -> None:
    row = {"problem": "a\u2028b\x85c\x0bd", "solution": "s"}
    assert read(tmp_path, json.dumps(row, ensure_ascii=False) + "\n") == [Row("x.jsonl:1", row)]


@pytest.mark.parametrize(
    ("line", "reason", "said"),
    [
        (b"{not json}", "not_json", "not JSON"),
        (b'{"problem": "a", "solu', "not_json", "the JSON breaks off before its end"),
        (b'{"problem": "a"', "not_json", "the JSON breaks off before its end"),
        (b'{"a": 1} {"b": 2}', "not_json", "more than one JSON value on the line (column 10)"),
        (b"[" * 100_000, "not_json", "nested too deeply"),
        (b'{"a": ' + b"1" * 5000 + b"}", "not_json", "a number too long"),
        (b'{"problem": "\xff\xfe"}', "not_utf8", "the byte 0xFF at column 14 is not UTF-8"),
        (b'{"problem": "\\ud83d"}', "not_utf8", "half a \\u pair"),
        (b'["a", "b"]', "not_an_object", "the row is a list, not an object"),
        (b'"text"', "not_an_object", "the row is a text"),
        (b"null", "not_an_object", "the row is null"),
        (b"72", "not_an_object", "the row is a number"),
        (b"\x00", "not_json", "not JSON"),
    ],
)
def test_a_broken_line_is_told_and_the_rest_is_read(tmp_path: Path, line: bytes, reason: str, said: str) -> None:
    good = json.dumps(GOOD).encode()
    first, bad, last = read(tmp_path, good + b"\n" + line + b"\n" + good)
    assert isinstance(first, Row)
    assert isinstance(last, Row)
    assert isinstance(bad, BadRow)
    assert (bad.place, bad.reason) == ("x.jsonl:2", reason)
    assert said in bad.sentence


def test_escaped_characters_beyond_16_bits_are_text(tmp_path: Path) -> None:
    assert read(tmp_path, '{"problem": "\\ud83d\\ude00"}') == [Row("x.jsonl:1", {"problem": "\U0001f600"})]


def test_a_line_of_10_mb_is_skipped_without_being_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.jsonl"
    good = json.dumps(GOOD).encode() + b"\n"
    path.write_bytes(good + b'{"problem": "' + b"x" * 10_000_000 + b'"}\n' + good + b"y" * 9_000_000)
    largest = 0

    class Watched:
        def __init__(self, file: Any) -> None:
            self.file = file

        def readline(self, limit: int) -> bytes:
            nonlocal largest
            line: bytes = self.file.readline(limit)
            largest = max(largest, len(line))
            return line

    whole = rows._lines
    monkeypatch.setattr(rows, "_lines", lambda file: whole(Watched(file)))  # type: ignore[arg-type]
    found = list(read_rows(path, "x.jsonl", "jsonl"))
    assert faults(found) == [("x.jsonl:2", "too_long"), ("x.jsonl:4", "too_long")]
    assert isinstance(found[2], Row)
    assert largest <= rows.MAX_LINE + 1


def test_a_row_just_under_the_limit_is_read(tmp_path: Path) -> None:
    line = b'{"problem": "' + b"x" * (rows.MAX_LINE - 16) + b'"}\n'
    assert len(line) == rows.MAX_LINE
    assert isinstance(read(tmp_path, line)[0], Row)
    assert faults(read(tmp_path, line[:-3] + b'xx"}\n')) == [("x.jsonl:1", "too_long")]


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ('[{"a": 1}, {"a": 2}]', [1, 1]),
        ('[\n  {"a": 1},\n  {"a":\n 2}\n]\n', [2, 3]),
        ('{"data": [\n{"a": 1},\n{"a": 2}]}', [2, 3]),
        ('{"version": {"x": [1, 2]}, "n": "data",\n "rows": [{"a": 1},\n{"a": 2}], "z": 0}', [2, 3]),
        ("[]", []),
        ("\ufeff[ ]", []),
    ],
)
def test_json_lists_become_rows_with_their_lines(tmp_path: Path, text: str, lines: list[int]) -> None:
    found = read(tmp_path, text, "x.json")
    assert [one.place for one in found] == [f"x.json:{line}" for line in lines]
    assert [one.value for one in found if isinstance(one, Row)] == [{"a": 1}, {"a": 2}][: len(lines)]


@pytest.mark.parametrize(
    ("text", "place", "reason"),
    [
        (b'[{"a": 1},\n 7,\n {"a": 2}]', "x.json:2", "not_an_object"),
        (b'[{"a": 1},\n {"a": "\xff"},\n {"a": 2}]', "x.json:2", "not_utf8"),
        (b'[{"a": 1},\n {"a": 2', "x.json:2", "not_json"),
        (b'[{"a": 1}\n', "x.json:1", "not_json"),
        (b'[{"a": 1},\n {"a": 1} {"a": 2}]', "x.json:2", "not_json"),
        (b'[{"a": 1},\n ' + b"[" * 100_000, "x.json:2", "not_json"),
        (b'[{"a": 1}]\n[{"a": 2}]', "x.json:2", "not_json"),
    ],
)
def test_a_broken_row_of_a_json_file_is_told_with_its_line(tmp_path: Path, text: bytes, place: str, reason: str) -> None:
    assert faults(read(tmp_path, text, "x.json")) == [(place, reason)]


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("x.json", b"", "x.json: the file is empty"),
        ("x.json", b"17", "x.json:1: the file does not hold a list of rows"),
        ("x.json", b'{"a": [1]}', "its keys are: a"),
        ("x.json", b"{}", "its keys are: (none)"),
        ("x.json", '[{"a": 1}]'.encode("utf-16"), "x.json:1: the file is not UTF-8"),
        ("x.json", b'{"a": 1}\n{"a": 2}\n', "it is JSON Lines; write data.format: jsonl"),
        ("x.json", b'{"a": \n', "x.json:2: the JSON breaks off"),
        ("x.csv", b"a,b\n", "x.csv: the ending .csv is none of .jsonl, .ndjson, .json, .parquet"),
        ("x", b"a,b\n", "x: the ending (none) is none of"),
        ("x.parquet", b"PAR1 not really", "x.parquet: cannot be read as parquet"),
        ("x.parquet", b"", "x.parquet: cannot be read as parquet"),
        ("x.jsonl.gz", b"not gzip", "x.jsonl.gz: the gzip file is damaged or cut off"),
        ("x.jsonl.gz", gzip.compress(b'{"a": 1}\n' * 1000, mtime=0)[:-10], "x.jsonl.gz: the gzip file is damaged or cut off"),
    ],
)
def test_a_file_that_cannot_be_read_at_all_is_an_error(tmp_path: Path, name: str, content: bytes, said: str) -> None:
    with pytest.raises(DataError) as caught:
        read(tmp_path, content, name)
    assert said in str(caught.value)


def test_gzip_files_are_unpacked_on_the_way(tmp_path: Path) -> None:
    for name in ("x.jsonl.gz", "X.JSONL.GZ"):
        assert read(tmp_path, gzip.compress(json.dumps(GOOD).encode()), name) == [Row(f"{name}:1", GOOD)]


def test_the_jobs_format_goes_before_the_ending() -> None:
    assert file_format("x.txt", "jsonl") == "jsonl"
    assert [file_format(f"a/X.{ending}", "auto") for ending in ("JSONL", "ndjson", "json.gz", "parquet")] == [
        *("jsonl", "jsonl", "json", "parquet")
    ]


def test_parquet_rows_keep_lists_and_missing_values(tmp_path: Path) -> None:
    table = pa.table({"problem": ["a", None], "solutions": [["x", "y"], []], "answer": [1.0, float("nan")]})
    pq.write_table(table, tmp_path / "x.parquet")
    found = list(read_rows(tmp_path / "x.parquet", "x.parquet", "parquet"))
    assert [one.place for one in found] == ["x.parquet row 1", "x.parquet row 2"]
    assert isinstance(found[0], Row)
    assert found[0].value == {"problem": "a", "solutions": ["x", "y"], "answer": 1.0}


def test_cells_of_parquet_that_python_has_no_value_for_spoil_nothing(tmp_path: Path) -> None:
    late, odd = pa.array([1, 2**60], pa.timestamp("ms")), pa.array([1, 2], pa.timestamp("s", tz="Mars/Base"))
    table = pa.table({"problem": ["a", "b"], "at": pa.array([1, 2], pa.timestamp("ns")), "late": late, "odd": odd})
    pq.write_table(table, tmp_path / "x.parquet")
    found = list(read_rows(tmp_path / "x.parquet", "x.parquet", "parquet"))
    assert [one.value["problem"] for one in found if isinstance(one, Row)] == ["a", "b"]


def test_numbers_of_32_bits_in_parquet_keep_their_digits(tmp_path: Path) -> None:
    pq.write_table(pa.table({"answer": pa.array([0.1, None, 2.5], pa.float32())}), tmp_path / "x.parquet")
    found = list(read_rows(tmp_path / "x.parquet", "x.parquet", "parquet"))
    assert [one.value["answer"] for one in found if isinstance(one, Row)] == [0.1, None, 2.5]


def test_bytes_that_are_no_text_in_parquet_spoil_only_their_row(tmp_path: Path) -> None:
    bad = pa.Array.from_buffers(pa.string(), 2, pa.array([b"a", b"\xff"], pa.binary()).buffers())
    pq.write_table(pa.table({"problem": bad}), tmp_path / "x.parquet")
    found = list(read_rows(tmp_path / "x.parquet", "x.parquet", "parquet"))
    assert isinstance(found[0], Row)
    assert faults(found) == [("x.parquet row 2", "not_utf8")]


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20), lambda inner: st.lists(inner, max_size=3), max_leaves=5
)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.dictionaries(st.text(max_size=5), VALUES, max_size=4), max_size=6), st.booleans(), st.booleans())
def test_what_json_writes_is_read_back_the_same(
    tmp_path_factory: pytest.TempPathFactory, written: list[dict[str, Any]], ascii_only: bool, as_list: bool
) -> None:
    folder = tmp_path_factory.mktemp("rows")
    if as_list:
        found = read(folder, json.dumps(written, ensure_ascii=ascii_only, indent=1), "x.json")
    else:
        found = read(folder, "".join(json.dumps(row, ensure_ascii=ascii_only) + "\n" for row in written))
    assert [one.value for one in found if isinstance(one, Row)] == written
