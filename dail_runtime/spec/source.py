"""Reads the text of a job file into a tree.

YAML is read by the rules of YAML 1.2 (`no` and `on` are texts, `1e-3` is a number), built from the parser's events without
recursion, so that neither deep nesting nor a bomb of aliases can exhaust the machine.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any, NoReturn

import yaml

from dail_runtime.spec.tree import Complaint, Group, Items, LeadingZero, Place, Scalar, SourceError, Tree

MAX_NODES = 20_000
"""Most values of a job file, aliases counted as often as they are used."""
MAX_DEPTH = 64
"""Deepest nesting of a job file."""

INTEGER = re.compile(r"[-+]?(?:0|[1-9][0-9]*)|0o[0-7]+|0x[0-9a-fA-F]+")
FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")
LEADING_ZERO = re.compile(r"[-+]?0[0-9]+")
WORDS: dict[str, Any] = {"": None, "~": None, "null": None, "true": True, "false": False}
SPECIAL = {".inf": float("inf"), "+.inf": float("inf"), "-.inf": float("-inf"), ".nan": float("nan")}


def resolve(text: str) -> Any:
    """What a plain scalar stands for by the core schema of YAML 1.2."""
    lower = text.lower()
    if lower in WORDS and text in (lower, lower.upper(), lower.capitalize()):
        return WORDS[lower]
    if LEADING_ZERO.fullmatch(text):
        return LeadingZero(text)
    if len(text) < 400 and INTEGER.fullmatch(text):
        return int(text, 0)
    if FLOAT.fullmatch(text):
        return float(text)
    return SPECIAL.get(lower, text)


def read_tree(text: str, source: str, complaints: list[Complaint]) -> Tree | None:
    """The one document in `text`; None where it is empty. What can be read around (a key given twice) goes to `complaints`.

    Raises:
        SourceError: the text is not YAML, too deep, too large, or more than one document.
    """
    # JSON indents with tabs now and then, which YAML forbids; inside JSON's strings a raw tab cannot be.
    if text.lstrip()[:1] in ("{", "["):
        text = text.replace("\t", " ")
    builder = _Builder(source, complaints)
    try:
        for event in yaml.parse(text, Loader=yaml.SafeLoader):
            builder.take(event)
    except yaml.MarkedYAMLError as err:
        mark = err.problem_mark or err.context_mark
        place = Place(source, mark.line + 1, mark.column + 1) if mark else Place(source)
        raise SourceError([*complaints, Complaint(place, "", _syntax(err))]) from None
    except yaml.reader.ReaderError as err:
        line = text.count("\n", 0, err.position) + 1
        place = Place(source, line, err.position - text.rfind("\n", 0, err.position))
        sentence = f"the character U+{ord(text[err.position]):04X} may not be in a YAML file; remove it"
        raise SourceError([*complaints, Complaint(place, "", sentence)]) from None
    return builder.root


def _syntax(err: yaml.MarkedYAMLError) -> str:
    problem = err.problem or err.context or "unknown"
    if "\\t" in problem:
        return "a tab where YAML wants spaces; replace the tab by spaces"
    if "mapping values are not allowed" in problem:
        return "a ':' that is not expected here; check the indentation, or put the value in quotes"
    if "could not find expected ':'" in problem:
        return "a line that is not 'key: value'; check the indentation, and that ':' is followed by a space"
    if "undefined alias" in problem:
        return f"{problem}; define it with & before its use"
    opened = err.context_mark.line + 1 if err.context_mark else 0
    since = f" {err.context} from line {opened}" if err.context and opened else ""
    return f"not valid YAML ({problem}{since}); check indentation, quotes and brackets"


@dataclass
class _Open:
    """A mapping or list whose end has not come yet."""

    tree: Group | Items
    anchor: str | None
    before: int
    key: tuple[str, Place] | None = None
    merges: list[Group] = field(default_factory=list)


class _Builder:
    """Builds the tree from the parser's events."""

    def __init__(self, source: str, complaints: list[Complaint]) -> None:
        self.source = source
        self.complaints = complaints
        self.root: Tree | None = None
        self.open: list[_Open] = []
        self.anchors: dict[str, tuple[Tree, int]] = {}
        self.nodes = 0
        self.documents = 0

    def take(self, event: yaml.Event) -> None:
        assert event.start_mark is not None  # the parser marks every event
        place = Place(self.source, event.start_mark.line + 1, event.start_mark.column + 1)
        if isinstance(event, yaml.DocumentStartEvent):
            self.documents += 1
            if self.documents > 1:
                self._stop(place, "a second document begins here; keep one job a file")
        elif isinstance(event, yaml.AliasEvent):
            if event.anchor not in self.anchors:
                self._stop(place, f"the alias *{event.anchor} is used before &{event.anchor} is complete; define it first")
            tree, nodes = self.anchors[str(event.anchor)]
            self._count(place, nodes)
            self._place(tree, place)
        elif isinstance(event, yaml.ScalarEvent):
            self._count(place, 1)
            tree = self._scalar(event, place)
            self._remember(event.anchor, tree, 1)
            self._place(tree, place)
        elif isinstance(event, yaml.MappingStartEvent | yaml.SequenceStartEvent):
            self._count(place, 1)
            if len(self.open) >= MAX_DEPTH:
                self._stop(place, f"nested deeper than {MAX_DEPTH} levels; a job file never needs that, check the brackets")
            self._tag(event.tag, place, "map" if isinstance(event, yaml.MappingStartEvent) else "seq")
            tree = Group(place) if isinstance(event, yaml.MappingStartEvent) else Items(place)
            self.open.append(_Open(tree, event.anchor, self.nodes - 1))
        elif isinstance(event, yaml.MappingEndEvent | yaml.SequenceEndEvent):
            closed = self.open.pop()
            for merged in closed.merges:
                assert isinstance(closed.tree, Group)
                for key, item in merged.items.items():
                    closed.tree.items.setdefault(key, item)
            self._remember(closed.anchor, closed.tree, self.nodes - closed.before)
            self._place(closed.tree, place)

    def _stop(self, place: Place, sentence: str) -> NoReturn:
        raise SourceError([*self.complaints, Complaint(place, "", sentence)])

    def _count(self, place: Place, nodes: int) -> None:
        self.nodes += nodes
        if self.nodes > MAX_NODES:
            self._stop(place, f"more than {MAX_NODES} values, aliases counted as often as they are used; a job file is smaller than that")

    def _remember(self, anchor: str | None, tree: Tree, nodes: int) -> None:
        if anchor is not None:
            self.anchors[anchor] = (tree, nodes)

    def _tag(self, tag: str | None, place: Place, expected: str) -> None:
        if tag not in (None, "!", f"tag:yaml.org,2002:{expected}"):
            shown = str(tag).replace("tag:yaml.org,2002:", "!!")
            self.complaints.append(Complaint(place, "", f"the tag {shown} is not allowed in a job file; remove it"))

    def _scalar(self, event: yaml.ScalarEvent, place: Place) -> Scalar:
        plain_text = event.implicit[0] and event.style is None
        self._tag(event.tag, place, "str")
        text = event.value
        if any("\ud800" <= letter <= "\udfff" for letter in text):
            # JSON writes characters beyond U+FFFF as two \u escapes; YAML's reader leaves the two halves apart.
            try:
                text = text.encode("utf-16", "surrogatepass").decode("utf-16")
            except UnicodeDecodeError:
                self.complaints.append(Complaint(place, "", "half of a \\u surrogate pair; write the character itself"))
                text = ""
        return Scalar(place, text, resolve(text) if plain_text else text, plain_text)

    def _place(self, tree: Tree, used_at: Place) -> None:
        """Put a finished value where it belongs: the root, a list, or a mapping's key or value."""
        if not self.open:
            self.root = tree
            return
        top = self.open[-1]
        if isinstance(top.tree, Items):
            top.tree.items.append(tree)
        elif top.key is None:
            if not isinstance(tree, Scalar):
                self._stop(tree.place, "a list or mapping where a key belongs; check the brackets, and quote keys that begin with one")
            top.key = (tree.text, used_at)
        else:
            (key, key_place), top.key = top.key, None
            if key == "<<" and (groups := _merge_sources(tree)) is not None:
                top.merges.extend(groups)
            elif key in top.tree.items:
                first = top.tree.items[key][0]
                self.complaints.append(Complaint(key_place, key, f"the key is already on line {first.line}; remove one of the two"))
            else:
                top.tree.items[key] = (key_place, tree)


def _merge_sources(tree: Tree) -> list[Group] | None:
    """The mappings that `<<: *name` or `<<: [*a, *b]` merges, or None where it is something else."""
    if isinstance(tree, Group):
        return [tree]
    if isinstance(tree, Items) and all(isinstance(item, Group) for item in tree.items):
        return [item for item in tree.items if isinstance(item, Group)]
    return None
