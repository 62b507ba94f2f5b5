"""The errors dail raises on purpose; each carries the exit code that a process ends with because of it.

Codes 2..63 mean "trying again will not help": Kubernetes maps them to FailJob. Every message is one sentence (or a few
lines, one sentence each) that says where, what and the remedy.
"""

from __future__ import annotations


class DailError(Exception):
    """Anything that dail reports in a sentence instead of a traceback."""

    exit_code = 1


class UsageError(DailError):
    """The command line asks for something that does not exist or does not go together."""

    exit_code = 2


class SpecError(DailError):
    """The job file is wrong."""

    exit_code = 3


class DataError(DailError):
    """The solutions, or the evaluation problems, are wrong."""

    exit_code = 4


class StoreError(DailError):
    """The store refuses: no such bucket, no permission, not writable."""

    exit_code = 5


class ModelError(DailError):
    """The model or its tokenizer cannot be loaded or does not fit the job."""

    exit_code = 6


class SetupError(DailError):
    """This machine or image lacks something the stage needs (a package, a GPU, memory)."""

    exit_code = 7


class ResultError(DailError):
    """A stage ended with nothing the next one could use, for example no correct trace."""

    exit_code = 8


class ClusterError(DailError):
    """The cluster refuses: permission, quota, a missing API."""

    exit_code = 9


class IntegrityError(DailError):
    """Stored bytes differ from what was written: a truncated or changed object."""

    exit_code = 65


class TransientError(DailError):
    """A fault that passes: time-outs, 5xx answers, a lost server. Trying again is right."""

    exit_code = 75


class Interrupted(DailError):
    """The stage was asked to stop (SIGTERM) and saved what it had."""

    exit_code = 143


def of_code(code: int, message: str) -> DailError:
    """The error that another process ended with, known by its exit code; a code that is no error's own makes a TransientError."""
    # Those of this module alone: errors defined elsewhere may need more than a message.
    own = [kind for kind in DailError.__subclasses__() if kind.__module__ == __name__]
    kinds: dict[int, type[DailError]] = {1: DailError, **{kind.exit_code: kind for kind in own}}
    return kinds.get(code, TransientError)(message)
