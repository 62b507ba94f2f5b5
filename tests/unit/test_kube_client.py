"""The client against a server that says what a healthy API server does not: wait, begin anew, who are you."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import pytest

from dail_runtime.errors import ClusterError, TransientError
from dailctl.kube import Client, load_access
from dailctl.kube.cache import Cache
from dailctl.kube.config import Access
from dailctl.kube.errors import Gone
from dailctl.kube.resources import POD
from tests.support.answering import Answer, answering
from tests.unit.test_kube_config import kubeconfig

BUSY = {"kind": "Status", "message": "too many requests", "reason": "TooManyRequests"}
EXPIRED = {"kind": "Status", "message": "the provided continue parameter is too old", "reason": "Expired"}


def client_of(address: str, *, patience: float = 60.0, **more: Any) -> Client:
    """A client for a server at this address."""
    return Client(Access(server=address, namespace="ml", user="jane", **more), patience=patience)


def a_page(*names: str, more: str = "") -> Answer:
    """A page of a list of pods."""
    return Answer({"metadata": {"continue": more, "resourceVersion": "7"}, "items": [{"metadata": {"name": name}} for name in names]})


def test_a_server_that_asks_for_time_gets_it() -> None:
    with answering(Answer(BUSY, 429, {"Retry-After": "2"}), a_page("one")) as server:
        began = time.monotonic()
        assert [one["metadata"]["name"] for one in client_of(server.address).select(POD)] == ["one"]
        assert time.monotonic() - began >= 2
        assert len(server.asked) == 2


def test_a_server_that_asks_for_more_time_than_a_person_waits_is_told_of_at_once() -> None:
    with answering(Answer(BUSY, 429, {"Retry-After": "3600"})) as server:
        with pytest.raises(TransientError, match=r"overloaded \(too many requests\); try again later"):
            client_of(server.address).select(POD)
        assert len(server.asked) == 1


def test_a_list_that_got_too_old_while_it_was_read_is_read_at_once() -> None:
    with answering(a_page("one", more="next"), Answer(EXPIRED, 410), a_page("one", "two")) as server:
        found, version = client_of(server.address).select_from(POD)
        assert ([one["metadata"]["name"] for one in found], version) == (["one", "two"], "7")
        assert "limit" not in server.asked[-1][0]
    with answering(Answer(EXPIRED, 410)) as server, pytest.raises(Gone):
        client_of(server.address).select_from(POD)


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


def test_what_is_no_event_is_a_passing_fault_of_the_watch() -> None:
    with answering(Answer(b"<html>\n")) as server, pytest.raises(TransientError, match="answered with something that is no event"):
        next(client_of(server.address).watch(POD, "1"))


def test_copies_outlive_credentials_that_end() -> None:
    """A login program that fails for a while: whoever waits hears why, and it is asked again."""
    renewed = threading.Event()

    def token(_: bool) -> str:
        if not renewed.is_set():
            raise ClusterError("the program 'login', which logs jane in, failed; log in anew")
        return "t"

    with answering(a_page("one")) as server:
        changed = threading.Event()
        copies = Cache(client_of(server.address, token=token), POD, changed.set)
        copies.start()
        try:
            with pytest.raises(ClusterError, match="log in anew"):
                copies.wait(60)
            renewed.set()
            while not copies.objects():
                assert changed.wait(60)
                changed.clear()
        finally:
            copies.stop()
