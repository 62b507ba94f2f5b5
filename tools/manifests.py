"""Renders manifests/overlays/*/run from manifests/base/job.yaml and each overlay's overrides, with `dailctl render`.

`python tools/manifests.py` writes them; `--check` only says whether they are true; an overlay's name prints its `--set` options.
"""

from __future__ import annotations

import contextlib
import filecmp
import io
import shlex
import sys
import tempfile
from pathlib import Path

from dailctl.cli.main import main as dailctl

MANIFESTS = Path(__file__).parents[1] / "manifests"
JOB = MANIFESTS / "base" / "job.yaml"


def options(overlay: Path) -> list[str]:
    """Its overrides as options of dailctl."""
    lines = (overlay / "overrides").read_text(encoding="utf-8").splitlines()
    return [word for line in lines if line and not line.startswith("#") for word in ("--set", line)]


def render(overlay: Path, to: Path) -> None:
    """Write the run's objects into a folder."""
    talk = io.StringIO()
    with contextlib.redirect_stderr(talk):
        code = dailctl(["render", "-f", str(JOB), *options(overlay), "--to", str(to)])
    if code:
        raise SystemExit(f"{overlay}: {talk.getvalue()}")


def stale(overlay: Path) -> list[str]:
    """Files of the overlay's run that are missing, left over or not what the job says."""
    with tempfile.TemporaryDirectory() as folder:
        render(overlay, Path(folder))
        found = filecmp.dircmp(overlay / "run", folder)
        return sorted([*found.left_only, *found.right_only, *found.diff_files])


def main(arguments: list[str]) -> int:
    """Write or check the overlays, or print one's options."""
    overlays = sorted(path.parent for path in MANIFESTS.glob("overlays/*/overrides"))
    names = [overlay.name for overlay in overlays]
    if arguments and arguments[0] in names:
        print(shlex.join(options(overlays[names.index(arguments[0])])))
        return 0
    if "--check" not in arguments:
        for overlay in overlays:
            render(overlay, overlay / "run")
        return 0
    found = {overlay: stale(overlay) for overlay in overlays}
    for overlay, files in found.items():
        if files:
            print(f"{overlay / 'run'}: {', '.join(files)} not as manifests/base/job.yaml says; run make manifests", file=sys.stderr)
    return 1 if any(found.values()) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
