"""The door of dailctl: `python -m dailctl` is `dailctl`. It imports nothing, so that Ctrl-C is honoured while all the rest is read."""

import sys


def run() -> int:
    """Run dailctl; returns the exit code."""
    try:
        from dailctl.cli.main import main

        return main()
    except KeyboardInterrupt:
        # As main() itself ends by it (docs/exit-codes.md).
        return 130


if __name__ == "__main__":
    sys.exit(run())
