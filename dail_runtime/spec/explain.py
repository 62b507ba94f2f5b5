"""Pydantic's findings about a job file as plain sentences with a place, a field and a remedy."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, get_args

from pydantic import ValidationError
from pydantic.alias_generators import to_camel
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from dail_runtime.spec.base import Section
from dail_runtime.spec.job import DailJob, OverridesError, Settings
from dail_runtime.spec.tree import Complaint, FieldPath, Group, Items, LeadingZero, Place, Scalar, Tree, scalars

QUOTED = re.compile(r"'([^']*)'")
NUMERIC = re.compile(r"\b(?:int|float)\b")
ENDLESS = re.compile(r"\s*[-+]?(?:nan|inf|infinity)\s*", re.IGNORECASE)


def explain(err: ValidationError, tree: Tree) -> list[Complaint]:
    """Every finding of `err` about `tree`, in the order of the file."""
    found: dict[Complaint, None] = {}
    for details in err.errors(include_url=False):
        for complaint in _explain_one(details, (), DailJob, tree):
            found[complaint] = None
    return sorted(found)


def misread(tree: Tree) -> list[Complaint]:
    """What pydantic would take but nobody means: true as the number 1, numbers without end, 010."""
    found = []
    for path, scalar in scalars(tree):
        root, tail = (Settings, path[3:]) if path[:2] == ("spec", "variants") else (DailJob, path)
        info = Target.at(root, tail).info
        if info is None or not NUMERIC.search(str(info.annotation)):
            continue
        sentence = ""
        if isinstance(scalar.value, bool):
            sentence = f"expects a number, not {scalar.text}; write a number{_default(info)}"
        elif isinstance(scalar.value, LeadingZero):
            digits = scalar.text.lstrip("+-0") or "0"
            sentence = f"{scalar.text} is base 8 to some readers of YAML and base 10 to others; write {digits} (or 0o{digits} for base 8)"
        elif ENDLESS.fullmatch(str(scalar.value)):
            sentence = f"{scalar.text} is not a finite number; write an ordinary number{_default(info)}"
        if sentence:
            found.append(Complaint(scalar.place, ".".join(map(str, path)), sentence))
    return found


def locate(tree: Tree, path: FieldPath) -> tuple[Tree | None, Place, FieldPath]:
    """The value at `path` (None where it is missing), the place to point at, and the path without union tags."""
    node: Tree = tree
    place = tree.place
    walked: list[str | int] = []
    for position, part in enumerate(path):
        if isinstance(node, Group) and str(part) in node.items:
            place, node = node.items[str(part)]
            walked.append(part)
        elif isinstance(node, Items) and isinstance(part, int) and part < len(node.items):
            node = node.items[part]
            place = node.place
            walked.append(part)
        elif isinstance(node, Group) and position < len(path) - 1 and _is_tag(node, part):
            continue
        else:
            return None, place, (*walked, *path[position:])
    return node, place, tuple(walked)


def _is_tag(node: Group, part: str | int) -> bool:
    kind = node.items.get("kind")
    return kind is not None and isinstance(kind[1], Scalar) and kind[1].value == part


def _explain_one(details: ErrorDetails, prefix: FieldPath, root: type[Section], tree: Tree) -> Iterator[Complaint]:
    cause = details.get("ctx", {}).get("error")
    if isinstance(cause, OverridesError):
        for variant, section, err in cause.found:
            for inner in err.errors(include_url=False):
                yield from _explain_one({**inner, "loc": (section, *inner["loc"])}, ("spec", "variants", variant), Settings, tree)
        return
    loc: FieldPath = details["loc"]
    node, place, path = locate(tree, (*prefix, *loc))
    # Point at the value that is wrong, at the key that should not be there, at the group that lacks something.
    if node is not None and details["type"] != "extra_forbidden":
        place = node.place
    if prefix and node is None and details["type"] != "missing":
        # The value is the job's own; what the variant says clashes with it.
        _, place, _ = locate(tree, prefix)
    yield Complaint(place, ".".join(map(str, path)), _sentence(details, Target.at(root, loc), path))


@dataclass(frozen=True)
class Target:
    """What the model says about a path: the field, and the sections a value there may be."""

    info: FieldInfo | None
    sections: tuple[type[Section], ...]
    parents: tuple[type[Section], ...]

    @classmethod
    def at(cls, root: type[Section], path: FieldPath) -> Target:
        """Follow `path` from `root`; indices, keys of free mappings and union tags lead to no field of their own."""
        info: FieldInfo | None = None
        sections: tuple[type[Section], ...] = (root,)
        parents: tuple[type[Section], ...] = (root,)
        for part in path:
            fields = {info.alias: info for section in sections for info in section.model_fields.values()}
            tagged = tuple(section for section in sections if len(sections) > 1 and part == _kind(section))
            if tagged:
                sections = parents = tagged
            elif part in fields:
                info, parents = fields[str(part)], sections
                sections = tuple(_sections(info.annotation))
            elif isinstance(part, str) and sections and not (info and _is_free_mapping(info)):
                return cls(None, (), sections)
        return cls(info, sections, parents)


def _kind(section: type[Section]) -> Any:
    field = section.model_fields.get("kind")
    return get_args(field.annotation)[0] if field else None


def _is_free_mapping(info: FieldInfo) -> bool:
    return str(info.annotation).startswith("dict[")


def _sections(annotation: Any) -> Iterator[type[Section]]:
    if isinstance(annotation, type) and issubclass(annotation, Section):
        yield annotation
    for inner in get_args(annotation):
        yield from _sections(inner)


def _show(value: Any) -> str:
    """A value as it may appear in a message: short, and never a whole group."""
    if isinstance(value, LeadingZero):
        return value.text
    if isinstance(value, dict):
        return "a group of fields"
    if isinstance(value, list | tuple):
        return "a list"
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return repr(value if len(value) <= 60 else value[:57] + "...")
    return f"{value:g}" if isinstance(value, float) else str(value)


def _sentence(details: ErrorDetails, target: Target, path: FieldPath) -> str:
    kind, ctx, value = details["type"], details.get("ctx", {}), details["input"]
    shown = _show(value)
    if kind == "missing":
        return f"is missing; add it{_meaning(target.info)}"
    if kind == "extra_forbidden":
        return _unknown(str(path[-1]), target.parents)
    if kind == "value_error":
        return str(ctx["error"])
    if kind == "literal_error":
        allowed = QUOTED.findall(str(ctx["expected"]))
        near = difflib.get_close_matches(str(value), allowed, 1)
        reason = _meaning(target.info, whole=True) if len(allowed) == 1 else ""
        return f"{shown} is not known here; write {_either(near or allowed)}{reason}"
    if kind == "union_tag_invalid":
        allowed = QUOTED.findall(str(ctx["expected_tags"]))
        near = difflib.get_close_matches(str(ctx["tag"]), allowed, 1)
        return f"the kind {_show(ctx['tag'])} is not known here; write kind: {_either(near or allowed)}"
    if kind == "union_tag_not_found":
        return f"the kind is missing; add kind: {_either([str(_kind(section)) for section in target.sections])}"
    if kind == "model_attributes_type" and len(target.sections) > 1:
        return f"expects a group of fields, not {shown}; write it as {{kind: {_kind(target.sections[0])}}}, or with kind: " + _either(
            [str(_kind(section)) for section in target.sections[1:]]
        )
    return f"{_mismatch(kind, ctx, shown)}{_default(target.info)}"


RANGE = {
    "greater_than_equal": ("ge", "at least"),
    "greater_than": ("gt", "more than"),
    "less_than_equal": ("le", "at most"),
    "less_than": ("lt", "less than"),
}
WANTED = {
    ("int_type", "int_parsing", "int_parsing_size"): "a whole number",
    ("int_from_float",): "a whole number",
    ("float_type", "float_parsing"): "a number",
    ("bool_type", "bool_parsing"): "true or false",
    ("string_type",): "a text",
    ("model_type", "model_attributes_type", "dict_type"): "a group of fields (key: value, indented below it)",
    ("tuple_type", "list_type"): "a list ([a, b], or lines that begin with '- ')",
}


def _mismatch(kind: str, ctx: dict[str, Any], shown: str) -> str:
    if kind in RANGE:
        bound, words = RANGE[kind]
        return f"{shown} is out of range; write a number that is {words} {_show(ctx[bound])}"
    for kinds, wanted in WANTED.items():
        if kind in kinds:
            if shown == "nothing":
                return f"is empty, but expects {wanted}; fill it in or remove the key"
            return f"expects {wanted}, not {shown}; correct it"
    if kind == "string_pattern_mismatch":
        return f"{shown} may hold only lower-case letters, digits and '-', and begins and ends with a letter or digit; rename it"
    if kind == "string_too_short":
        return "is empty; fill it in"
    if kind == "string_too_long":
        return f"{shown} is too long; use at most {ctx['max_length']} characters"
    if kind in ("too_short", "too_long"):
        wanted = f"at least {ctx['min_length']}" if kind == "too_short" else f"at most {ctx['max_length']}"
        return f"the list has {ctx['actual_length']} entries; give {wanted}"
    return f"{shown} does not fit here; correct it"


def _unknown(key: str, parents: tuple[type[Section], ...]) -> str:
    """What is said about a key that is no field: the likely name, the place it belongs to, or what there is."""
    known = [str(info.alias) for section in parents for info in section.model_fields.values()]
    camel = to_camel(key.replace("-", "_"))
    near = [camel] if camel in known else _close(key, known, 0.75)
    if near:
        return f"no such field here; did you mean {near[0]}?"
    homes = sorted({home for home, name in _fields(DailJob) if name in (key, camel)}, key=lambda home: (home.count("."), home))
    if homes:
        return f"no such field here; it belongs under {homes[0] or 'the top level'}"
    perhaps = _close(key, known, 0.6)
    remedy = f"did you mean {perhaps[0]}?" if perhaps else f"remove it, or use one of: {', '.join(known)}"
    return f"no such field here; {remedy}"


def _close(key: str, known: list[str], cutoff: float) -> list[str]:
    """Known names that look like `key`, however it is written."""
    lower = {name.lower(): name for name in known}
    return [lower[name] for name in difflib.get_close_matches(key.lower().replace("_", "").replace("-", ""), list(lower), 1, cutoff)]


def _fields(section: type[Section], home: str = "") -> Iterator[tuple[str, str]]:
    """Every (path of the group, name of the field) below `section`; not inside lists and free mappings."""
    for info in section.model_fields.values():
        name = str(info.alias)
        yield home, name
        inner = list(_sections(info.annotation))
        if len(inner) == 1 and "tuple[" not in str(info.annotation) and not _is_free_mapping(info):
            yield from _fields(inner[0], f"{home}.{name}" if home else name)


def _either(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} or {names[-1]}"


def _meaning(info: FieldInfo | None, whole: bool = False) -> str:
    """What the field's docstring says about it: its first sentence, or all."""
    if info is None or not info.description:
        return ""
    words = " ".join(info.description.split())
    return f" ({(words if whole else words.split('. ')[0]).rstrip('.')})"


def _default(info: FieldInfo | None) -> str:
    if info is None or info.is_required() or not isinstance(info.default, str | int | float):
        return ""
    shown = _show(info.default)
    return f" (the default is {shown})" if len(shown) < 60 else ""
