"""Tables that follow a cluster: what ends them."""

from __future__ import annotations

import pytest

from dail_runtime.errors import ClusterError
from dailctl.kube import Client, Forbidden, refusals
from dailctl.kube.config import Access
from dailctl.observe.live import watch_runs
from tests.support.answering import Answer, answering

EMPTY = Answer({"metadata": {"resourceVersion": "7"}, "items": []})
REFUSED = Answer({"kind": "Status", "message": "configmaps is forbidden", "reason": "Forbidden"}, 403)


def test_a_right_that_is_taken_away_ends_a_table_that_would_never_change_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(refusals, "REFUSALS", 0.0)
    with answering(EMPTY, REFUSED) as server:
        client = Client(Access(server=server.address, namespace="ml", user="jane"))
        with pytest.raises(Forbidden, match="jane has no right to"):
            watch_runs(client, namespace=None, labels="", names=(), wide=False)


def test_a_login_that_ends_ends_a_table(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(refusals, "REFUSALS", 1e9)
    asked = []

    def token(_: bool) -> str:
        asked.append(1)
        if len(asked) > 1:
            raise ClusterError("the program 'login', which logs jane in, failed; log in anew")
        return "t"

    with answering(EMPTY) as server:
        client = Client(Access(server=server.address, namespace="ml", user="jane", token=token))
        with pytest.raises(ClusterError, match="log in anew"):
            watch_runs(client, namespace=None, labels="", names=(), wide=False)
