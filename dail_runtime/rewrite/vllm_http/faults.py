"""What goes wrong with a server, sorted by what is to be done about it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import aiohttp

PASSING = (aiohttp.ClientError, OSError, asyncio.TimeoutError)
"""What aiohttp raises where a connection or a server fails."""


class Lost(Exception):
    """The server did not answer, or not with a reply: draw the response elsewhere, and look at the server again before using it."""


class Busy(Exception):
    """The server has too much to do, or is not ready: draw the response elsewhere, and leave the server alone for a while."""

    def __init__(self, why: str, seconds: float | None) -> None:
        super().__init__(why)
        self.seconds = seconds
        """How long it asked to be left alone; None: it did not say."""


class FellApart(Exception):
    """The plugin ended a pair because its halves drew different tokens."""


class Unfit(Exception):
    """The server answers, but not as what the job needs."""


def said(err: BaseException) -> str:
    """An error in a few words."""
    if isinstance(err, asyncio.TimeoutError):
        return "no answer in time"
    text = str(err).strip().splitlines()
    return text[0].rstrip(".") if text else type(err).__name__


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds that a Retry-After header asks for (RFC 9110: a number, or a date); None where there is none that can be read."""
    value = headers.get("Retry-After", "").strip()
    if value.isdecimal():
        return float(value)
    try:
        return max(0.0, (parsedate_to_datetime(value) - datetime.now(UTC)).total_seconds()) if value else None
    except (ValueError, TypeError):
        return None
