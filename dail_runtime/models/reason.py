"""Other libraries' errors about a model, cut down to what fits into one of our sentences."""

from __future__ import annotations


def reason(err: BaseException) -> str:
    """The first line of the error's message, without its full stop; the error's type where it has none."""
    return (str(err).strip() or type(err).__name__).splitlines()[0].rstrip(".")


def remedy(err: BaseException) -> str:
    """What helps where a library cannot read a model."""
    if "trust_remote_code" in str(err):
        return "it needs code of its own, which dail never runs: choose a model that transformers itself supports"
    return "check that transformers supports it, and download it again"
