"""Units behind a number: found, and told apart where both answers name one that is known."""

from __future__ import annotations

import re

from dail_runtime.evaluate.grading.normalize import plain

UNKNOWN = "?"

_NAMES = {
    "%": "percent percents percentage pct",
    "mm": "millimeter millimetre",
    "cm": "centimeter centimetre",
    "m": "meter metre",
    "km": "kilometer kilometre",
    "in": "inch inches",
    "ft": "foot feet",
    "yd": "yard",
    "mi": "mile",
    "mg": "milligram",
    "g": "gram gm",
    "kg": "kilogram kilo",
    "lb": "pound",
    "oz": "ounce",
    "ms": "millisecond",
    "s": "second sec",
    "min": "minute",
    "h": "hour hr",
    "day": "",
    "week": "",
    "month": "",
    "year": "yr",
    "ml": "milliliter millilitre",
    "l": "liter litre",
    "dollar": "usd buck",
    "cent": "",
    "euro": "eur €",
    "°": "degree deg",
    "rad": "radian",
    "mi/h": "mph",
    "km/h": "kmh kph",
    "newton": "",
    "joule": "",
    "watt": "",
    "volt": "",
}
_UNITS = {name: unit for unit, names in _NAMES.items() for name in (unit, *names.split())}
_SHAPE = re.compile(r"(?P<gap>\s*)(?P<text>\\text\{[^{}]*\})?(?P<rest>[^\W\d_%°€£/^]*[^\\=<>+*()\[\]]*)")
_POWER = re.compile(r"\^\s*\{?\s*([23])\s*\}?")
# "3 or four" is two answers, and no unit makes it one.
_HEDGE = re.compile(r"\b(?:and|or|not|if|to|plus|minus|times)\b")
_WORD = re.compile(r"[^\W\d_]+")


def unit_of(text: str) -> str | None:
    """The unit that `text`, the rest of a cleaned answer behind its number, names; `?` for an unknown one; None where it is no unit."""
    match = _SHAPE.fullmatch(text)
    name = plain(text).strip().casefold()
    if match is None or _HEDGE.search(name):
        return None
    known = _known(name)
    if match["text"] or known == "%" or name.startswith("°"):
        return known or UNKNOWN
    first = _WORD.match(name)
    if first is None:
        return known
    # "5 x", "5 m" and "5ab" are products. A unit without \text is a known name or a word of its own, of two letters or more.
    if known:
        return known if len(first[0]) > 1 or "/" in name else None
    return UNKNOWN if match["gap"] and len(first[0]) > 1 and not re.search(r"[\d^_,]", name) else None


def _known(name: str) -> str | None:
    """The unit's one name: `cm^2` for "square centimeters", `m/s` for "meters per second"; None where a part is not known."""
    name = name.replace("per cent", "percent").replace(" per ", "/").strip()
    if name in _UNITS:
        return _UNITS[name]
    parts = [_one(part.split()) for part in name.split("/")]
    return None if None in parts else "/".join(part for part in parts if part)


def _one(words: list[str]) -> str | None:
    if len(words) == 2 and words[0] in ("square", "sq", "cubic", "cu"):
        words = [f"{words[1]}^{3 if words[0].startswith('cu') else 2}"]
    if len(words) != 1:
        return None
    power = _POWER.search(words[0])
    base = _POWER.sub("", words[0])
    unit = _UNITS.get(base) or _UNITS.get(base.removesuffix("s"))
    return unit and (f"{unit}^{power[1]}" if power else unit)
