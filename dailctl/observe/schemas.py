"""Writes schema/NAME.schema.json for every document that a verb prints: `python -m dailctl.observe.schemas [FOLDER]`."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from dailctl.observe.model import DOCUMENTS

FOLDER = Path("schema")


def schemas() -> dict[str, str]:
    """File name -> its text."""
    found = {}
    for name, model in DOCUMENTS.items():
        schema = model.model_json_schema(by_alias=True, mode="serialization")
        schema = {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}
        found[f"{name}.schema.json"] = json.dumps(schema, indent=2, ensure_ascii=False) + "\n"
    return found


if __name__ == "__main__":
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER
    for file, text in schemas().items():
        (folder / file).write_text(text, encoding="utf-8")
