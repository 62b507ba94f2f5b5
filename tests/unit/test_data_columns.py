"""Columns of the well-known data sets are recognised; what is not clear is asked for, with the columns there are."""

from __future__ import annotations

from typing import Any

import pytest

from dail_runtime.data.columns import ABSENT, Recognised, cell_of, recognise
from dail_runtime.errors import DataError
from dail_runtime.spec.data import Columns


def found(names: str | dict[str, Any], evaluation: bool = False, **columns: str) -> Recognised:
    row = dict.fromkeys(names.split(), "text") if isinstance(names, str) else names
    return recognise([row], Columns.model_validate(columns), shown="x.jsonl", field="data.columns", evaluation=evaluation)


def roles(recognised: Recognised) -> list[str | None]:
    return [recognised.id, recognised.problem, recognised.solution, recognised.answer]


GSM8K = {"question": "How many?", "answer": "48/2 = <<48/2=24>>24\n#### 24"}


@pytest.mark.parametrize(
    ("layout", "row", "expected"),
    [
        ("e1", "problem_id problem solution", ["problem_id", "problem", "solution", None]),
        (
            "s1K",
            "solution question cot_type source_type metadata cot thinking_trajectories attempt",
            [None, "question", "solution", None],
        ),
        (
            "s1K-1.1",
            "question solution deepseek_thinking_trajectory deepseek_attempt deepseek_grade gemini_attempt",
            [None, "question", "solution", None],
        ),
        ("LIMO", "question solution answer", [None, "question", "solution", "answer"]),
        ("GSM8K", GSM8K, [None, "question", "answer", None]),
        ("MATH", "problem level type solution", [None, "problem", "solution", None]),
        ("MATH-500", "problem solution answer subject level unique_id", ["unique_id", "problem", "solution", "answer"]),
        (
            "OpenR1",
            "problem solution answer problem_type question_type source uuid generations",
            ["uuid", "problem", "solution", "answer"],
        ),
        ("NuminaMath", "source problem solution messages", [None, "problem", "solution", None]),
        ("AIME", {"ID": "2024-II-4", "Problem": "p", "Solution": "s", "Answer": 33}, ["ID", "Problem", "Solution", "Answer"]),
        ("this project", "id problem solutions answer", ["id", "problem", "solutions", "answer"]),
    ],
)
def test_known_layouts_need_no_mapping(layout: str, row: str | dict[str, Any], expected: list[str | None]) -> None:
    assert roles(found(row)) == expected, layout


@pytest.mark.parametrize(
    ("layout", "row", "expected"),
    [
        ("AIME", {"ID": "2024-II-4", "Problem": "p", "Solution": "s", "Answer": 33}, ["ID", "Problem", "Solution", "Answer"]),
        ("GSM8K", GSM8K, [None, "question", None, "answer"]),
        ("BeyondAIME", "problem answer", [None, "problem", None, "answer"]),
        ("GPQA", {"Question": "q", "Correct Answer": "c", "Incorrect Answer 1": "i"}, [None, "Question", None, "Correct Answer"]),
        ("MATH", "problem level type solution", [None, "problem", "solution", None]),
    ],
)
def test_evaluation_sets_need_an_answer_or_a_solution_that_ends_with_one(
    layout: str, row: str | dict[str, Any], expected: list[str | None]
) -> None:
    assert roles(found(row, evaluation=True)) == expected, layout


def test_the_jobs_names_win() -> None:
    row = "problem question solution gold answer"
    assert roles(found(row, problem="question", solution="gold", answer="solution")) == [None, "question", "gold", "solution"]
    assert roles(found("question answer", problem="question", solution="answer")) == [None, "question", "answer", None]


@pytest.mark.parametrize(
    ("row", "columns", "expected"),
    [
        (
            "problem question solution",
            {},
            "the columns problem and question could each be the problem; say which, for example data",
        ),
        ("problem solution solutions", {}, "could each be the solution"),
        ({"answer": 1, "Answer": 2, "problem": "p", "solution": "s"}, {}, "the columns answer and Answer could each be the answer"),
        (
            "text solution",
            {},
            "no column for the problem's text is recognised; the columns are: text, solution; name one in",
        ),
        ("problem response", {}, "no column for the expert's solution is recognised; the columns are: problem, response"),
        ("problem answer", {}, "no column for the expert's solution is recognised"),
        (
            "problem solution",
            {"problem": "problme"},
            "data.columns.problem names the column 'problme', which the file does not have; did",
        ),
        (
            "problem solution",
            {"hint": "zzz"},
            "data.columns.hint names the column 'zzz', which the file does not have; its columns are",
        ),
    ],
)
def test_what_is_not_clear_is_asked_for(row: str | dict[str, Any], columns: dict[str, str], expected: str) -> None:
    with pytest.raises(DataError) as caught:
        found(row, **columns)
    assert str(caught.value).startswith("x.jsonl: ")
    assert expected in str(caught.value)


def test_an_evaluation_set_without_answers_is_asked_for_them() -> None:
    with pytest.raises(DataError, match="no column for the answer, which an evaluation set needs, is recognised"):
        found("problem notes", evaluation=True)


def test_dots_lead_into_objects_and_lists() -> None:
    row = {"q": "p", "meta": {"solution": {"text": "s", "final": 7}}, "messages": [{"content": "first"}, {"content": "second"}], "a.b": 1}
    assert roles(found(row, problem="q", solution="meta.solution.text", answer="meta.solution.final")) == [
        None,
        "q",
        "meta.solution.text",
        "meta.solution.final",
    ]
    assert [cell_of(row, name) for name in ("messages.1.content", "a.b", "meta.solution.final", "q")] == ["second", 1, 7, "p"]
    assert {cell_of(row, name) for name in ("messages.2.content", "messages.x", "q.0", "a.c", "messages.-1", "")} == {ABSENT}


def test_columns_that_only_some_rows_have_count() -> None:
    rows = [{"problem": "a"}, {"problem": "b", "solution": "s"}]
    assert recognise(rows, Columns(), shown="x", field="f", evaluation=False).solution == "solution"
