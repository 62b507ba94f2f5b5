"""Through which proxy an API server is reached, as kubectl would decide it."""

from __future__ import annotations

import ipaddress
import urllib.request
from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote, urlsplit

import urllib3
from urllib3.exceptions import HTTPError

from dail_runtime.errors import ClusterError


def proxy_for(server: str) -> str | None:
    """What HTTPS_PROXY, HTTP_PROXY and NO_PROXY say of the server."""
    parts = urlsplit(server)
    if urllib.request.proxy_bypass(parts.netloc) or _is_near(parts.hostname or ""):
        return None
    return urllib.request.getproxies().get(parts.scheme)


def through(proxy: str, options: Mapping[str, Any]) -> urllib3.ProxyManager:
    """Connections through a proxy, whose address may hold a user and a password.

    Raises:
        ClusterError: it is no address of a proxy that dailctl can use.
    """
    try:
        parts = urlsplit(proxy)
        user = f"{unquote(parts.username)}:{unquote(parts.password or '')}" if parts.username else None
        headers = urllib3.make_headers(proxy_basic_auth=user)
        return urllib3.ProxyManager(proxy, proxy_headers=headers, **options)
    except (HTTPError, ValueError):
        shown = proxy.rpartition("@")[2]
        raise ClusterError(
            f"the proxy {shown} cannot be used; write http://host:port or https://host:port into proxy-url or HTTPS_PROXY"
        ) from None


def _is_near(host: str) -> bool:
    """Whether no proxy is asked for this host, by two rules that Go's programs have and Python's library has not: loopback addresses, and
    the networks in NO_PROXY (10.96.0.0/12: how pods reach the API server)."""
    if host == "localhost":
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    return address.is_loopback or any(address in network for network in _networks(urllib.request.getproxies().get("no", "")))


def _networks(text: str) -> list[ipaddress.IPv4Network | ipaddress.IPv6Network]:
    found = []
    for word in text.split(","):
        try:
            found.append(ipaddress.ip_network(word.strip(), strict=False))
        except ValueError:
            continue
    return found
