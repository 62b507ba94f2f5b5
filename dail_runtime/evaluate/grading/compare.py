r"""Whether an answer says the same as the known one. Text in, yes, no or "not decided by reading alone" out; no library behind it.

What is decided here, and how:
- The gold answer sets the form. `(1,2)` is a point or an open interval: in order, and neither `\{1,2\}` nor `[1,2]`. `\{1,2\}` is a
  set: in any order. Bare `1,2` is in order, as it may be a tuple; an answer that says "or", repeats its unknown (`x=1, x=2`) or uses
  \pm gives values in any order.
- Numbers are exact (see `numbers`), words are compared without case, `x = 5` is 5 unless both name different unknowns, the letter of a
  multiple choice may carry brackets and the option's text.
- What is left (are \sqrt{8} and 2\sqrt{2} the same?) goes to `symbolic`.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from dail_runtime.evaluate.grading.normalize import clean, is_words, plain, spelling
from dail_runtime.evaluate.grading.numbers import equal, read_number
from dail_runtime.evaluate.grading.parts import Kind, Parts, cells, split_label, take_apart
from dail_runtime.evaluate.grading.units import unit_of

Symbolic = Callable[[str, str], bool | None]
"""(gold, answer), two single LaTeX expressions -> equal, different, or None where nobody can tell here."""

MAX_TEXT = 2000
"""Characters of an answer that are read; longer ones must be equal character by character."""
_MAX_PARTS = 200
_MAX_UNORDERED = 64  # these are compared each with each

_CHOICE = re.compile(r"(?:option|choice|answer)?\s*[:=]?\s*(?:\(([A-J])\)(?=$|[\s.:])|([A-J])(?=$|[.)]|:\s))[.:)]?\s*(.*)", re.IGNORECASE)
_NEXT_CHOICE = re.compile(r"\([A-Ja-j]\)|(?:^|\s)[A-J][.)]")
_BASED = re.compile(r"(\w+)_\{?(\d+)\}?")
_RELATION = re.compile(r"[<>|]|\\(?:le|ge|ne|in|mid|setminus)(?![A-Za-z])|=")
_UNIT_BEHIND = re.compile(r"(.*[^\s^_+=({-])\s*(\\text\{[^{}]*\}(?:\^\{?[23]\}?)?)", re.DOTALL)
# Sympy reads "5 5" as 10, so two numbers side by side are text.
_SIDE_BY_SIDE = re.compile(r"\d\s+\d")

_ORDERED: dict[Kind, tuple[Kind, ...]] = {
    "tuple": ("tuple", "list", "and"),
    "list": ("list", "tuple", "closed", "set", "and"),
    "closed": ("closed",),
    "left-closed": ("left-closed",),
    "right-closed": ("right-closed",),
}
_UNORDERED: dict[Kind, tuple[Kind, ...]] = {
    "set": ("set", "list", "and", "or"),
    "and": ("and", "list", "set", "or", "tuple"),
    "or": ("or", "list", "and", "set"),
    "list": ("or",),
    "union": ("union",),
}


def same(gold: str, answer: str, symbolic: Symbolic) -> bool | None:
    """Whether `answer` is right; None only where `symbolic` said None. Both texts may hold anything."""
    if len(gold) > MAX_TEXT or len(answer) > MAX_TEXT:
        return gold.split() == answer.split()
    gold, answer = clean(gold), clean(answer)
    if not gold or not answer:
        return False
    chosen = _same_choice(gold, answer)
    return chosen if chosen is not None else _same(gold, answer, symbolic)


def _same(gold: str, answer: str, symbolic: Symbolic) -> bool | None:
    if spelling(gold) == spelling(answer):
        return True
    gold_number, answer_number = read_number(split_label(gold)[1]), read_number(split_label(answer)[1])
    if gold_number is None or answer_number is None:
        gold_parts, answer_parts = take_apart(gold), take_apart(answer)
        if gold_parts or answer_parts:
            return _same_parts(gold, answer, gold_parts, answer_parts, symbolic)
    return _same_value(gold, answer, symbolic)


def _same_choice(gold: str, answer: str) -> bool | None:
    """For a gold letter of a multiple choice (C, (C), C. 12): whether the answer picks it; None where it picks no letter."""
    wanted = _CHOICE.fullmatch(plain(gold))
    if wanted is None or _NEXT_CHOICE.search(wanted[3]):  # "(a) 3, (b) 4" answers two questions
        return None
    given = _CHOICE.fullmatch(plain(answer))
    letter = (wanted[1] or wanted[2]).upper()
    if given is not None and not _NEXT_CHOICE.search(given[3]):
        return (given[1] or given[2]).upper() == letter
    return True if wanted[3] and spelling(clean(wanted[3])) == spelling(answer) else None


def _same_parts(gold: str, answer: str, gold_parts: Parts | None, answer_parts: Parts | None, symbolic: Symbolic) -> bool | None:
    if gold_parts is None or answer_parts is None:
        parts, one = (gold_parts or answer_parts), (answer if gold_parts else gold)
        if parts and len(parts.items) == 1:  # the set {5} against 5
            return _same(parts.items[0], one, symbolic) if gold_parts else _same(one, parts.items[0], symbolic)
        # x > 3 against (3, \infty)
        return symbolic(gold, answer) if _RELATION.search(one) and not _SIDE_BY_SIDE.search(gold + answer) else False
    wanted, given = gold_parts.items, answer_parts.items
    if max(len(wanted), len(given)) > _MAX_PARTS or len(wanted) != len(given):
        return False
    named = _same_names(wanted, given)
    if named:
        return _in_order(*named, symbolic)
    if answer_parts.kind in _UNORDERED.get(gold_parts.kind, ()):
        return _in_any_order(wanted, given, symbolic)
    if answer_parts.kind in _ORDERED.get(gold_parts.kind, ()):
        return _in_order(wanted, given, symbolic)
    return False


def _same_names(wanted: tuple[str, ...], given: tuple[str, ...]) -> tuple[tuple[str, ...], tuple[str, ...]] | None:
    """The values of x = 1, y = 2 and y = 2, x = 1 in one order, where both sides name the same distinct unknowns."""
    one, two = dict(map(split_label, wanted)), dict(map(split_label, given))
    if None in one or len(one) != len(wanted) or len(two) != len(given) or one.keys() != two.keys():
        return None
    return tuple(one.values()), tuple(two[name] for name in one)


def _in_order(wanted: tuple[str, ...], given: tuple[str, ...], symbolic: Symbolic) -> bool | None:
    found = [_same(one, two, symbolic) for one, two in zip(wanted, given, strict=True)]
    return False if False in found else None if None in found else True


def _in_any_order(wanted: tuple[str, ...], given: tuple[str, ...], symbolic: Symbolic) -> bool | None:
    if len(wanted) > _MAX_UNORDERED:
        return False
    left, unknown = list(given), False
    for one in wanted:
        found = [_same(one, two, symbolic) for two in left]
        if True in found:
            left.pop(found.index(True))
        elif None in found:
            unknown = True
        else:
            return False
    return None if unknown else True


def _same_value(gold: str, answer: str, symbolic: Symbolic) -> bool | None:
    """Two single values."""
    gold_name, gold_value = split_label(gold)
    answer_name, answer_value = split_label(answer)
    if gold_name and answer_name and len(gold_name) == len(answer_name) == 1 and gold_name != answer_name:
        return False
    if gold_name or answer_name:
        if spelling(gold_value) == spelling(answer_value):
            return True
        gold, answer = gold_value, answer_value
    wanted, given = read_number(gold), read_number(answer)
    if wanted and given:
        return equal(wanted, given)
    if is_words(gold) or is_words(answer):
        return False
    rows, others = cells(gold), cells(answer)
    if rows and others:
        if [len(row) for row in rows] != [len(row) for row in others]:
            return False
        return _in_order(tuple(cell for row in rows for cell in row), tuple(cell for row in others for cell in row), symbolic)
    based = _BASED.fullmatch(gold), _BASED.fullmatch(answer)
    if based[0] and based[1]:
        return based[0].groups() == based[1].groups()
    if _SIDE_BY_SIDE.search(gold) or _SIDE_BY_SIDE.search(answer) or (":" in gold and ":" in answer):
        return False
    return symbolic(_without_unit(gold), _without_unit(answer))


def _without_unit(text: str) -> str:
    r"""`3\sqrt{5}\text{ cm}^2` without its unit."""
    match = _UNIT_BEHIND.fullmatch(text)
    return match[1] if match and unit_of(match[2]) else text
