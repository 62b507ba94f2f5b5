"""The base of the images where no image registry is reachable: Debian with its Python, made from Debian's packages by mmdebstrap."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from pathlib import Path

REGISTRY = "python:3.11-slim-bookworm"
"""Python 3.11, for which requirements/constraints.txt is resolved."""
# Bookworm's Python is 3.11; the next release's is newer than dail and its dependencies support.
SUITE = "bookworm"
# usr-is-merged: the package that apt would choose instead, usrmerge, brings 55 MB of Perl for a root that is merged from the start.
PACKAGES = ("ca-certificates", "python3", "usr-is-merged")
LEFT_OUT = ("man", "locale", "doc", "info")
COMMAND = (
    "mmdebstrap",
    "--quiet",
    "--variant=minbase",
    "--hook-dir=/usr/share/mmdebstrap/hooks/merged-usr",
    f"--include={','.join(PACKAGES)}",
    '--aptopt=APT::Install-Recommends "false"',
    '--aptopt=Acquire::Languages "none"',
    *(f"--dpkgopt=path-exclude=/usr/share/{folder}/*" for folder in LEFT_OUT),
    "--dpkgopt=path-include=/usr/share/doc/*/copyright",
    # The builder's own name and name servers.
    '--customize-hook=rm -f "$1/etc/resolv.conf" "$1/etc/hostname"',
    SUITE,
)


def debian(engine: str, cache: Path) -> str:
    """Reference of the Debian base in `engine`'s store; made once per user (half a minute) and imported where it is missing.

    Raises:
        SystemExit: mmdebstrap or the right to use it is missing.
    """
    digest = hashlib.sha256("\0".join(COMMAND).encode()).hexdigest()[:12]
    reference, archive = f"localhost/dail/debian:{digest}", cache / f"debian-{digest}.tar"
    if not archive.exists():
        if shutil.which(COMMAND[0]) is None or os.geteuid() != 0:
            raise SystemExit(
                f"{REGISTRY} cannot be pulled, and a Debian base is made by root with mmdebstrap (apt-get install mmdebstrap); "
                "or name another base that has Python 3.11 or 3.12: --base IMAGE"
            )
        part = archive.with_suffix(".part")
        subprocess.run([*COMMAND, "--format=tar", str(part)], check=True)
        part.rename(archive)
    if subprocess.run([engine, "inspect", reference], capture_output=True).returncode:
        _import(engine, archive, reference)
    return reference


def _import(engine: str, archive: Path, reference: str) -> None:
    if engine != "buildah":
        subprocess.run([engine, "import", str(archive), reference], check=True, stdout=subprocess.DEVNULL)
        return
    container = subprocess.run([engine, "from", "scratch"], capture_output=True, text=True, check=True).stdout.strip()
    subprocess.run([engine, "add", "--quiet", container, str(archive), "/"], check=True, stdout=subprocess.DEVNULL)
    subprocess.run([engine, "commit", "--quiet", "--rm", container, reference], check=True, stdout=subprocess.DEVNULL)
