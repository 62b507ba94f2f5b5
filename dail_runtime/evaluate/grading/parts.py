r"""Answers of several parts: tuples, intervals, sets, unions, lists, `x = 1 or x = 2`, `1 \pm \sqrt{2}`, matrices."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

Kind = Literal["set", "tuple", "closed", "left-closed", "right-closed", "list", "and", "or", "union"]

_BRACKETS: dict[tuple[str, str], Kind] = {
    ("\\{", "\\}"): "set",
    ("(", ")"): "tuple",
    ("\\langle", "\\rangle"): "tuple",
    ("[", "]"): "closed",
    ("[", ")"): "left-closed",
    ("(", "]"): "right-closed",
}
_OPEN = {"(", "[", "{", "\\{", "\\langle"}
_CLOSE = {")", "]", "}", "\\}", "\\rangle"}
# Deeper than this nothing is an answer; the bound keeps the work on hostile input small.
_DEEPEST = 20
_TOKEN = re.compile(r"\\[A-Za-z]+|\\.|(?<![\w\\])(?:and|or)(?!\w)|.", re.DOTALL)
_SET_BUILDER = re.compile(r"\||\\mid(?![A-Za-z])|:")
_LABEL = re.compile(
    r"(?P<name>\\?[A-Za-z]+(?:\s+[A-Za-z]+)?'*(?:_(?:\{[^{}]*\}|\w))?(?:\s*\([A-Za-z](?:\s*,\s*[A-Za-z])*\))?|\([A-Za-z](?:\s*,\s*[A-Za-z])+\))\s*=(?!=)\s*"
)
_MEMBER = re.compile(r"\\?[A-Za-z]+\s*\\in(?![A-Za-z])\s*")
_PLUS_MINUS = re.compile(r"\\(pm|mp)(?![A-Za-z])\s*")
_MATRIX = re.compile(r"\\begin\{(p|b|B|small)?(?:matrix|array)\}(?:\{[lcr| ]*\})?(?P<body>.*)\\end\{\1(?:matrix|array)\}", re.DOTALL)


@dataclass(frozen=True)
class Parts:
    """An answer taken apart."""

    kind: Kind
    """What holds the parts together; `list`: bare commas."""
    items: tuple[str, ...]
    """The parts, as cleaned text."""


def split_label(text: str) -> tuple[str | None, str]:
    r"""`x = 5` -> (`x`, `5`), `f(x) = 2x` -> (`f(x)`, `2x`), `x \in [0,1]` -> (None, `[0,1]`); a text without a label -> (None, text)."""
    match = _MEMBER.match(text)
    if match:
        return None, text[match.end() :]
    match = _LABEL.match(text)
    # A second equation sign makes it a chain of equations, not a named value, unless a list follows (x = 1, y = 2).
    if match is None or "=" in text[match.end() :]:
        return None, text
    return re.sub(r"\s+", "", match["name"]), text[match.end() :]


def take_apart(text: str) -> Parts | None:
    """The parts of a cleaned text, or None where it is a single value."""
    pieces = _split(text, {"\\cup"})
    if len(pieces) > 1:
        return Parts("union", tuple(pieces))
    inside = _inside(split_label(text)[1])
    if inside is not None:
        kind, content = inside
        if kind == "set" and _SET_BUILDER.search(content):
            return None
        items = _split(content, {",", ";"})
        if not items:
            return None
        if kind == "set" or len(items) > 1:
            return Parts(kind, _spread(items)[1])
        return take_apart(content)
    pieces = _split(text, {",", ";", "and", "or"})
    spread, items_ = _spread(pieces)
    if len(items_) < 2:
        return None
    if spread or len(_split(text, {"or"})) > 1 or _one_unknown(items_):
        return Parts("or", items_)
    return Parts("and" if len(_split(text, {"and"})) > 1 else "list", items_)


def cells(text: str) -> tuple[tuple[str, ...], ...] | None:
    """The rows of a matrix, or None where the text is not one."""
    match = _MATRIX.fullmatch(text)
    if match is None or "\\begin" in match["body"]:
        return None
    rows = [row for row in match["body"].split("\\\\") if row.strip()]
    return tuple(tuple(cell.strip() for cell in row.split("&")) for row in rows)


def _split(text: str, separators: set[str]) -> list[str]:
    """`text` cut at the separators outside every bracket; empty pieces (", and") are left out."""
    pieces, depth, start = [], 0, 0
    for token in _TOKEN.finditer(text):
        part = token[0]
        depth += (part in _OPEN) - (part in _CLOSE)
        if depth > _DEEPEST:
            return [text]
        if depth == 0 and part in separators:
            pieces.append(text[start : token.start()].strip())
            start = token.end()
    pieces.append(text[start:].strip())
    return [piece for piece in pieces if piece]


def _inside(text: str) -> tuple[Kind, str] | None:
    """Kind and content where one pair of brackets holds the whole text."""
    depth, first = 0, None
    for token in _TOKEN.finditer(text):
        part = token[0]
        if part in _OPEN:
            first = first or token
            depth += 1
        elif part in _CLOSE:
            depth -= 1
        if first is None or depth > _DEEPEST or (depth == 0 and token.end() < len(text)):
            return None
        if depth == 0:
            kind = _BRACKETS.get((first[0], part))
            return (kind, text[first.end() : token.start()].strip()) if kind else None
    return None


def _spread(items: list[str]) -> tuple[bool, tuple[str, ...]]:
    r"""Each `a \pm b` written as its two values, and whether there was one."""
    out: list[str] = []
    for item in items:
        if _PLUS_MINUS.search(item):
            plus = _PLUS_MINUS.sub(lambda sign: "+" if sign[1] == "pm" else "-", item)
            minus = _PLUS_MINUS.sub(lambda sign: "-" if sign[1] == "pm" else "+", item)
            out += [plus.removeprefix("+"), minus.removeprefix("+")]
        else:
            out.append(item)
    return len(out) > len(items), tuple(out)


def _one_unknown(items: tuple[str, ...]) -> bool:
    """Whether the parts are values of one and the same unknown: x = 1, x = 2 (or x = 1, 2)."""
    labels = [split_label(item)[0] for item in items]
    return labels[0] is not None and len(items) > 1 and all(label in (labels[0], None) for label in labels)
