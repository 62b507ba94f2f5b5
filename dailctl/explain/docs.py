"""docs/causes.md from the table of causes: `python -m dailctl.explain.docs > docs/causes.md`."""

from __future__ import annotations

import re

from dailctl.explain.cause import Kind, Row, When
from dailctl.explain.table import ROWS

MEANING: dict[When, str] = {
    "Pending": "It has not run yet.",
    "Failed": "It ran, and ended without a result.",
    "Blocked": "The API server does not let it be.",
}
FOLLOWS: dict[Kind, str] = {
    "final": "the run fails",
    "memory": "one more attempt",
    "passing": "another attempt",
    "disrupted": "another attempt, which does not count",
}
LIVE, RECORDED = "tests/cluster/test_explain.py", "tests/unit/test_explain.py"


def as_markdown() -> str:
    """The table."""
    parts = [
        "# Why a run waits or fails\n\n"
        "Written by `python -m dailctl.explain.docs > docs/causes.md` from `dailctl/explain/table.py`. `dailctl describe` and a run's\n"
        "status say these sentences, with the words in angle brackets filled in. Each cause is shown by a test of its own name: on a real\n"
        f"control plane ({LIVE}), or from objects as the API gives them ({RECORDED}). Final: waiting will not help.\n"
    ]
    for when, meaning in MEANING.items():
        last = "What follows" if when == "Failed" else "Final"
        parts.append(f"\n## {when}\n\n{meaning}\n\n| Cause | It says | Remedy | {last} | Shown |\n|---|---|---|---|---|\n")
        parts += [_line(row) for row in ROWS if row.when == when]
    return "".join(parts)


def _line(row: Row) -> str:
    shown = "real control plane" if row.live else "recorded objects"
    follows = FOLLOWS["final" if row.final else row.kind] if row.when == "Failed" else "yes" if row.final else ""
    return f"| {row.name} | {_open(row.sentence)} | {_open(row.remedy)} | {follows} | {shown} |\n"


def _open(text: str) -> str:
    return re.sub(r"\{(\w+)\}", r"&lt;\1&gt;", text).replace("|", "\\|")


if __name__ == "__main__":
    print(as_markdown(), end="")
