"""`dailctl schema`: the JSON Schema of the job file, for editors and reviewers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from dail_runtime.errors import UsageError
from dailctl import output


def schema(
    to: Annotated[Path | None, typer.Option("--to", metavar="FILE", help="Write to this file instead of standard output.")] = None,
) -> None:
    """Print the JSON Schema of the job file."""
    from dail_runtime.spec.schema import job_schema

    text = json.dumps(job_schema(), indent=2, ensure_ascii=False) + "\n"
    if to is None:
        output.data(text)
        return
    try:
        to.write_text(text, encoding="utf-8")
    except OSError as err:
        raise UsageError(f"{to}: cannot be written ({err.strerror}); choose another file with --to") from None
    output.talk(f"wrote {to}")
