"""Errors whose exit code is known only when they happen."""

from __future__ import annotations

from dail_runtime.errors import DailError, Interrupted


class StageFailed(DailError):
    """A stage process ended without its result."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class Refused(DailError):
    """What was looked at before a submit stands against it."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class Stopped(Interrupted):
    """dailctl was asked to stop by a signal, and did."""

    def __init__(self, message: str, signal_number: int) -> None:
        super().__init__(message)
        self.exit_code = 128 + signal_number
