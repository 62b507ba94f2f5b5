"""What a test needs of the machine: without it the test is skipped on a laptop and fails in CI, where nothing may be skipped."""

from __future__ import annotations

import os

import pytest


def require(condition: object, reason: str) -> None:
    """Skips the calling test where `condition` is false; fails it where the environment says CI=true."""
    if condition:
        return
    if os.environ.get("CI", "").lower() in ("1", "true"):
        pytest.fail(f"CI must run this test: {reason}", pytrace=False)
    pytest.skip(reason)
