"""What became of a data file's rows."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from dail_runtime.data.rows import BadRow

KEPT_BAD = 1000
"""Bad rows kept with their sentence; the rest is counted."""


@dataclass
class Counts:
    """What became of a file's rows."""

    rows: int = 0
    """Rows read, bad ones included."""
    problems: int = 0
    """Problems made of them."""
    solutions: int = 0
    """Expert solutions of these problems."""
    merged: int = 0
    """Rows that gave a problem another solution."""
    duplicates: int = 0
    """Rows that said nothing new."""
    dropped: Counter[str] = field(default_factory=Counter)
    """Reason -> bad rows."""
    bad: list[BadRow] = field(default_factory=list)
    """The first bad rows, with place and sentence."""

    def drop(self, row: BadRow) -> None:
        """Count a bad row."""
        self.dropped[row.reason] += 1
        if len(self.bad) < KEPT_BAD:
            self.bad.append(row)

    def numbers(self) -> dict[str, Any]:
        """The counts for a manifest."""
        own = {name: getattr(self, name) for name in ("rows", "problems", "solutions", "merged", "duplicates")}
        return {**own, "dropped": dict(sorted(self.dropped.items()))}
