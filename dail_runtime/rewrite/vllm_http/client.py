"""HTTP to one replica: the connections, and which reply or failure means what."""

from __future__ import annotations

import json
import os
import socket
from typing import Any

import aiohttp

from dail_runtime.errors import SetupError
from dail_runtime.rewrite.vllm_http.addresses import Address
from dail_runtime.rewrite.vllm_http.faults import PASSING, Busy, Lost, retry_after, said
from dail_runtime.rewrite.vllm_http.wire import refusal

KEY = "VLLM_API_KEY"
"""Environment variable with the key that the servers were started with, where they have one."""
CONNECT_SECONDS = 10.0
_IDLE = 3.0  # uvicorn closes idle connections after 5 s, and a request sent into a closing one is lost
# A peer that vanished without a word (a node that lost power, a NAT that forgot) is noticed within half a minute.
_PROBE_AFTER, _PROBE_EVERY, _PROBES = 15, 5, 3


class Client:
    """Talks to all replicas. Lives in one event loop."""

    def __init__(self) -> None:
        key = os.environ.get(KEY)
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=_IDLE, socket_factory=_watched_socket),
            headers={"Authorization": f"Bearer {key}"} if key else None,
            cookie_jar=aiohttp.DummyCookieJar(),
            # The servers are named one by one, and a proxy would hide which of them answers.
            trust_env=False,
        )

    async def close(self) -> None:
        """Close all connections."""
        await self._session.close()

    async def get(self, address: Address, path: str, *, seconds: float) -> str:
        """The text at `path`. Raises Lost or Busy."""
        status, headers, text = await self._ask("GET", address, path, None, seconds)
        if status != 200:
            raise _fault(address, status, headers, text)
        return text

    async def post(self, address: Address, path: str, body: Any, *, seconds: float) -> Any:
        """The parsed reply.

        Raises:
            Lost, Busy: see faults.py.
            SetupError: the server refuses the request, so that trying again is of no use.
        """
        status, headers, text = await self._ask("POST", address, path, body, seconds)
        if status != 200:
            raise _fault(address, status, headers, text)
        try:
            return json.loads(text)
        except ValueError:
            raise Lost(f"the reply is not whole JSON ({len(text)} characters)") from None

    async def refused(self, address: Address, path: str, body: Any, *, seconds: float) -> str | None:
        """The server's words where it answers with 400; None where it accepts. Raises Lost or Busy."""
        status, headers, text = await self._ask("POST", address, path, body, seconds)
        if status == 400:
            return refusal(text)
        if status != 200:
            raise _fault(address, status, headers, text)
        return None

    async def _ask(self, method: str, address: Address, path: str, body: Any, seconds: float) -> tuple[int, Any, str]:
        server = address.server
        try:
            async with self._session.request(
                method,
                address.base + path,
                json=body,
                headers={"Host": server.name},
                allow_redirects=False,
                timeout=aiohttp.ClientTimeout(total=seconds, sock_connect=CONNECT_SECONDS),
                # The certificate must name the host, not the address that is asked.
                server_hostname=server.host if server.scheme == "https" else None,
            ) as reply:
                return reply.status, reply.headers, (await reply.read()).decode("utf-8", "replace")
        except PASSING as err:
            raise Lost(said(err)) from err


def _fault(address: Address, status: int, headers: Any, text: str) -> Exception:
    why = f"HTTP {status}: {refusal(text)}" if text.strip() else f"HTTP {status}"
    if status in (429, 503):
        return Busy(why, retry_after(headers))
    if status in (401, 403):
        return SetupError(f"{address}: {why}; give the servers' key in {KEY}")
    # 404: another server has taken the place of the one that was looked at. 408 and 425 pass by definition.
    if status >= 500 or status in (404, 408, 425) or 300 <= status < 400:
        return Lost(why)
    return SetupError(f"{address} refuses a request: {why}; this version of dail is made for vLLM 0.32")


def _watched_socket(info: Any) -> socket.socket:
    family, kind, protocol, *_ = info
    made = socket.socket(family, kind, protocol)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    options = {"TCP_KEEPIDLE": _PROBE_AFTER, "TCP_KEEPINTVL": _PROBE_EVERY, "TCP_KEEPCNT": _PROBES}
    options["TCP_USER_TIMEOUT"] = 1000 * (_PROBE_AFTER + _PROBE_EVERY * _PROBES)
    for name, value in options.items():
        # Named differently, or missing, outside Linux.
        if (number := getattr(socket, name, None)) is not None:
            made.setsockopt(socket.IPPROTO_TCP, number, value)
    return made
