"""Finds traces that speak of the reference they were written from: a student that learns them talks of a solution nobody gave it."""

from __future__ import annotations

import re
from collections.abc import Sequence

_THING = r"(?:solutions?|answers?|proofs?|explanations?|derivations?|reasoning)"
_SHOWN = r"(?:given|provided|supplied|reference|official|expected|known)"
_GAVE = r"(?:provided|given|shown|stated|described|outlined|done|explained|mentioned|indicated|suggested|noted)"

PATTERNS: tuple[tuple[str, str | None], ...] = (
    # "the given solution", "your provided answer"; but a "given solution set" and "given answer choices" are mathematics.
    (
        rf"\b(?:the|this|that|your)\s+{_SHOWN}\s+{_THING}\b"
        r"(?!\s+(?:sets?|spaces?|curves?|choices?|options?|of\s+(?:the\s+)?(?:equation|system|inequality|\d))\b)",
        None,
    ),
    (rf"\b(?:reference|experts?['’]?s?)\s+{_THING}\b", None),
    (
        rf"\bthe\s+{_THING}\s+(?:(?:that|which)\s+(?:is|was)\s+)?(?:(?:provided|supplied)(?!\s+(?:by|that|if)\b)|given\s+to\s+(?:me|us)\b)",
        None,
    ),
    (rf"\bas\s+(?:is\s+|was\s+)?{_GAVE}\s+(?:in|by)\s+(?:the|this|that)\s+(?:{_SHOWN}\s+)?(?:{_THING}|reference|hint|expert)\b", None),
    (
        r"\bas\s+provided\b(?!\s+(?:in|by)\s+(?:the|this)\s+(?:problem|question|statement|task|exercise|table|figure|diagram|data|text)\b)",
        None,
    ),
    (rf"\b(?:according\s+to|following|as\s+in)\s+the\s+{_THING}\b(?!\s+(?:sets?|spaces?|of|to)\b)", None),
    (rf"\bthe\s+{_THING}\s+(?:says|states|mentions|skips|claims|suggests|jumps)\b", None),
    # A reference frame, angle or point is physics or geometry; the reference that says something is ours.
    (
        r"\bthe\s+reference\s+(?:says|states|gives|shows|mentions|uses|skips|claims|notes|suggests|provides|computes|text|above)\b"
        r"|\b(?:in|per|following|see|match(?:es|ing)?)\s+the\s+reference\s*(?:[.,;:!?)]|$)",
        "reference",
    ),
    (r"\b(?:the|this|that|given|provided)\s+hints?\b(?!-)", "hint"),
    (r"\b(?:the|these|human)\s+experts?\b|\bexpert['’]s\b", "expert"),
    # Echoes of the instruction not to mention it.
    (r"\bin\s+(?:my|your)\s+own\s+words\b", None),
    (rf"\bwithout\s+(?:mentioning|referring\s+to|looking\s+at|citing|using)\s+(?:the|any|a)\s+(?:reference|hint|expert|{_THING})\b", None),
    (rf"\b(?:never|not|haven['’]t)\s+(?:seen|mention(?:ed)?)\s+the\s+(?:reference|hint|expert|{_THING})\b", None),
    (rf"\bI\s*(?:['’]m|am|was|have\s+been)\s+(?:given|shown|provided\s+with)\s+(?:the|a)\s+(?:reference|hint|{_THING})\b", None),
    (rf"\b(?:final\s+)?{_THING}\s+is\s+(?:supposed|expected|known)\s+to\s+be\b", None),
    (r"\b(?:expected|known|target)\s+answer\s+(?:is|of)\b", None),
)
"""(pattern, word): a match is no leak where the problem itself contains the word, or the matched phrase."""


class LeakFilter:
    """Looks for phrases that give the reference away."""

    def __init__(self, phrases: Sequence[str] = ()) -> None:
        """`phrases`: further ones of the user's, taken as they stand; case and the kind of space do not matter."""
        self._patterns = [(re.compile(pattern, re.IGNORECASE), word) for pattern, word in PATTERNS]
        own = [r"\s+".join(map(re.escape, phrase.split())) for phrase in phrases if phrase.strip()]
        self._own = re.compile("|".join(own), re.IGNORECASE) if own else None

    def find(self, text: str, problem: str) -> str | None:
        """The first phrase found that `problem` does not explain, in lower case, or None."""
        if self._own is not None and (match := self._own.search(text)):
            return _plain(match[0])
        said = _plain(problem)
        for pattern, word in self._patterns:
            if word is not None and word in said:
                continue
            for match in pattern.finditer(text):
                phrase = _plain(match[0])
                if phrase not in said:
                    return phrase
        return None


def _plain(text: str) -> str:
    return " ".join(text.lower().split())
