r"""Numbers read exactly: 073, 1,000, -3/4, 1\frac{1}{2}, 3.2 \times 10^5, 0.\overline{3}, 50%, each with or without a unit."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from fractions import Fraction

from dail_runtime.evaluate.grading.units import unit_of

# Beyond these a number is compared as text: exact arithmetic on it would cost more than it tells.
_MAX_EXPONENT = 400
_ENOUGH_DIGITS = 6
_FLOAT_NOISE = Fraction(1, 10**9)

_SIGN = r"(?P<sign>[+-])?\s*"
# A comma (or a space) separates thousands only where every group behind it has three digits: "2,9,4" is a list.
_INTEGER = r"(?:\d{1,3}(?:,\d{3})+(?![\d,])|\d{1,3}(?: \d{3})+(?!\d)|\d+)"
_DECIMAL = rf"(?:{_INTEGER}(?:\.\d*)?|\.\d+)"
_PART = r"-?\s*(?:\d+(?:\.\d*)?|\.\d+)"
_FRACTION = rf"\\frac\s*\{{\s*(?P<over>{_PART})\s*\}}\s*\{{\s*(?P<under>{_PART})\s*\}}"
_FORMS = tuple(
    re.compile(_SIGN + form)
    for form in (
        rf"(?P<whole>\d+)\s*{_FRACTION}",
        r"(?P<whole>\d+) (?P<over>\d+)\s*/\s*(?P<under>\d+)",
        _FRACTION,
        rf"\(?(?P<over>{_DECIMAL})\)?\s*/\s*\(?(?P<under>{_PART})\)?",
        rf"(?P<mantissa>{_DECIMAL})\s*(?:\\times|\\cdot|\*|x)\s*10\s*\^\s*(?:\{{\s*(?P<power>[+-]?\d+)\s*\}}|\(?(?P<power2>[+-]?\d+)\)?)",
        r"10\s*\^\s*(?:\{\s*(?P<power>[+-]?\d+)\s*\}|\(?(?P<power2>[+-]?\d+)\)?)",
        rf"(?P<mantissa>{_DECIMAL})[eE](?P<power>[+-]?\d+)",
        r"(?P<before>\d*)\.(?P<fixed>\d*)\\overline\s*\{(?P<cycle>\d+)\}",
        rf"(?P<decimal>{_DECIMAL})",
    )
)


@dataclass(frozen=True)
class Number:
    """A number as it was written."""

    value: Fraction
    """Its exact value, a percent sign left aside."""
    decimals: int | None
    """Digits behind the decimal point, where it is written as a decimal fraction."""
    percent: bool
    """Whether a percent sign follows."""
    unit: str | None
    """Name of the unit that follows; `?` for one that is not known; None without one."""

    @property
    def digits(self) -> int:
        """Significant digits of the decimal fraction; 0 where it is not one."""
        return len(str(abs(self.value.numerator * 10**self.decimals // self.value.denominator))) if self.decimals else 0


def read_number(text: str) -> Number | None:
    """The number (with its unit) that a cleaned text is, or None where it is anything else."""
    text = text.strip()
    if len(text) > 2 and text[0] == "(" and text[-1] == ")" and "," not in text:
        text = text[1:-1].strip()
    for form in _FORMS:
        match = form.match(text)
        if match is None:
            continue
        rest = text[match.end() :]
        unit = unit_of(rest) if rest.strip() else None
        if rest.strip() and unit is None:
            continue
        value = _value(match.groupdict())
        if value is None:
            return None
        exact = -value[0] if match["sign"] == "-" else value[0]
        return Number(exact, value[1], percent=unit == "%", unit=None if unit == "%" else unit)
    return None


def equal(gold: Number, answer: Number) -> bool:
    """Whether two numbers say the same.

    Percentages: 50% is 0.5, and it is also 50, since an answer to "what percentage" may leave the sign out, on either
    side; 0.5 and 50 differ. Rounding: a decimal fraction of six or more significant digits stands for the fraction that
    it is cut or rounded from (0.333333 for 1/3); shorter ones must be exact. Units that are known must agree.
    """
    if gold.unit and answer.unit and "?" not in (gold.unit, answer.unit) and gold.unit != answer.unit:
        return False
    if gold.percent == answer.percent:
        return _close(gold, answer)
    percent, other = (gold, answer) if gold.percent else (answer, gold)
    share = replace(percent, value=percent.value / 100, decimals=None if percent.decimals is None else percent.decimals + 2)
    return _close(percent, other) or _close(share, other)


def _close(one: Number, two: Number) -> bool:
    apart = abs(one.value - two.value)
    if apart == 0:
        return True
    # Written by a program: 0.30000000000000004 is 0.3.
    noise = max(one.digits, two.digits) > 14 and apart <= _FLOAT_NOISE * max(abs(one.value), abs(two.value))
    if (one.decimals is None) == (two.decimals is None):
        return noise
    decimal = one if one.decimals is not None else two
    # Cutting and rounding move a number by less than one unit of its last digit: 100000.9 is no spelling of 100001.
    return decimal.digits >= _ENOUGH_DIGITS and (apart < Fraction(1, 10 ** (decimal.decimals or 0)) or (noise and apart < _FLOAT_NOISE))


def _value(parts: dict[str, str | None]) -> tuple[Fraction, int | None] | None:
    """Value and decimals of a match; None for a division by zero or an exponent out of bounds."""
    if parts.get("cycle"):
        before, fixed, cycle = parts["before"] or "0", parts["fixed"] or "", parts["cycle"] or ""
        tail = Fraction(int(cycle), (10 ** len(cycle) - 1) * 10 ** len(fixed))
        return Fraction(int(before)) + Fraction(int(fixed or "0"), 10 ** len(fixed)) + tail, None
    if parts.get("under"):
        over, under = _decimal(parts["over"])[0], _decimal(parts["under"])[0]
        whole = int(parts.get("whole") or 0)
        if under == 0 or (parts.get("whole") and over < 0):
            return None
        return whole + over / under, None
    if parts.get("decimal"):
        return _decimal(parts["decimal"])
    power = int(parts.get("power") or parts.get("power2") or "0")
    if abs(power) > _MAX_EXPONENT:
        return None
    mantissa = _decimal(parts.get("mantissa") or "1")[0]
    return mantissa * Fraction(10) ** power, None


def _decimal(text: str | None) -> tuple[Fraction, int | None]:
    digits = re.sub(r"[ ,]", "", text or "")
    _, point, behind = digits.partition(".")
    return Fraction(digits.rstrip(".")), len(behind) if point and behind else None
