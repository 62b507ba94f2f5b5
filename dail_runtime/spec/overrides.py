"""Settings given beside a job file (`train.learningRate=1e-3`), put into the file's tree before it is checked."""

from __future__ import annotations

from dail_runtime.spec.source import read_tree
from dail_runtime.spec.tree import Complaint, Group, Items, Place, Scalar, SourceError, Tree

TOP = ("apiVersion", "kind", "metadata", "spec")


def apply_override(tree: Group, override: str, complaints: list[Complaint]) -> None:
    """Put `FIELD=VALUE` into the tree: FIELD is dotted, below `spec` or from the top; VALUE is YAML and replaces what is there.

    What is wrong with it goes to `complaints`.
    """
    name, equals, text = override.partition("=")
    name = name.strip()
    place = Place(f"override {name or override!r}")
    parts = name.split(".")
    if not equals or not all(parts):
        complaints.append(Complaint(place, "", "is not FIELD=VALUE; write it like train.learningRate=1e-3"))
        return
    if parts[0] not in TOP:
        parts.insert(0, "spec")
    found: list[Complaint] = []
    try:
        value = read_tree(text, place.source, found)
    except SourceError as err:
        value, found = None, err.complaints
    if found:
        complaints += [Complaint(place, "", f"in the value, {one.sentence}") for one in found]
        return
    parent = _reach(tree, parts[:-1], place)
    if isinstance(parent, Group):
        parent.items[parts[-1]] = (place, _moved(value, place))
    elif isinstance(parent, Items) and _index(parent, parts[-1]) is not None:
        parent.items[int(parts[-1])] = _moved(value, place)
    else:
        complaints.append(Complaint(place, "", "leads to no group or list entry of the file; check the path (entries count from 0)"))


def _reach(tree: Tree, parts: list[str], place: Place) -> Tree | None:
    """The group or list at the end of the path; groups the file does not have (or leaves empty) are made."""
    for part in parts:
        if isinstance(tree, Items):
            index = _index(tree, part)
            if index is None:
                return None
            tree = tree.items[index]
        elif isinstance(tree, Group):
            held = tree.items.get(part)
            if held is None or (isinstance(held[1], Scalar) and held[1].value is None):
                held = tree.items[part] = (place, Group(place))
            tree = held[1]
        else:
            return None
    return tree


def _index(items: Items, part: str) -> int | None:
    return int(part) if part.isdecimal() and int(part) < len(items.items) else None


def _moved(tree: Tree | None, place: Place) -> Tree:
    """The value with `place` throughout: line and column inside an override say nothing to a person, its name does."""
    if isinstance(tree, Group):
        return Group(place, {key: (place, _moved(value, place)) for key, (_, value) in tree.items.items()})
    if isinstance(tree, Items):
        return Items(place, [_moved(value, place) for value in tree.items])
    return Scalar(place, tree.text, tree.value, tree.plain) if tree else Scalar(place, "", None, True)
