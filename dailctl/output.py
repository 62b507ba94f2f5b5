"""How dailctl prints: data on standard output, talk on standard error, both fit for people and for pipes. Imports nothing heavy."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import sys
from collections.abc import Collection, Iterable, Sequence
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, TextIO

from dail_runtime.errors import UsageError

LEAST = 12
"""Characters that are left of a column of a table however narrow the terminal is."""
STEERING = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")
"""Control characters, and those that turn the direction of writing: what is shown must be what is there."""
RED, YELLOW, OFF = "\x1b[31m", "\x1b[33m", "\x1b[0m"


class Form(StrEnum):
    """Values of `-o`."""

    WIDE = "wide"
    JSON = "json"
    YAML = "yaml"
    NAME = "name"


class Document(StrEnum):
    """Values of `-o` where there is no table."""

    JSON = "json"
    YAML = "yaml"


def tolerant_streams() -> None:
    """Make printing never fail because the terminal's encoding lacks a character of the user's own text."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="backslashreplace")


def is_terminal(stream: TextIO) -> bool:
    """True where a person watches `stream` on a terminal that can move the cursor."""
    return stream.isatty() and os.environ.get("TERM") not in ("dumb", "unknown")


def width_of(stream: TextIO) -> int | None:
    """Characters of a line where a person reads `stream` on a terminal; None for pipes and files, which get everything."""
    return shutil.get_terminal_size().columns if is_terminal(stream) else None


def wants_color(stream: TextIO) -> bool:
    """NO_COLOR (any value) beats FORCE_COLOR, which beats what the stream is."""
    if os.environ.get("NO_COLOR"):
        return False
    return bool(os.environ.get("FORCE_COLOR")) or is_terminal(stream)


def data(text: str) -> None:
    """Print a result on standard output.

    Raises:
        UsageError: it leads to a file that cannot be written.
    """
    try:
        sys.stdout.write(text if text.endswith("\n") else text + "\n")
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as err:
        # Python would try the rest of it once more when it ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        raise UsageError(f"standard output cannot be written ({err.strerror}); make room there, or let it lead elsewhere") from None


def talk(sentence: str) -> None:
    """Tell the user something on standard error."""
    _to_stderr(printable(sentence))


def warn(sentence: str) -> None:
    """Tell the user something that deserves attention."""
    _to_stderr(_colored("warning: " + printable(sentence), YELLOW))


def error(message: str) -> None:
    """Print why dailctl ends: one red line for each line of `message`."""
    for line in printable(message).splitlines() or ["unknown error"]:
        _to_stderr(_colored("error: " + line, RED))


def let_go() -> None:
    """Before the end: a terminal that was closed takes no last words, and Python would end with a code of its own over them."""
    try:
        sys.stderr.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    except ValueError:
        return


def printable(text: str) -> str:
    """`text` with control characters written out: data and file names must not be able to steer the terminal."""
    return STEERING.sub(lambda found: _escaped(found.group()), text)


def document(value: Any, form: Document | Form) -> None:
    """Print `value` (JSON types only) as JSON or YAML."""
    if form.value == "json":
        # JSON itself only escapes what is below a space. The rest can stand in strings alone, where its escape means the same.
        data(STEERING.sub(_as_json, json.dumps(value, indent=2, ensure_ascii=False)))
        return
    import yaml

    text = yaml.safe_dump(value, sort_keys=False, allow_unicode=True)
    # YAML escapes in quoted strings alone: it then writes all of them anew.
    data(yaml.safe_dump(value, sort_keys=False) if STEERING.search(text) else text)


def table(
    head: Sequence[str],
    rows: Iterable[Sequence[str]],
    *,
    width: int | None = None,
    elastic: Collection[str] = (),
    spare: Sequence[str] = (),
) -> str:
    """Columns as kubectl prints them: upper-case names, three spaces between, nothing after the last.

    Args:
        head: names of the columns.
        rows: the cells.
        width: characters a line may have; None: any number.
        elastic: columns that are cut where there is no room for all of them, down to LEAST characters.
        spare: columns that are left out before any is cut, one after the other.
    """
    lines = [tuple(head), *(tuple(printable(cell).replace("\n", " ").replace("\t", " ") for cell in row) for row in rows)]
    for name in spare:
        if width is None or _width(lines) <= width:
            break
        gone = lines[0].index(name)
        lines = [line[:gone] + line[gone + 1 :] for line in lines]
    head = lines[0]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    if width is not None:
        widths = [min(size, max(LEAST, width)) if name in elastic else size for size, name in zip(widths, head, strict=True)]
    over = sum(widths) + 3 * (len(widths) - 1) - width if width is not None else 0
    while over > 0:
        widest = max((n for n, name in enumerate(head) if name in elastic and widths[n] > LEAST), key=lambda n: widths[n], default=None)
        if widest is None:
            break
        widths[widest] -= 1
        over -= 1
    lines = [tuple(_cut(cell, n, name) for cell, n, name in zip(line, widths, head, strict=True)) for line in lines]
    return "".join("   ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() + "\n" for line in lines)


def _width(lines: Sequence[Sequence[str]]) -> int:
    """Characters of the widest line of a table."""
    return sum(max(len(line[column]) for line in lines) for column in range(len(lines[0]))) + 3 * (len(lines[0]) - 1)


def _cut(cell: str, width: int, column: str) -> str:
    """A name loses its middle: its ends tell it from others. Any other text loses its end."""
    if len(cell) <= width:
        return cell
    kept = width // 2 if column == "NAME" else 0
    return f"{cell[: width - 1 - kept]}…{cell[len(cell) - kept :]}"


def duration(seconds: float) -> str:
    """Seconds as people say them, two units at most: `0.4s`, `42s`, `3m10s`, `2h05m`, `3d4h`."""
    if seconds < 9.95:
        return f"{seconds:.1f}s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02d}s"
    if whole < 86400:
        return f"{whole // 3600}h{whole % 3600 // 60:02d}m"
    return f"{whole // 86400}d{whole % 86400 // 3600}h"


def age(since: datetime | None, now: datetime | None = None) -> str:
    """Time passed from then to `now` (where not given: now), in its largest unit as kubectl's AGE column has it; `-` where it never was."""
    if since is None:
        return "-"
    seconds = max(0.0, ((now or datetime.now(UTC)) - since).total_seconds())
    for size, unit in ((86400, "d"), (3600, "h"), (60, "m")):
        if seconds >= 2 * size:
            return f"{int(seconds // size)}{unit}"
    return f"{int(seconds)}s"


def size(count: float) -> str:
    """Bytes as people say them: `312 B`, `4.2 MB`."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def _colored(line: str, color: str) -> str:
    return f"{color}{line}{OFF}" if wants_color(sys.stderr) else line


def _escaped(character: str) -> str:
    code = ord(character)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


def _as_json(found: re.Match[str]) -> str:
    return f"\\u{ord(found.group()):04x}"


def _to_stderr(line: str) -> None:
    # The terminal may be gone; what is told there must not decide how the command ends.
    with contextlib.suppress(OSError, ValueError):
        print(line, file=sys.stderr, flush=True)
