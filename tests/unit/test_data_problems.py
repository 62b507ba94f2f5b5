"""Rows become problems: several solutions come together, ids stay, answers are found, and every bad row is counted."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dail_runtime.data import Counts, read_problems
from dail_runtime.data.texts import tidy_solution
from dail_runtime.errors import DataError
from dail_runtime.records import Problem
from dail_runtime.spec.data import Columns

GOOD = {"id": "g", "problem": "How many?", "solution": "So \\boxed{3}."}


def read(folder: Path, rows: list[Any], **settings: Any) -> tuple[list[Problem], Counts]:
    path = folder / "x.jsonl"
    path.write_bytes(b"".join((row if isinstance(row, bytes) else json.dumps(row).encode()) + b"\n" for row in rows))
    return read_problems(str(path), **settings)


def one(folder: Path, row: dict[str, Any], **settings: Any) -> Problem:
    problems, _ = read(folder, [row], **settings)
    assert len(problems) == 1
    return problems[0]


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"problem": "p", "solution": "s", "answer": 72}, "72"),
        ({"problem": "p", "solution": "s", "answer": 72.0}, "72"),
        ({"problem": "p", "solution": "s", "answer": 0.5}, "0.5"),
        ({"problem": "p", "solution": "s", "answer": 6.022e23}, "6.022e+23"),
        ({"problem": "p", "solution": "s", "answer": 10**23}, "1" + "0" * 23),
        ({"problem": "p", "solution": "s", "answer": " \\frac{1}{2} "}, "\\frac{1}{2}"),
        ({"problem": "p", "solution": "s", "answer": ["5"]}, "5"),
        ({"problem": "p", "solution": "so $\\boxed{7}$ or \\boxed{8}"}, "8"),
        ({"problem": "p", "solution": "s \\boxed{7}", "answer": None}, "7"),
        ({"problem": "p", "solution": "s \\boxed{7}", "answer": float("nan")}, "7"),
        ({"problem": "p", "solution": "s", "answer": "$\\boxed{9}$"}, "9"),
        ({"question": "p", "answer": "24 clips\n#### 24"}, "24"),
        ({"question": "p", "answer": "1000 clips\n#### 1,000\n"}, "1,000"),
        ({"problem": "p", "solution": "#### Step 1\nadd\n#### Step 2\nso \\boxed{4}"}, "4"),
        ({"problem": "p", "solution": "#### Step 1\nThe sum follows."}, None),
        ({"problem": "p", "solution": "A proof."}, None),
    ],
)
def test_the_answer_is_the_columns_else_the_solutions_own(tmp_path: Path, row: dict[str, Any], expected: str | None) -> None:
    assert one(tmp_path, row).answer == expected


def test_a_solution_that_ends_as_gsm8ks_do_says_its_answer_in_a_box() -> None:
    text = "He sold 48/2 = <<48/2=24>>24 clips.\nIn all 48+24 = <<48+24=72>>72.\n#### 72"
    assert tidy_solution(text) == "He sold 48/2 = 24 clips.\nIn all 48+24 = 72.\nThe final answer is \\boxed{72}."
    assert tidy_solution("#### 5") == "The final answer is \\boxed{5}."
    for untouched in ("a << b >> c = d", "So \\boxed{3}.", "#### Step 1\nadd <<1+1=2>>"):
        assert tidy_solution(untouched) == untouched


def test_solutions_come_as_text_list_numbered_text_or_repeated_rows(tmp_path: Path) -> None:
    assert one(tmp_path, {"problem": "p", "solution": "  s\r\nt  "}).solutions == ("s\nt",)
    assert one(tmp_path, {"problem": "p", "solutions": ["s", None, " ", "t"]}).solutions == ("s", "t")
    assert one(tmp_path, {"problem": "p", "solution": "Solution 1:\ns\n\nSolution 2:\nt"}).solutions == ("s", "t")
    assert one(tmp_path, {"problem": "p", "solution": "**Solution 1.** s\n### Solution 2\nt"}).solutions == ("s", "t")
    for whole in ("As in Solution 1: s\nSolution 2: t", "Solution 1: s", "Solution 1: s\nSolution 3: t"):
        assert one(tmp_path, {"problem": "p", "solution": whole}).solutions == (whole,)


def test_rows_of_one_problem_are_one_problem_with_every_solution(tmp_path: Path) -> None:
    rows = [
        {"id": "a", "problem": "p  q", "solution": "s"},
        {"id": "b", "problem": "other", "solution": "s"},
        {"id": "a", "problem": "p\nq", "solution": "t"},
        {"id": "c", "problem": "p q", "solution": "u", "answer": "5"},
        {"id": "a", "problem": "p q", "solution": "s"},
    ]
    problems, counts = read(tmp_path, rows)
    assert [(found.id, found.solutions, found.answer) for found in problems] == [("a", ("s", "t", "u"), "5"), ("b", ("s",), None)]
    assert counts.numbers() == {"rows": 5, "problems": 2, "solutions": 4, "merged": 2, "duplicates": 1, "dropped": {}}


def test_evaluation_problems_of_different_ids_stay_apart_and_keep_no_solution(tmp_path: Path) -> None:
    rows = [{"id": n, "problem": "p", "solution": "\\boxed{1}"} for n in (1, 2, 2)]
    problems, counts = read(tmp_path, rows, evaluation="test")
    assert [(found.id, found.solutions, found.answer, found.set) for found in problems] == [("1", (), "1", "test"), ("2", (), "1", "test")]
    assert counts.duplicates == 1


def test_made_ids_depend_on_the_text_alone(tmp_path: Path) -> None:
    rows = [{"problem": f"p {n}", "solution": "s"} for n in range(20)]
    shuffled = random.Random(0).sample(rows, len(rows))
    ids = {found.problem: found.id for found in read(tmp_path, rows)[0]}
    assert ids == {found.problem: found.id for found in read(tmp_path, shuffled)[0]}
    assert len(set(ids.values())) == 20


def test_a_recognised_id_may_be_missing_but_a_named_one_may_not(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [{"id": 7, "problem": "p", "solution": "s"}, {"id": None, "problem": "q", "solution": "s"}]
    problems, _ = read(tmp_path, rows)
    assert problems[0].id == "7"
    assert problems[1].id.startswith("p-")
    with pytest.raises(DataError, match=r"x\.jsonl:2: the column 'id' is empty"):
        read(tmp_path, rows, columns=Columns(id="id"))


@pytest.mark.parametrize("answer", ["nan", "inf", "1,000"])
def test_equal_answers_never_contradict_each_other(tmp_path: Path, answer: str) -> None:
    rows = [{"problem": "p", "solution": text, "answer": answer} for text in ("s", "t")]
    assert read(tmp_path, rows)[1].merged == 1


BAD: list[tuple[Any, str, str]] = [
    (b"{nonsense", "not_json", "not JSON"),
    (b'{"problem": "\xff"}', "not_utf8", "is not UTF-8"),
    (b'{"problem": "' + b"x" * (9 << 20) + b'"}', "too_long", "more than 8 MiB"),
    ([1], "not_an_object", "the row is a list"),
    ({"problem": "p"}, "missing_column", "the row has no column 'solution'"),
    ({"solution": "s"}, "missing_column", "the row has no column 'problem'"),
    ({"problem": " \n", "solution": "s"}, "empty_field", "the column 'problem' is empty"),
    ({"problem": "p", "solution": None}, "empty_field", "the column 'solution' is empty"),
    ({"problem": "p", "solution": float("nan")}, "empty_field", "the column 'solution' is empty"),
    ({"problem": "p", "solution": []}, "empty_field", "the column 'solution' is an empty list"),
    ({"problem": 5, "solution": "s"}, "wrong_type", "the column 'problem' holds a number where a text belongs"),
    ({"problem": [{"role": "user"}], "solution": "s"}, "wrong_type", "the column 'problem' holds a list of 1 where a text belongs"),
    ({"problem": "p", "solution": {"text": "s"}}, "wrong_type", "the column 'solution' holds an object"),
    ({"problem": "p", "solution": ["s", 3]}, "wrong_type", "the column 'solution' holds a number"),
    ({"problem": "p", "solution": "s", "answer": True}, "wrong_type", "the column 'answer' holds true or false"),
    ({"problem": "p", "solution": "s", "answer": ["1", "2"]}, "wrong_type", "the column 'answer' holds a list of 2"),
    ({"id": {"x": 1}, "problem": "p", "solution": "s"}, "wrong_type", "the column 'id' holds an object"),
    ({"id": "g", "problem": "Another", "solution": "s"}, "duplicate_id", "the id 'g' stands for another problem already"),
    ({"problem": "How many?", "solution": "s", "answer": "4"}, "conflicting_answer", "an earlier row answers the same problem with '3'"),
]


@pytest.mark.parametrize(("row", "reason", "said"), BAD, ids=[f"{reason}-{n}" for n, (_, reason, _) in enumerate(BAD)])
def test_a_bad_row_stops_with_place_and_remedy_or_is_skipped_and_counted(tmp_path: Path, row: Any, reason: str, said: str) -> None:
    rows = [GOOD, row, {**GOOD, "id": "h", "problem": "How few?", "answer": "3"}]
    with pytest.raises(DataError) as caught:
        read(tmp_path, rows)
    first, *_, last = str(caught.value).splitlines()
    assert first.startswith(f"{tmp_path}/x.jsonl:2: ")
    assert said in first
    assert last.endswith(f"1 of 3 rows are bad (1 {reason}); correct them, or set data.onBadRow: skip to go on without them")
    problems, counts = read(tmp_path, rows, on_bad_row="skip")
    assert [found.id for found in problems] == ["g", "h"]
    assert counts.dropped == {reason: 1}
    assert [(bad.place, bad.reason) for bad in counts.bad] == [(f"{tmp_path}/x.jsonl:2", reason)]


def test_an_evaluation_row_without_an_answer_is_bad(tmp_path: Path) -> None:
    rows = [{"problem": "p", "answer": "1"}, {"problem": "q", "answer": ""}]
    with pytest.raises(DataError, match=r"x\.jsonl:2: the problem has no answer, which an evaluation set needs; add it"):
        read(tmp_path, rows, evaluation="test")


def test_many_bad_rows_are_counted_and_the_first_five_shown(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        read(tmp_path, [GOOD, *[{"problem": "p"}] * 7, b"{", *[{"problem": ""}] * 2])
    lines = str(caught.value).splitlines()
    assert len(lines) == 6
    assert "10 of 11 rows are bad (7 missing_column, 2 empty_field, 1 not_json)" in lines[-1]


@pytest.mark.parametrize("rows", [[b"{"], [b"{", b"["], [{"problem": "", "solution": ""}]])
def test_a_file_without_a_good_row_is_an_error_even_where_bad_rows_are_skipped(tmp_path: Path, rows: list[Any]) -> None:
    with pytest.raises(DataError, match="no good row is left; correct them"):
        read(tmp_path, rows, on_bad_row="skip")


def test_an_empty_file_has_no_rows(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="the file has no rows; check the path"):
        read(tmp_path, [])


def test_a_file_that_is_not_there_says_so(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"data: .*/none\.jsonl: there is no such file"):
        read_problems(str(tmp_path / "none.jsonl"))
    with pytest.raises(DataError, match="this is a folder; name the file in it"):
        read_problems(str(tmp_path), "jsonl")


def test_the_limit_counts_good_rows_and_what_comes_after_is_not_read(tmp_path: Path) -> None:
    rows = [{"problem": f"p {n}", "solution": "s"} for n in range(5)]
    problems, counts = read(tmp_path, [rows[0], b"{", *rows[1:], b"{"], limit=3, on_bad_row="skip")
    assert ([found.problem for found in problems], counts.rows) == (["p 0", "p 1", "p 2"], 4)


def test_hints_come_from_a_named_column(tmp_path: Path) -> None:
    row = {"problem": "p", "solution": "s", "notes": " 3, 4 "}
    assert one(tmp_path, row, columns=Columns(hint="notes")).hint == "3, 4"
    assert one(tmp_path, row).hint is None


def test_a_strangers_gsm8k_file_needs_nothing_but_a_mapping(tmp_path: Path) -> None:
    rows = [{"q": f"How many is {n}+{n}?", "worked": f"{n}+{n} = <<{n}+{n}={2 * n}>>{2 * n}\n#### {2 * n}"} for n in range(500)]
    problems, counts = read(tmp_path, rows, columns=Columns(problem="q", solution="worked"))
    assert (len(problems), counts.rows, sum(found.answer is not None for found in problems)) == (500, 500, 500)
    assert problems[3].solutions == ("3+3 = 6\nThe final answer is \\boxed{6}.",)


def test_parquet_and_json_give_the_same_problems_as_lines(tmp_path: Path) -> None:
    rows = [{"id": f"i{n}", "problem": f"p {n}", "solution": ["s", "t"], "answer": n} for n in range(130)]
    expected, _ = read(tmp_path, rows)
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "x.parquet")
    (tmp_path / "x.json").write_text(json.dumps({"data": rows}))
    assert read_problems(str(tmp_path / "x.parquet"))[0] == expected
    assert read_problems(str(tmp_path / "x.json"))[0] == expected
