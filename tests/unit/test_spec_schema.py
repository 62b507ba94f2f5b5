"""The committed JSON Schema is that of the model, and explains every field."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dail_runtime.spec.schema import SCHEMA, job_schema, write_schema


def test_the_committed_schema_is_true(tmp_path: Path) -> None:
    write_schema(tmp_path / "schema.json")
    assert SCHEMA.read_bytes() == (tmp_path / "schema.json").read_bytes(), "run: python -m dail_runtime.spec.schema"


def fields(schema: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for name, section in {"DailJob": schema, **schema["$defs"]}.items():
        for field, value in section["properties"].items():
            yield name, field, value


def test_every_field_has_its_docstring_as_description() -> None:
    bare = [f"{section}.{field}" for section, field, value in fields(job_schema()) if not value.get("description")]
    assert bare == []


def test_fields_are_camel_case_and_unknown_ones_are_refused() -> None:
    schema = job_schema()
    assert all("_" not in field for _, field, _ in fields(schema))
    assert all(section["additionalProperties"] is False for section in (schema, *schema["$defs"].values()))


def test_a_variants_overrides_are_checked_like_the_sections_but_may_be_partial() -> None:
    definitions = job_schema()["$defs"]
    for field, section in (("rewrite", "RewriteSpec"), ("select", "SelectSpec"), ("train", "TrainSpec")):
        assert definitions["Variant"]["properties"][field]["$ref"] == f"#/$defs/{section}Overrides"
        overrides = definitions[f"{section}Overrides"]
        assert set(overrides["properties"]) == set(definitions[section]["properties"])
        assert "required" not in overrides
    assert "oneOf" not in json.dumps(definitions["RewriteSpecOverrides"])


def test_every_reference_leads_somewhere() -> None:
    text = json.dumps(job_schema())
    names = {part.split('"')[0] for part in text.split('"#/$defs/')[1:]}
    assert names <= set(job_schema()["$defs"])
