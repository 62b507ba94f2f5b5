"""The exit codes of dailctl and of the stages, as one table made from dail_runtime.errors.

`python -m dailctl.exits > docs/exit-codes.md` writes the documentation.
"""

from __future__ import annotations

from dail_runtime.errors import DailError, Interrupted

OUTPUT_CLOSED = 141
"""128 + SIGPIPE: what a shell reports for a program whose reader went away."""


def exit_codes() -> list[tuple[str, str]]:
    """(code, meaning), in rising order; every subclass of DailError is in it."""
    kinds = [kind for kind in DailError.__subclasses__() if kind.__module__ == DailError.__module__ and kind is not Interrupted]
    rows = [(str(kind.exit_code), _first_line(kind)) for kind in sorted(kinds, key=lambda kind: kind.exit_code)]
    return [
        ("0", "Done."),
        ("1", "Unexpected: most likely a bug in dail; --debug shows the traceback."),
        *rows,
        ("128+N", "A stage was killed by signal N (137: SIGKILL, often the kernel's out-of-memory killer), or dailctl was stopped by it."),
        ("130", "Stopped by Ctrl-C; what was finished is saved."),
        (str(OUTPUT_CLOSED), "Whatever read the output closed it."),
        (str(Interrupted.exit_code), "Stopped by SIGTERM; what was finished is saved."),
    ]


def as_text() -> str:
    """The table for `dailctl --help`."""
    rows = exit_codes()
    width = max(len(code) for code, _ in rows)
    return "\n".join(f"{code:>{width}}  {meaning}" for code, meaning in rows)


def as_markdown() -> str:
    """The table for the documentation."""
    lines = "".join(f"| {code} | {meaning} |\n" for code, meaning in exit_codes())
    return (
        "# Exit codes\n\n"
        "Written by `python -m dailctl.exits > docs/exit-codes.md` from `dail_runtime/errors.py`.\n"
        "Codes 2 to 63 say that trying the same again will not help; 65 and 75 are tried again by dail itself before they are reported.\n\n"
        f"| Code | Meaning |\n|---|---|\n{lines}"
    )


def _first_line(kind: type[DailError]) -> str:
    return (kind.__doc__ or "").strip().splitlines()[0]


if __name__ == "__main__":
    print(as_markdown(), end="")
