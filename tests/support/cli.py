"""Runs dailctl inside the test's process, through its real entry point, and gives back all a shell would see."""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from dailctl.cli.main import main


@dataclass(frozen=True)
class Said:
    """What one command did."""

    code: int
    out: str
    err: str

    @property
    def errors(self) -> list[str]:
        """The lines on standard error."""
        return self.err.splitlines()


def dailctl(*argv: str | Path, cwd: Path | None = None) -> Said:
    """Run `dailctl ARGV` in the folder `cwd`."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.ExitStack() as stack:
        if cwd is not None:
            stack.enter_context(contextlib.chdir(cwd))
        stack.enter_context(contextlib.redirect_stdout(out))
        stack.enter_context(contextlib.redirect_stderr(err))
        try:
            code = main([str(word) for word in argv])
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 1
    return Said(code, out.getvalue(), err.getvalue())


def tree(folder: Path) -> Mapping[str, bytes | None]:
    """Every path below `folder` with its content (None for folders): two are equal if nothing changed in between."""
    found: dict[str, bytes | None] = {}
    for place, folders, files in os.walk(folder):
        found |= {os.path.relpath(os.path.join(place, one), folder): None for one in folders}  # noqa: PTH118
        found |= {os.path.relpath(os.path.join(place, one), folder): (Path(place) / one).read_bytes() for one in files}  # noqa: PTH118
    return found
