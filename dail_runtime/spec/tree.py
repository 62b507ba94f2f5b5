"""A job file as a tree of values that remember where they were written, and complaints about them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

FieldPath = tuple[str | int, ...]


@dataclass(frozen=True, order=True)
class Place:
    """Where something was written: a file with line and column (both from 1), or an override."""

    source: str
    line: int = 0
    column: int = 0

    def __str__(self) -> str:
        return f"{self.source}:{self.line}:{self.column}" if self.line else self.source


@dataclass(frozen=True, order=True)
class Complaint:
    """One thing that is wrong, where, and the remedy."""

    place: Place
    field: str
    sentence: str

    def __str__(self) -> str:
        return ": ".join(part for part in (str(self.place), self.field, self.sentence) if part)


@dataclass(frozen=True)
class LeadingZero:
    """A plain `010`: 8 in YAML 1.1, 10 in YAML 1.2. Neither a number nor a text, so that no field takes it for either."""

    text: str


@dataclass
class Scalar:
    """A single value."""

    place: Place
    text: str
    value: Any
    plain: bool


@dataclass
class Group:
    """A mapping: key -> (place of the key, value)."""

    place: Place
    items: dict[str, tuple[Place, Tree]] = field(default_factory=dict)


@dataclass
class Items:
    """A list."""

    place: Place
    items: list[Tree] = field(default_factory=list)


Tree = Scalar | Group | Items


class SourceError(Exception):
    """The text cannot be read at all; holds every complaint found up to there."""

    def __init__(self, complaints: list[Complaint]) -> None:
        super().__init__("\n".join(map(str, complaints)))
        self.complaints = complaints


def plain(tree: Tree) -> Any:
    """The tree as dicts, lists and scalars."""
    if isinstance(tree, Group):
        return {key: plain(value) for key, (_, value) in tree.items.items()}
    if isinstance(tree, Items):
        return [plain(value) for value in tree.items]
    return tree.value


def scalars(tree: Tree, path: FieldPath = ()) -> Iterator[tuple[FieldPath, Scalar]]:
    """Every scalar with its path."""
    if isinstance(tree, Scalar):
        yield path, tree
    elif isinstance(tree, Group):
        for key, (_, value) in tree.items.items():
            yield from scalars(value, (*path, key))
    else:
        for index, value in enumerate(tree.items):
            yield from scalars(value, (*path, index))
