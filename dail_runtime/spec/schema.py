"""The JSON Schema of job files, for editors: completion, types and the docstrings as help. Kept true by a test.

Write it with `python -m dail_runtime.spec.schema`.
"""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

from dail_runtime.spec.job import DailJob

SCHEMA = Path(__file__).parents[2] / "schema" / "dailjob.schema.json"
"""Where the committed schema lies."""
OVERRIDABLE = {"rewrite": "RewriteSpec", "select": "SelectSpec", "train": "TrainSpec"}


def job_schema() -> dict[str, Any]:
    """JSON Schema (draft 2020-12) of a job file."""
    schema = DailJob.model_json_schema(by_alias=True, mode="validation")
    definitions = schema["$defs"]
    for section in (schema, *definitions.values()):
        for value in section["properties"].values():
            # Made from the field's name ("Maxtokens"), it would only hide the name in an editor.
            value.pop("title", None)
    for field, section in OVERRIDABLE.items():
        override = definitions["Variant"]["properties"][field]
        override.pop("additionalProperties", None)
        override["$ref"] = f"#/$defs/{section}Overrides"
        definitions[f"{section}Overrides"] = _partial(definitions[section])
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "DailJob",
        **{key: value for key, value in schema.items() if key != "title"},
    }


def _partial(section: dict[str, Any]) -> dict[str, Any]:
    """A section as an override: every field may be left out, also the kind of a union, which is then the job's own."""
    partial = copy.deepcopy(section)
    partial.pop("required", None)
    for value in partial["properties"].values():
        value.pop("default", None)
        if "discriminator" in value:
            for key in ("discriminator", "oneOf"):
                value.pop(key)
            value["type"] = "object"
    return partial


def write_schema(path: Path = SCHEMA) -> None:
    """Write the schema, so that the same model gives the same bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(job_schema(), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    write_schema()
