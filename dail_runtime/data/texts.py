"""From a cell of a data file to the text that stages work with: what counts as empty, several solutions in one, answers."""

from __future__ import annotations

import hashlib
import math
import re
from decimal import Decimal
from typing import Any

from dail_runtime.data.columns import ANSWER_MARK

_EXACT = 2**53
"""Up to here every whole number is a float of its own."""


class CellError(Exception):
    """A cell that cannot be used; `reason` is the key it is counted under."""

    def __init__(self, reason: str, sentence: str) -> None:
        super().__init__(sentence)
        self.reason = reason


def is_empty(value: Any) -> bool:
    """null, NaN (how tables write a missing value), and text of spaces only."""
    return value is None or (isinstance(value, float) and math.isnan(value)) or (isinstance(value, str | bytes) and not value.strip())


def text_cell(value: Any, column: str) -> str:
    """The text of a cell, line ends as `\\n`, no space around it.

    Raises:
        CellError: empty_field, wrong_type or not_utf8.
    """
    if is_empty(value):
        raise CellError("empty_field", f"the column {column!r} is empty; fill it in")
    if isinstance(value, bytes):
        try:
            value = value.decode()
        except UnicodeDecodeError:
            raise CellError("not_utf8", f"the column {column!r} holds bytes that are not UTF-8; save the file as UTF-8") from None
    if not isinstance(value, str):
        inside = f"name the text in it ({column}.{next(iter(value))})" if isinstance(value, dict) and value else "check data.columns"
        raise CellError("wrong_type", f"the column {column!r} holds {_kind(value)} where a text belongs; {inside}")
    return value.replace("\r\n", "\n").replace("\r", "\n").strip()


def short_cell(value: Any, column: str) -> str:
    """An id or a final answer: a text, or a number (72, and 72.0, which is how tables write it, become "72")."""
    if isinstance(value, list | tuple) and len(value) == 1:
        value = value[0]
    if isinstance(value, float | Decimal) and not is_empty(value) and math.isfinite(value) and value == int(value):
        # A larger float has no exact digits: 6.022e+23 is the number meant, 602200000000000027262976 is not.
        value = int(value) if isinstance(value, Decimal) or abs(value) <= _EXACT else value
    if isinstance(value, int | float | Decimal) and not isinstance(value, bool) and not is_empty(value):
        return str(value)
    return text_cell(value, column)


def solution_cells(value: Any, column: str) -> list[str]:
    """The expert solutions of a cell: a text, a list of texts, or a text of the form `Solution 1: ... Solution 2: ...` (e1)."""
    if isinstance(value, list | tuple):
        texts = [text_cell(one, column) for one in value if not is_empty(one)]
        if not texts:
            raise CellError("empty_field", f"the column {column!r} is an empty list; give at least one solution")
        return texts
    return _numbered(text_cell(value, column))


NUMBERED = re.compile(r"^(?:\#+ *|\*\*)?Solution (\d+)\b[.:]?(?:\*\*)?:?", re.MULTILINE)


def _numbered(text: str) -> list[str]:
    """Solutions headed `Solution 1:`, `Solution 2:`, ... apart; the text itself where it is not built that way."""
    heads = list(NUMBERED.finditer(text))
    if len(heads) < 2 or heads[0].start() != 0 or [int(head[1]) for head in heads] != list(range(1, len(heads) + 1)):
        return [text]
    ends = [head.start() for head in heads[1:]] + [len(text)]
    parts = [text[head.end() : end].strip() for head, end in zip(heads, ends, strict=True)]
    return [part for part in parts if part] or [text]


LAST_MARK = re.compile(r"\s*^####[ \t]*(\S[^\n]*?)\s*\Z", re.MULTILINE)
MARKED_LINE = re.compile(r"^####[^\n]*$", re.MULTILINE)
CALCULATOR = re.compile(r"<<[^<>\n]*=[^<>\n]*>>")


def answer_in(text: str) -> str | None:
    """The final answer that a solution states: a last line `#### 72`, else its last \\boxed{}; None where it states none."""
    # Imported here, so that reading data asks for nothing of the grader unless it is needed.
    from dail_runtime.evaluate.grading import answer_from_solution

    last = LAST_MARK.search(text)
    # Elsewhere, #### begins a heading.
    return last[1] if last else answer_from_solution(MARKED_LINE.sub("", text))


def tidy_solution(text: str) -> str:
    """The expert's text, where it ends as GSM8K's do, in the form that the prompts ask for; any other text as it is.

    `#### 72` becomes a sentence with \\boxed{72}: `sft` trains on this text and is graded by its box. The calculator notes
    `<<48/2=24>>`, which came with the data set and not from the expert, go.
    """
    last = LAST_MARK.search(text)
    if not last:
        return text
    body = CALCULATOR.sub("", text[: last.start()]).strip()
    box = last[1] if "\\boxed" in last[1] else f"\\boxed{{{last[1]}}}"
    return f"{body}\nThe final answer is {box}.".strip()


def answer_cell(value: Any, column: str) -> str:
    """The final answer in a cell of answers, also where the cell holds a whole solution that ends with one."""
    text = short_cell(value, column)
    if ANSWER_MARK.search(text) or "\\boxed" in text:
        return answer_in(text) or text
    return text


def fingerprint(problem: str) -> str:
    """What makes two problems the same: sha256 of the text, spaces and line ends aside."""
    return hashlib.sha256(" ".join(problem.split()).encode()).hexdigest()


def _kind(value: Any) -> str:
    if isinstance(value, bool):
        return "true or false"
    if isinstance(value, list | tuple):
        return f"a list of {len(value)}"
    return "an object" if isinstance(value, dict) else "a number" if isinstance(value, int | float) else f"a {type(value).__name__}"
