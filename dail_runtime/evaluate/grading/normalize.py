r"""One spelling for the many ways to write the same LaTeX: `$\dfrac12$.` and `\frac{1}{2}`. No meaning is decided here."""

from __future__ import annotations

import re
import unicodedata

# Characters that NFKC would merge into their neighbours (x², 3½) or leave alone.
_CHARACTERS = str.maketrans(
    {
        "−": "-", "–": "-", "—": "-", "‐": "-", "‑": "-", "×": r"\times ", "·": r"\cdot ", "⋅": r"\cdot ", "÷": "/", "∕": "/",
        "π": r"\pi ", "∞": r"\infty ", "⁄": "/", "θ": r"\theta ", "≤": r"\le ", "≥": r"\ge ", "≠": r"\ne ", "±": r"\pm ",
        "∪": r"\cup ", "∈": r"\in ", "∅": r"\emptyset ", "º": "°", "⁰": "^{0}", "¹": "^{1}", "²": "^{2}", "³": "^{3}", "⁴": "^{4}",
        "⁵": "^{5}", "⁶": "^{6}", "⁷": "^{7}", "⁸": "^{8}", "⁹": "^{9}", "½": r"\frac{1}{2}", "⅓": r"\frac{1}{3}", "⅔": r"\frac{2}{3}",
        "¼": r"\frac{1}{4}", "¾": r"\frac{3}{4}", "⅕": r"\frac{1}{5}", "⅛": r"\frac{1}{8}", "’": "'", "‘": "'", "“": '"', "”": '"',
    }
)  # fmt: skip

# Each rule is (pattern, replacement), in order. Where a rule removes `\x`, a line break `\\` before x is left alone.
_ONE = r"(?<!\\)"
_RULES: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"√\s*(?:\(([^()]*)\)|(\d+(?:\.\d+)?|[A-Za-z]))", r"\\sqrt{\1\2}"),
        (_ONE + r"\\[()\[\]]|\$|\\\$", " "),  # delimiters of mathematics, and dollars as money
        (_ONE + r"\\(?:left|right|middle|[bB]igg?[lrm]?)(?![A-Za-z])\s*\.?", ""),
        (_ONE + r"\\(?:displaystyle|textstyle|limits|nolimits|hfill|rm|bf|it)(?![A-Za-z])", ""),
        (r"\{,\}", ","),
        (r"(?<=\d)" + _ONE + r"\\[,;:! ]\s*(?=\d{3}(?!\d))", ","),  # 1\,000
        (_ONE + r"\\!", ""),
        (_ONE + r"(?:\\[,;: >]|\\q?quad(?![A-Za-z])|~)", " "),
        (r"\s+", " "),  # from here on a space is one space, which keeps the patterns below linear
        (r"\\[dtc]frac(?![A-Za-z])", r"\\frac"),
        (r"\\[dt]binom(?![A-Za-z])", r"\\binom"),
        (r"\\(?:leqslant|leq)(?![A-Za-z])", r"\\le"),
        (r"\\(?:geqslant|geq)(?![A-Za-z])", r"\\ge"),
        (r"\\neq(?![A-Za-z])", r"\\ne"),
        (r"\\varnothing(?![A-Za-z])|\\\{\s*\\\}", r"\\emptyset"),
        (r"\\lbrace(?![A-Za-z])", r"\\{"),
        (r"\\rbrace(?![A-Za-z])", r"\\}"),
        (r"\\(?:mathrm|mathbf|mathit|mathsf|textbf|textit|textrm|textnormal|textsf|mbox|hbox)\s*\{", r"\\text{"),
        (r"\\text\s+\{", r"\\text{"),
        (r"(?<=\d) ?\^? ?\{? ?(?:\\text\{ ?(?:st|nd|rd|th) ?\} ?\}?|(?<=\d)(?:st|nd|rd|th)(?!\w))", ""),  # 15th
        (r"\\%| ?\\text\{ ?% ?\}", "%"),
        (r" ?(?:\^ ?\{ ?\\circ ?\}|\^ ?\\circ(?![A-Za-z])|\^?\\degree(?![A-Za-z]))", "°"),
        (r"\\(?:lor|vee)(?![A-Za-z])|,?\s*\\text\{\s*,?\s*or\s*\}", " or "),
        (r",?\s*\\text\{\s*,?\s*and\s*\}", " and "),
        (r"\\(frac|binom)\s*(\d|[A-Za-z](?![A-Za-z]))", r"\\\1{\2}"),  # \frac12, \frac1{2}, \frac{1}2, \sqrt2
        (r"\\(frac|binom)\s*(\{[^{}]*\})\s*(\d|[A-Za-z])", r"\\\1\2{\3}"),
        (r"\\sqrt\s*(\d|[A-Za-z])", r"\\sqrt{\1}"),
        (r"(?<![A-Za-z\\])sqrt\s*\(([^()]*)\)", r"\\sqrt{\1}"),
        (r"(?<![A-Za-z\\])(?:pi|PI|Pi)(?![A-Za-z])", r"\\pi "),
        (r"(?<![A-Za-z\\])(?:infinity|inf|oo)(?![A-Za-z])", r"\\infty "),
        (r"\s+", " "),
    )
)
_EDGES = ' ,;:"`*'
_MOST_BRACES = 20  # more around an answer are no way to write one
_SINGLE = re.compile(r"([\^_])\{(\w)\}")
_PRODUCT = re.compile(r"\\(?:cdot|times|ast)(?![A-Za-z])")
_TEXT = re.compile(r"\\text\{([^{}]*)\}")
_SPACE = re.compile(r"\s+(?=\W)|(?<=\W)\s+")
_WORDS = re.compile(r"[^\W\d_](?:[^\W\d_]|[ .,'\"&-])*")


def clean(text: str) -> str:
    """`text` in one spelling, without delimiters, spacing commands, a closing full stop or quotes around it."""
    text = unicodedata.normalize("NFKC", text.translate(_CHARACTERS))
    for pattern, replacement in _RULES:
        text = pattern.sub(replacement, text)
    text = _trim(text)
    for _ in range(_MOST_BRACES):
        if not (text.startswith("{") and text.endswith("}") and _closes_at_end(text)):
            break
        text = _trim(text[1:-1])
    whole = _TEXT.fullmatch(text)
    return _trim(whole[1]) if whole and any(char.isdigit() for char in text) else text


def plain(text: str) -> str:
    r"""`text` with every `\text{...}` opened."""
    return _TEXT.sub(r"\1", text)


def spelling(text: str) -> str:
    """What two cleaned texts share when they differ only in spaces that mean nothing, product signs or the case of words."""
    # A space between digits or letters stays: "1 1/2" is not "11/2".
    text = _SPACE.sub("", _PRODUCT.sub("*", _SINGLE.sub(r"\1\2", plain(text)).strip()))
    return text.casefold().replace("-", " ") if _WORDS.fullmatch(text) else text


def is_words(text: str) -> bool:
    """Whether a cleaned text is prose: a name, yes, `no solution`. Up to two letters are variables unless LaTeX calls them text."""
    opened = plain(text).strip()
    return bool(_WORDS.fullmatch(opened)) and (opened != text or len(opened) > 2)


def _trim(text: str) -> str:
    text = text.lstrip(_EDGES).rstrip(_EDGES + ".")
    while text.startswith(("=", r"\approx")):
        text = text.removeprefix("=").removeprefix(r"\approx").lstrip(_EDGES)
    return text


def _closes_at_end(text: str) -> bool:
    depth, at = 0, 0
    while at < len(text):
        if text[at] == "\\":
            at += 1
        elif text[at] in "{}":
            depth += 1 if text[at] == "{" else -1
            if depth == 0:
                return at == len(text) - 1
        at += 1
    return False
