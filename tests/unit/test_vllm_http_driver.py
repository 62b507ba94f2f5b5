"""How the driver answers what a server may say: a pair that fell apart, a cache too small, a busy server. Replies are canned; the real
server is in tests/engine."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

import pytest

from dail_runtime.errors import ModelError, SetupError, TransientError
from dail_runtime.records import Sample
from dail_runtime.rewrite.engine import Request, Sampling
from dail_runtime.rewrite.responses import responses
from dail_runtime.rewrite.vllm_http import driver as driver_module
from dail_runtime.rewrite.vllm_http.addresses import Address
from dail_runtime.rewrite.vllm_http.driver import Driver
from dail_runtime.rewrite.vllm_http.faults import Busy, Lost
from dail_runtime.rewrite.vllm_http.needed import Needed
from dail_runtime.rewrite.vllm_http.replicas import Replica, Replicas
from dail_runtime.rewrite.vllm_plugin.requests import BROKEN, RESULTS
from dail_runtime.spec.rewrite import MixedPolicy
from dail_runtime.spec.servers import Server

HOW = Sampling(5, 1.0, 1.0, MixedPolicy(kind="mixed", tau=0.5), (), frozenset({9}))
Answer = Callable[[str, int], Any]
"""From the half's role and the number of the pair to a reply, or to an exception."""


class Canned:
    """A client whose replies a test wrote."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer
        self.pairs: list[str] = []
        self.cancelled = 0

    async def post(self, _address: Address, _path: str, body: dict[str, Any], *, seconds: float) -> Any:
        """One half."""
        assert seconds > 0
        row = body["vllm_xargs"]
        if row["dail_pair"] not in self.pairs:
            self.pairs.append(row["dail_pair"])
        try:
            await asyncio.sleep(0)
            answer = self._answer(row["dail_role"], self.pairs.index(row["dail_pair"]))
            if answer is None:
                await asyncio.sleep(60)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        if isinstance(answer, Exception):
            raise answer
        return answer


def whole(role: str, *ids: int) -> dict[str, Any]:
    values = [-0.5 if role == "student" else 2.25] * len(ids)
    choice = {"token_ids": list(ids), "finish_reason": "stop", "stop_reason": None}
    return {"choices": [choice], "kv_transfer_params": {RESULTS: values}}


def ended(reason: str | None) -> dict[str, Any]:
    return {"choices": [{"token_ids": [], "finish_reason": "abort", "stop_reason": reason}], "kv_transfer_params": None}


def draw(monkeypatch: pytest.MonkeyPatch, client: Canned) -> tuple[Sample, Replicas]:
    monkeypatch.setattr(driver_module, "PAUSE_SECONDS", 0.0)
    monkeypatch.setattr(driver_module, "DRAIN_SECONDS", 0.0)

    async def drawing() -> tuple[Sample, Replicas]:
        server = Server.parse("http://servers:8000")
        pool = Replicas([server], client, Needed("m", 100, 1), 4, print)  # type: ignore[arg-type]
        pool._known = {one.address: one for one in [Replica(Address(server, "10.0.0.1"), state="up", plugin=True)]}
        # What is doubted is looked at; here every look finds it well.
        monkeypatch.setattr(pool, "doubt", lambda *_: None)
        request = Request("p/1", ((1, 2), (3, 4)), (7,), 5)
        (response,) = responses([request], HOW, 100)
        sample = await Driver(client, pool, "m", 50, lambda ids: " ".join(map(str, ids)), HOW).draw(response)  # type: ignore[arg-type]
        assert all(one.under_way == 0 for one in pool._known.values())
        return sample, pool

    return asyncio.run(drawing())


def test_both_halves_make_the_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    sample, _ = draw(monkeypatch, Canned(lambda role, _: whole(role, 3, 9)))
    assert sample == Sample(index=7, ids=(3, 9), text="3 9", finish="stop", logprob=-1.0, accepted=2, distance=0.5)


@pytest.mark.parametrize(
    "fault",
    [
        ended("the halves of x drew different tokens at 4"),
        ended("its mate was aborted"),
        ended("its mate did not come within 60 s"),
        ended(None),
        whole("teacher", 3, 4, 9),
        whole("teacher", 3, 99),
        whole("teacher", 3, 4, 5, 6, 7, 8),
        {"choices": [{"token_ids": [3, 9]}]},
        Lost("reset"),
        Busy("HTTP 503", None),
        Busy("HTTP 429", 0.01),
    ],
)
def test_a_pair_that_fails_is_drawn_again_under_another_name(monkeypatch: pytest.MonkeyPatch, fault: Any) -> None:
    client = Canned(lambda role, pair: fault if role == "teacher" and pair == 0 else whole(role, 3, 9))
    sample, _ = draw(monkeypatch, client)
    assert sample.ids == (3, 9)
    assert len(client.pairs) == 2


def test_the_mate_of_a_failed_half_is_not_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    client = Canned(lambda role, pair: (Lost("reset") if role == "student" else None) if pair == 0 else whole(role, 3, 9))
    draw(monkeypatch, client)
    assert client.cancelled == 1


def test_pairs_that_keep_falling_apart_and_pairs_that_fit_nowhere_end_the_stage(monkeypatch: pytest.MonkeyPatch) -> None:
    apart = Canned(lambda *_: ended("the halves of x drew different tokens at 4"))
    with pytest.raises(TransientError, match="p/1: a response failed 3 times, the last time because the halves of x"):
        draw(monkeypatch, apart)
    assert len(apart.pairs) == 3
    small = Canned(lambda *_: ended("both contexts need 9 blocks of KV cache and there are 5; give vLLM more memory"))
    with pytest.raises(SetupError, match="p/1: both contexts need 9 blocks"):
        draw(monkeypatch, small)
    assert len(small.pairs) == 1
    with pytest.raises(ModelError, match="logits that are not finite numbers; load it"):
        draw(monkeypatch, Canned(lambda *_: ended(BROKEN)))
    with pytest.raises(TransientError, match="lost its server 20 times, the last time http://servers:8000"):
        draw(monkeypatch, Canned(lambda *_: Lost("reset")))
    with pytest.raises(TransientError, match="did not come within 60 s; where a load balancer parts the halves, name its servers"):
        draw(monkeypatch, Canned(lambda *_: ended("its mate did not come within 60 s")))


def test_being_turned_away_is_no_failure_of_the_response_but_ends_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    sample, _ = draw(monkeypatch, Canned(lambda role, pair: Busy("HTTP 503", None) if pair < 30 else whole(role, 3, 9)))
    assert sample.ids == (3, 9)
    monkeypatch.setattr(driver_module, "WAIT_SECONDS", 0.0)
    with pytest.raises(TransientError, match="p/1: servers turned a response away 1 times: HTTP 503"):
        draw(monkeypatch, Canned(lambda *_: Busy("HTTP 503", None)))


def test_a_server_that_asks_for_time_gets_it(monkeypatch: pytest.MonkeyPatch) -> None:
    client = Canned(lambda role, pair: Busy("HTTP 429", 0.3) if pair == 0 else whole(role, 3, 9))
    begin = time.monotonic()
    draw(monkeypatch, client)
    assert time.monotonic() - begin >= 0.3
