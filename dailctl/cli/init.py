"""`dailctl init`: a commented job file with a little data, to start from."""

from __future__ import annotations

import json
import re
from importlib import resources
from pathlib import Path
from typing import Annotated

import typer

from dailctl import output

FILES = ("job.yaml", "expert.jsonl", "test.jsonl")
SCHEMA = "job.schema.json"
MODEL = "Qwen/Qwen2.5-0.5B-Instruct"


def init(
    folder: Annotated[Path, typer.Argument(metavar="[FOLDER]", help="Where the files go.")] = Path(),
    name: Annotated[str | None, typer.Option("--name", help="Name of the run; made from the folder's name where left out.")] = None,
    model: Annotated[
        str, typer.Option("--model", metavar="ID", help="Model the job trains: a hub id, a folder or s3://bucket/prefix.")
    ] = MODEL,
    force: Annotated[bool, typer.Option("--force", help="Replace files that are there.")] = False,
) -> None:
    """Write a first job.yaml with sample data.

    The job file explains itself in comments; the schema beside it lets editors complete and check it. Asks nothing.
    """
    from dail_runtime.errors import UsageError
    from dail_runtime.spec.job import NAME
    from dail_runtime.spec.schema import job_schema

    chosen = name if name is not None else _name_of(folder)
    if not re.fullmatch(NAME, chosen) or len(chosen) > 40:
        raise UsageError(f"--name {chosen}: a name holds lower-case letters, digits and inner '-', at most 40; choose another")
    there = [str(folder / one) for one in (*FILES, SCHEMA) if (folder / one).exists()]
    if there and not force:
        raise UsageError(f"{', '.join(there)} is there already; choose another folder, or replace it with --force")
    texts = {one: (resources.files("dailctl") / "starter" / one).read_text(encoding="utf-8") for one in FILES}
    # JSON's quoting is YAML's too, whatever the id holds.
    texts["job.yaml"] = texts["job.yaml"].replace("@name@", chosen).replace("@model@", json.dumps(model, ensure_ascii=False))
    texts[SCHEMA] = json.dumps(job_schema(), indent=2, ensure_ascii=False) + "\n"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for one, text in texts.items():
            (folder / one).write_text(text, encoding="utf-8")
    except OSError as err:
        raise UsageError(f"{err.filename}: cannot be written ({err.strerror}); choose a folder of your own") from None
    output.data("".join(f"{folder / one}\n" for one in texts))
    output.talk(f"next: dailctl validate -f {folder / 'job.yaml'}")


def _name_of(folder: Path) -> str:
    slug = re.sub(r"[^a-z0-9]+", "-", folder.resolve().name.lower()).strip("-")[:40].rstrip("-")
    return slug or "first-run"
