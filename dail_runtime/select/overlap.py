"""Finds training problems that an evaluation set contains: by their words, whatever the files are called."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

MANY_MEASURED = 3
"""Words in a row that so many evaluation problems share are a manner of speaking ("m and n are relatively prime positive
integers. Find m+n"), no sign of a copy."""
MANY_TRAINED = 11
"""The same for training problems."""
MOSTLY = 0.5
"""A problem that shares this much of its words in a row with one evaluation problem is a copy, common wording or not."""

_LATEX_SPACE = re.compile(r"\\(?:left|right|displaystyle|[dt](?=frac)|quad|qquad|text|mathrm|[,;:!\s])")
_CJK = r"\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af"
_WORD = re.compile(rf"[{_CJK}]|[^\W_{_CJK}]+")


def words_of(text: str) -> list[str]:
    """The words of a text; case, punctuation, accents' encoding and LaTeX's spacing left out. A Chinese character is a word."""
    text = unicodedata.normalize("NFKC", text).lower()
    text = text.replace("\\dfrac", "\\frac").replace("\\tfrac", "\\frac")
    return _WORD.findall(_LATEX_SPACE.sub(" ", text))


class Overlap:
    """Which training problems share words in a row with evaluation problems."""

    def __init__(self, measured: Iterable[str], trained: Iterable[str], n: int) -> None:
        """Texts of the evaluation problems and of the training problems; `n`: words in a row that count."""
        self._n = n
        different = dict.fromkeys(tuple(words_of(text)) for text in measured)
        self._whole = set(different)
        self._grams: dict[str, list[int]] = {}
        for index, words in enumerate(different):
            for gram in set(self._grams_of(words)):
                self._grams.setdefault(gram, []).append(index)
        self._trained: Counter[str] = Counter()
        for words in dict.fromkeys(tuple(words_of(text)) for text in trained):
            self._trained.update(gram for gram in set(self._grams_of(words)) if gram in self._grams)

    def find(self, problem: str) -> str | None:
        """The words that `problem` shares with an evaluation problem, or None where it shares too few."""
        words = tuple(words_of(problem))
        if words in self._whole:
            return " ".join(words[: self._n])
        grams = list(self._grams_of(words))
        shared = [gram for gram in grams if gram in self._grams]
        for gram in shared:
            if len(self._grams[gram]) < MANY_MEASURED and self._trained[gram] < MANY_TRAINED:
                return gram
        for _, number in Counter(index for gram in shared for index in self._grams[gram]).most_common(1):
            if number >= MOSTLY * len(grams):
                return shared[0]
        return None

    def _grams_of(self, words: Sequence[str]) -> Iterator[str]:
        return (" ".join(words[start : start + self._n]) for start in range(len(words) - self._n + 1))
