"""Finding the final answer in a text: the last \\boxed{}, the part after </think>, `#### 72` and looser forms."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterator

THINK_END = "</think>"

_BOX = re.compile(r"\\(?:boxed|fbox)(?![A-Za-z])")
_HASHES = re.compile(r"####[ \t]*(\S[^\n]*)")
# The gap between "answer" and "is" stays on one line and short, so that "the answer to ... is" is found and nothing further away.
_ANSWER_IS = re.compile(r"\banswers?\b[^\n.]{0,60}?(?:\bis\b|\bare\b|=|:)[\s*_:]*(?=([^\n]+))", re.IGNORECASE)
_NUMBER = re.compile(r"(?<![\w.])[-−+]?(?:\d{1,3}(?:,\d{3})+|\d+)?(?:\.\d+|(?<=\d))(?:/\d+)?%?")
# A sentence ends at a full stop that no digit follows: "is 3.5. So" gives "3.5".
_SENTENCE_END = re.compile(r"[.!?](?:\s|$)|\*\*|,\s(?:so|because|since|as|which|and so)\b", re.IGNORECASE)


def last_boxed(text: str) -> str | None:
    r"""The content of the last `\boxed{...}` or `\fbox{...}`, or of a last `\boxed 5`, stripped.

    Braces are matched, and escaped ones (`\{`) are text. None where there is no box, where the last one is empty, or
    where it is cut off: an earlier box is never used instead, since the writer went on to replace it.
    """
    found = _last_box(text)
    return found[1] if found else None


def answer_part(text: str, *, thinking: bool) -> str | None:
    """What counts as the answer: all of `text`, or, for thinking models, what follows the last </think>; None without one."""
    if not thinking:
        return text
    _, end, answer = text.rpartition(THINK_END)
    return answer if end else None


def answer_from_solution(text: str) -> str | None:
    r"""The final answer that an expert solution states: the last complete `\boxed{...}` or the last `#### 72`, whichever comes later."""
    box = _last_box(text)
    hashes = _last(_HASHES, text)
    if hashes and (box is None or box[1] is None or hashes.start() > box[0]):
        return hashes[1].strip()
    return box[1] if box else None


def lenient_answers(text: str) -> Iterator[str]:
    """Guesses at the answer of a text without a box, for the lenient figure only: after the last `####`, else after the
    last "answer is" (the whole phrase, then its last number), else the last number of the text."""
    hashes = _HASHES.findall(text)
    if hashes:
        yield hashes[-1].strip()
        return
    phrases = _ANSWER_IS.findall(text)
    if phrases:
        text = _SENTENCE_END.split(phrases[-1], maxsplit=1)[0].strip(" \t*_")
        yield text
    numbers = _NUMBER.findall(text)
    if numbers:
        yield numbers[-1]


def _last(pattern: re.Pattern[str], text: str) -> re.Match[str] | None:
    """The last match of `pattern`."""
    return next(iter(deque(pattern.finditer(text), maxlen=1)), None)


def _last_box(text: str) -> tuple[int, str | None] | None:
    """Where the last box starts and what it holds (None: empty or cut off); None where there is no box."""
    box = _last(_BOX, text)
    if box is None:
        return None
    start = box.end()
    while start < len(text) and text[start].isspace():
        start += 1
    if text[start : start + 1] == "{":
        end = _closing(text, start)
        content = text[start + 1 : end].strip() if end is not None else ""
    else:
        content = _unbraced(text, start)
    return box.start(), content or None


def _closing(text: str, start: int) -> int | None:
    """Index of the brace that closes the one at `start`, or None."""
    depth, at = 0, start
    while at < len(text):
        char = text[at]
        if char == "\\":
            at += 1  # skips the escaped character: \{, \} and the second half of a line break
        elif char == "{":
            depth += 1
        elif char == "}":
            depth -= 1
            if depth == 0:
                return at
        at += 1
    return None


def _unbraced(text: str, start: int) -> str:
    r"""`\boxed 57`, `\boxed \frac{1}{2}$`: up to the first space, $ or closing brace outside braces; '' where a brace stays open."""
    at = start
    while at < len(text) and not text[at].isspace() and text[at] not in "$}":
        if text[at] == "{":
            end = _closing(text, at)
            if end is None:
                return ""
            at = end
        elif text[at] == "\\":
            if text[at + 1 : at + 2] in (")", "]"):
                break
            at += 1
        at += 1
    return text[start:at].strip().rstrip(".,;:")
