"""Other libraries' errors, cut down to what fits into one of our sentences."""

from __future__ import annotations


def reason(err: BaseException) -> str:
    """The first line of the error's message, without its full stop; the error's type where it has none."""
    return (str(err).strip() or type(err).__name__).splitlines()[0].rstrip(".")
