"""The addresses of vLLM servers, as people write them in a job file or in the environment."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from dail_runtime.errors import SetupError

SERVERS = "DAIL_SERVERS"
"""Environment variable that names the servers of the engine `vllm-http`, separated by commas; it goes before the job's list."""
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
            ValueError: it is no such address; a sentence with the remedy.
        """
        try:
            parts = urlsplit(text.strip())
            port = parts.port
        except ValueError as err:
            raise ValueError(f"{text!r} is no address of a server ({err}); write http://HOST:PORT") from None
        if parts.username or parts.password:
            raise ValueError("an address of a server holds a password; leave it out, and give the servers' key in VLLM_API_KEY")
        if parts.scheme not in _PORTS or not parts.hostname or parts.query or parts.fragment:
            raise ValueError(f"{text!r} is no address of a server; write http://HOST:PORT")
        # People copy the base URL of OpenAI clients; the paths used here begin with /v1 themselves.
        path = parts.path.rstrip("/").removesuffix("/v1")
        return cls(parts.scheme, parts.hostname, port or _PORTS[parts.scheme], path)

    @property
    def name(self) -> str:
        """For messages, and as the Host header."""
        return joined(self.host, self.port)


def servers_in_effect(named: Sequence[str]) -> tuple[Server, ...]:
    """Those that the environment names, else those of the job.

    Raises:
        SetupError: nobody names any, or the environment names something else.
    """
    texts = [one.strip() for one in os.environ.get(SERVERS, "").split(",") if one.strip()]
    try:
        found = tuple(Server.parse(one) for one in texts or named)
    except ValueError as err:
        raise SetupError(f"{SERVERS if texts else 'rewrite.engine.servers'}: {err}") from None
    if not found:
        raise SetupError(
            "rewrite.engine is vllm-http and no server is named: start one with python -m dail_runtime.serve and name it in "
            f"rewrite.engine.servers (or in {SERVERS}), or use the engine `vllm`; on a cluster, dailctl submit starts them"
        )
    return found


def joined(host: str, port: int) -> str:
    """`host:port`, IPv6 addresses in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
