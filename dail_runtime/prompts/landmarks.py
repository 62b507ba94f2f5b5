"""The results a solution meets on its way: what the negative reference is told instead of the reasoning."""

from __future__ import annotations

import re
from collections.abc import Iterator

from dail_runtime.evaluate.grading import answer_from_solution
from dail_runtime.evaluate.grading.compare import same
from dail_runtime.evaluate.grading.normalize import clean, spelling

LIMIT = 16
"""Landmarks given at most: enough for the way, too few to retell the solution."""
_LONGEST = 60
_FARTHEST = 120
_READ = 32_768  # characters; a longer solution fits no prompt

_SIGN = re.compile(r"(?<![=<>!\\])=(?![=>])|[≈≡]|\\(?:approx|equiv|cong|doteq)(?![A-Za-z])")
_NOISE = re.compile(r"<<[^<>\n]*>>|####[^\n]*")  # GSM8K's calculator notes repeat what stands beside them
_BOX = re.compile(r"\\f?boxed\s*\{")
_NUMBER = re.compile(r"(?<![\w.])\d+(?:,\d{3})*(?:\.\d+)?(?:/\d+)?%?(?![\w])")
_COUNTER = re.compile(r"^\s*(?:step\s*)?\d+\s*[.):]", re.IGNORECASE | re.MULTILINE)

_LEAD = re.compile(r"(?:\s|&|\$|\\[(\[,;:! ]|\\displaystyle(?![A-Za-z]))*")
_COMMAND = re.compile(r"\\([A-Za-z]+|.)", re.DOTALL)
_PROSE = re.compile(r"\s{1,9}(?=(?!(?:mod|sqrt|log|ln|sin|cos|tan|pi)\b)[A-Za-z]{2,}|[A-Za-z]\s+[A-Za-z])")
_THOUSANDS = re.compile(r",(?=\d{3}(?!\d))")
_ENDS = frozenset("\n$;:?=<>≈≡≤≥≠→⇒&")
_END_COMMAND = re.compile(
    r"\\(?:[\\)\]]|(?:approx|equiv|cong|doteq|leq?|leqslant|geq?|geqslant|neq?|lt|gt|implies|iff|to"
    r"|(?:R|Longr|r)ightarrow|text|textbf|mbox|q?quad|end|tag|label|qedhere)(?![A-Za-z]))"
)
_OPEN, _CLOSE = frozenset("([{"), frozenset(")]}")


def landmarks(solution: str, *, answer: str | None = None, problem: str = "", limit: int = LIMIT) -> list[str]:
    r"""Intermediate results of `solution`, in order, each once, the final answer left out.

    A result is the number or expression behind `=` (`≈`, `\approx`, ...). A solution without any such sign gives the numbers in it
    that `problem` does not mention. `answer` None: the solution's own (`#### 72`, the last box).
    """
    final = answer if answer is not None else answer_from_solution(solution)
    text = _without_boxes(_NOISE.sub("", solution[:_READ]))
    found = list(_results(text)) if _SIGN.search(text) else _new_numbers(text, problem)
    kept: dict[str, str] = {}
    for one in found:
        if len(kept) == limit:
            break
        if final is None or same(final, one, lambda *_: None) is not True:
            kept.setdefault(spelling(clean(one)), one)
    return list(kept.values())


def _results(text: str) -> Iterator[str]:
    for sign in _SIGN.finditer(text):
        lead = _LEAD.match(text, sign.end())
        result = _expression(text, lead.end() if lead else sign.end())
        if result and len(result) <= _LONGEST and re.search(r"[\d\\]|\w\s*[-+*/^]", result):
            yield result


def _expression(text: str, start: int) -> str:
    """The longest expression from `start` on; '' where its brackets do not match within a fair distance."""
    depth, at = 0, start
    while at < min(len(text), start + _FARTHEST):
        char = text[at]
        command = _COMMAND.match(text, at) if char == "\\" else None
        if depth == 0 and (char in _ENDS or _ends_sentence(text, at) or _PROSE.match(text, at) or _END_COMMAND.match(text, at)):
            break
        bracket = command[1] if command and command[1] in ("{", "}") else char
        if bracket in _OPEN:
            depth += 1
        elif bracket in _CLOSE:
            if depth == 0:
                break
            depth -= 1
        at = command.end() if command else at + 1
    return "" if depth else text[start:at].strip().rstrip("+-*/ ").removesuffix("\\")


def _ends_sentence(text: str, at: int) -> bool:
    if text[at] == ",":
        return not (_THOUSANDS.match(text, at) and text[at - 1].isdigit())
    return text[at] == "." and not text[at + 1 : at + 2].isdigit()


def _new_numbers(text: str, problem: str) -> list[str]:
    known = set(_NUMBER.findall(problem))
    return [number for number in _NUMBER.findall(_COUNTER.sub("", text)) if number not in known]


def _without_boxes(text: str) -> str:
    r"""`text` with every `\boxed{...}` taken out; a box that never closes takes the rest with it."""
    kept, end = [], 0
    for box in _BOX.finditer(text):
        if box.start() < end:
            continue
        kept.append(text[end : box.start()])
        depth, end = 1, box.end()
        while end < len(text) and depth:
            depth += {"{": 1, "}": -1}.get(text[end], 0)
            end += 2 if text[end] == "\\" else 1
    return "".join([*kept, text[end:]])
