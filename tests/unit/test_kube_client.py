"""The client against a server that remembers what it was asked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dail_runtime.errors import ClusterError
from dailctl.kube import Client, load_access
from dailctl.kube.config import Access
from dailctl.kube.resources import POD
from tests.support.answering import Answer, answering
from tests.unit.test_kube_config import kubeconfig


def client_of(address: str, *, patience: float = 60.0, **more: Any) -> Client:
    """A client for a server at this address."""
    return Client(Access(server=address, namespace="ml", user="jane", **more), patience=patience)


def a_page(*names: str, more: str = "") -> Answer:
    """A page of a list of pods."""
    return Answer({"metadata": {"continue": more, "resourceVersion": "7"}, "items": [{"metadata": {"name": name}} for name in names]})


def test_who_the_user_wants_to_be_seen_as_is_said_with_every_request(tmp_path: Path) -> None:
    user = {"token": "t", "as": "deputy", "as-uid": "7", "as-groups": ["ml, all", "gpu"], "as-user-extra": {"Team/x": ["a", "b"]}}
    with answering(a_page()) as server:
        access = load_access(kubeconfig(tmp_path / "config", user, cluster={"server": server.address}))
        Client(access).select(POD)
        ((_, headers),) = server.asked
    assert access.user == "deputy"
    assert (headers["Authorization"], headers["Impersonate-User"], headers["Impersonate-Uid"]) == ("Bearer t", "deputy", "7")
    assert headers.get_all("Impersonate-Group") == ["ml, all", "gpu"]
    assert headers.get_all("Impersonate-Extra-Team%2Fx") == ["a", "b"]


@pytest.mark.parametrize("token", ["two\nlines", "späße"])
def test_a_token_that_cannot_be_one_is_not_shown(token: str) -> None:
    with answering(a_page()) as server, pytest.raises(ClusterError, match="the token of jane has characters that none may have") as caught:
        client_of(server.address, token=lambda _: token).select(POD)
    assert token not in str(caught.value)
