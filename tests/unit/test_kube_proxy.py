"""Through which proxy the API server is reached: what the environment says, read as kubectl reads it."""

from __future__ import annotations

import pytest

from dail_runtime.errors import ClusterError, TransientError
from dailctl.kube import Client
from dailctl.kube.config import Access
from dailctl.kube.proxy import proxy_for, through
from dailctl.kube.transport import Transport

PROXY = "http://proxy.example:3128"


@pytest.fixture(autouse=True)
def _proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTPS_PROXY", "HTTP_PROXY", "NO_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    monkeypatch.setenv("HTTPS_PROXY", PROXY)


@pytest.mark.parametrize(
    ("server", "no_proxy", "proxy"),
    [
        ("https://api.example", "", PROXY),
        ("http://api.example", "", None),
        ("https://api.example", "*", None),
        ("https://api.inside.example:6443", ".inside.example", None),
        ("https://10.1.2.3:6443", "", PROXY),
        ("https://10.1.2.3:6443", "10.1.2.3", None),
        ("https://10.1.2.3:6443", "nowhere, 10.0.0.0/8", None),
        ("https://11.1.2.3:6443", "10.0.0.0/8", PROXY),
        ("https://[fd00::1]:6443", "fd00::/8", None),
        ("https://127.0.0.1:6443", "", None),
        ("https://localhost:6443", "", None),
        ("https://[::1]:6443", "", None),
    ],
)
def test_what_the_environment_says(monkeypatch: pytest.MonkeyPatch, server: str, no_proxy: str, proxy: str | None) -> None:
    monkeypatch.setenv("NO_PROXY", no_proxy)
    assert proxy_for(server) == proxy


def test_a_proxy_that_asks_for_a_password_is_given_it() -> None:
    # The user `me` with the password `p@ss`.
    assert through("http://me:p%40ss@proxy.example:3128", {}).proxy_headers == {"proxy-authorization": "Basic bWU6cEBzcw=="}
    assert not through(PROXY, {}).proxy_headers


@pytest.mark.parametrize("proxy", ["socks5://me:secret@proxy.example:1080", "me:secret@proxy.example:3128", "http://me:secret@[::"])
def test_a_proxy_that_cannot_be_used_is_told_of_without_its_password(proxy: str) -> None:
    with pytest.raises(ClusterError, match=r"the proxy .* cannot be used; write http://host:port") as caught:
        Transport(Access(server="https://api.example", namespace="ml", user="jane", proxy=proxy))
    assert "secret" not in str(caught.value)


def test_a_proxy_that_is_not_there_is_told_of() -> None:
    client = Client(Access(server="https://api.example", namespace="ml", user="jane", proxy="http://127.0.0.1:9"), patience=0)
    with pytest.raises(
        TransientError, match=r"https://api\.example cannot be reached through its proxy \(.*refused.*\); check HTTPS_PROXY"
    ):
        client.version()
