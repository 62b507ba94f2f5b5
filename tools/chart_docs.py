"""Writes charts/dail-run/values.schema.json and the table of values in its README.md from the comments of values.yaml.

`python tools/chart_docs.py` writes them; `--check` only says whether they are true.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

CHART = Path(__file__).parents[1] / "charts" / "dail-run"
MARK = "# --"
SCHEMA = "@schema"
START, END = "<!-- values -->", "<!-- /values -->"
TYPES = {bool: "boolean", int: "integer", float: "number", str: "string", list: "array", dict: "object"}


@dataclass(frozen=True)
class Value:
    """One documented key of values.yaml."""

    path: tuple[str, ...]
    default: Any
    required: bool
    """True where the file gives no default."""
    description: str
    schema: dict[str, Any]
    """What its comment says after @schema."""
    leaf: bool
    """False where its keys are documented themselves."""


def read(text: str) -> list[Value]:
    """Every key of the file that has a comment, or documented keys below it."""
    lines = text.splitlines()
    return list(_walk(yaml.compose(text, Loader=yaml.SafeLoader), (), lines))


def json_schema(values: list[Value]) -> dict[str, Any]:
    """JSON Schema (draft 7) of the values. Keys that the file does not have are refused."""
    made: dict[tuple[str, ...], dict[str, Any]] = {(): _group()}
    for value in values:
        like = value.schema.get("like")
        schema = {"$ref": _pointer(like)} if like else _group() if not value.leaf else _leaf(value)
        if value.description:
            schema = {"description": value.description, **{key: part for key, part in schema.items() if key != "description"}}
        made[value.path] = schema
        parent = made[value.path[:-1]]
        parent["properties"][value.path[-1]] = schema
        if value.required or (not value.leaf and schema.get("required")):
            parent.setdefault("required", []).append(value.path[-1])
    root = made[()]
    root["properties"]["global"] = {"description": "Values that Helm shares between charts; unused.", "type": "object"}
    return {"$schema": "http://json-schema.org/draft-07/schema#", "title": "Values of dail-run", **root}


def table(values: list[Value]) -> str:
    """The values as a Markdown table."""
    rows = ["| Key | Default | What it is |", "| --- | --- | --- |"]
    for value in values:
        if value.leaf:
            default = "(required)" if value.required else f"`{json.dumps(value.default, ensure_ascii=False)}`"
            rows.append(f"| `{'.'.join(value.path)}` | {default} | {value.description} |")
    return "\n".join(rows) + "\n"


def outputs() -> dict[Path, str]:
    """What the files must hold."""
    values = read((CHART / "values.yaml").read_text(encoding="utf-8"))
    readme = CHART / "README.md"
    before, _, rest = readme.read_text(encoding="utf-8").partition(START)
    after = rest.partition(END)[2]
    return {
        CHART / "values.schema.json": json.dumps(json_schema(values), indent=2, ensure_ascii=False) + "\n",
        readme: f"{before}{START}\n{table(values)}{END}{after}",
    }


def _walk(node: yaml.Node, path: tuple[str, ...], lines: list[str]) -> Iterator[Value]:
    for key, child in node.value:
        here = (*path, key.value)
        description, schema = _comment(lines, key.start_mark.line)
        empty = isinstance(child, yaml.ScalarNode) and child.value == ""
        inner = isinstance(child, yaml.MappingNode) and not child.flow_style and not schema and child.value
        default = yaml.SafeLoader("").construct_document(child)
        if not description and not inner:
            raise SystemExit(
                f"values.yaml:{key.start_mark.line + 1}: {'.'.join(here)} has no comment; describe it in a line '# -- ...' above"
            )
        yield Value(here, default, empty and child.style is None and default is None, description, schema, not inner)
        if inner:
            yield from _walk(child, here, lines)


def _comment(lines: list[str], line: int) -> tuple[str, dict[str, Any]]:
    """Description and schema from the comment lines directly above a key."""
    above: list[str] = []
    while line > 0 and lines[line - 1].strip().startswith("#"):
        line -= 1
        above.insert(0, lines[line].strip())
    starts = [number for number, text in enumerate(above) if text.startswith(MARK)]
    if not starts:
        return "", {}
    texts = [text.removeprefix(MARK if number == 0 else "#") for number, text in enumerate(above[starts[-1] :])]
    words, _, schema = "\n".join(texts).partition(SCHEMA)
    return " ".join(words.split()), yaml.safe_load(schema) or {} if schema else {}


def _pointer(path: str) -> str:
    return "#" + "".join(f"/properties/{key}" for key in path.split("."))


def _group() -> dict[str, Any]:
    return {"type": "object", "additionalProperties": False, "properties": {}}


def _leaf(value: Value) -> dict[str, Any]:
    schema = dict(value.schema)
    if "type" not in schema and "enum" not in schema:
        schema["type"] = TYPES[type(value.default)]
    if not value.required:
        schema["default"] = value.default
    return schema


def main(arguments: list[str]) -> int:
    """Write the files, or with --check compare them."""
    stale = [path for path, text in outputs().items() if not path.exists() or path.read_text(encoding="utf-8") != text]
    if "--check" in arguments:
        for path in stale:
            print(f"{path} is not what values.yaml says; run make chart-docs", file=sys.stderr)
        return 1 if stale else 0
    for path, text in outputs().items():
        path.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
