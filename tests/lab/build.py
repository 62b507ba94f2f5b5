"""Builds the lab's programs ahead of the tests (~12 minutes once): `python -m tests.lab.build [PROGRAM...]` prints where they are."""

from __future__ import annotations

import sys

from tests.lab.binaries import NODE, program


def main(names: list[str]) -> int:
    """Builds `names`, or everything; 1 where one cannot be built (the others are)."""
    failed = False
    for name in names or NODE:
        try:
            print(program(name), flush=True)
        except RuntimeError as err:
            print(f"error: {err}", file=sys.stderr)
            failed = True
    return int(failed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
