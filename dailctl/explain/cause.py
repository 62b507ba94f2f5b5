"""A cause: what is wrong with an object, in a sentence, and what to do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

When = Literal["Pending", "Failed", "Blocked"]
"""`Pending`: its turn to run has not come; `Failed`: it ran, and ended without a result; `Blocked`: the API server does not let it be."""
Kind = Literal["final", "memory", "passing", "disrupted"]
"""What kind of failure ended an attempt. `final`: the same again would fail again; `memory`: it took more than there is; `passing`: a
fault of the store, a server, the process; `disrupted`: the cluster took a pod away."""


@dataclass(frozen=True)
class Cause:
    """Why one object is not where it should be."""

    name: str
    """Its name in the table of causes (docs/causes.md)."""
    when: When
    subject: str
    """The object, as kubectl names it: `pod/x`."""
    sentence: str
    """What is wrong. Without a full stop."""
    remedy: str
    """What to do, as an imperative. Without a full stop."""
    final: bool = False
    """Whether waiting will not help."""
    kind: Kind = "passing"
    """Of a failure."""

    @property
    def told(self) -> str:
        """Sentence and remedy in one line."""
        return f"{self.sentence}; {self.remedy}"


@dataclass(frozen=True)
class Row:
    """A row of the table: a kind of cause."""

    name: str
    when: When
    sentence: str
    """Of a cause of this kind; `{...}` is filled in from the object."""
    remedy: str
    final: bool = False
    kind: Kind = "passing"
    """Of a failure; final ones are `final`."""
    live: bool = False
    """Whether its test produces it on a real control plane; the others are shown from objects written as the API gives them."""

    def of(self, subject: str, *, remedy: str | None = None, final: bool | None = None, **facts: object) -> Cause:
        """A cause of this kind; `remedy` and `final`: where the object tells more than the row knows."""
        filled = {name: one_line(value) for name, value in facts.items()}
        said = (self.remedy if remedy is None else remedy).format(**filled)
        hopeless = self.final if final is None else final
        return Cause(self.name, self.when, subject, self.sentence.format(**filled), said, hopeless, "final" if hopeless else self.kind)


MOST = 300
"""Characters of a controller's own words."""


def one_line(text: object) -> str:
    """A controller's message in one line of bearable length."""
    line = " ".join(str(text).split()).rstrip(".")
    return line if len(line) <= MOST else f"{line[: MOST - 3]}..."
