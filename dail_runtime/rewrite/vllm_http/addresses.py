"""From the servers a job names to the addresses behind them: a DNS name may stand for any number of replicas."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Sequence
from dataclasses import dataclass

from dail_runtime.spec.servers import Server, joined


@dataclass(frozen=True)
class Address:
    """One replica."""

    server: Server
    ip: str

    @property
    def base(self) -> str:
        """What requests begin with."""
        return f"{self.server.scheme}://{joined(self.ip, self.server.port)}{self.server.path}"

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
