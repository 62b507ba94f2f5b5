"""From the servers a job names to the addresses behind them: a DNS name may stand for any number of replicas."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from dail_runtime.errors import SpecError

_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True)
class Server:
    """What a job calls a server: one address, or a name that resolves to several."""

    scheme: str
    host: str
    port: int
    path: str
    """Prefix of every path, '' or '/something'."""

    @classmethod
    def parse(cls, text: str) -> Server:
        """Read `http://host:8000`, with or without a path such as /v1.

        Raises:
            SpecError: it is no such address.
        """
        try:
            parts = urlsplit(text.strip())
            port = parts.port
        except ValueError as err:
            raise SpecError(f"rewrite.engine.servers: {text!r} is no address ({err}); write http://HOST:PORT") from None
        if parts.scheme not in _PORTS or not parts.hostname or parts.query or parts.fragment:
            raise SpecError(f"rewrite.engine.servers: {text!r} is no address of a server; write http://HOST:PORT")
        if parts.username or parts.password:
            raise SpecError("rewrite.engine.servers: an address holds a password; leave it out, and give the servers' key in VLLM_API_KEY")
        # People copy the base URL of OpenAI clients; the paths used here begin with /v1 themselves.
        path = parts.path.rstrip("/").removesuffix("/v1")
        return cls(parts.scheme, parts.hostname, port or _PORTS[parts.scheme], path)

    @property
    def name(self) -> str:
        """For messages, and as the Host header."""
        return _joined(self.host, self.port)


@dataclass(frozen=True)
class Address:
    """One replica."""

    server: Server
    ip: str

    @property
    def base(self) -> str:
        """What requests begin with."""
        return f"{self.server.scheme}://{_joined(self.ip, self.server.port)}{self.server.path}"

    def __str__(self) -> str:
        """For messages."""
        named = f"{self.server.scheme}://{self.server.name}{self.server.path}"
        return named if self.ip == self.server.host else f"{named} ({self.ip})"


async def resolve(server: Server) -> Sequence[Address]:
    """The addresses behind a name, sorted.

    IPv6 ones count only where there is no other: a machine with both would be two servers.

    Raises:
        OSError: the name does not resolve (any more, or yet).
    """
    found = await asyncio.get_running_loop().getaddrinfo(server.host, server.port, type=socket.SOCK_STREAM)
    addresses = sorted({str(entry[4][0]) for entry in found})
    old = [ip for ip in addresses if ipaddress.ip_address(ip.partition("%")[0]).version == 4]
    return [Address(server, ip) for ip in old or addresses]


def _joined(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
