"""What the engine `vllm-http` decides without a server: addresses, bodies, replies, whom it asks, and what a fault means."""

from __future__ import annotations

import asyncio
import math
import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from dail_runtime.errors import ModelError, SetupError, TransientError
from dail_runtime.rewrite.vllm_http import replicas as replicas_module
from dail_runtime.rewrite.vllm_http.addresses import Address, resolve
from dail_runtime.rewrite.vllm_http.driver import seed_of
from dail_runtime.rewrite.vllm_http.faults import Unfit, retry_after
from dail_runtime.rewrite.vllm_http.naming import served_name
from dail_runtime.rewrite.vllm_http.needed import Needed, check_models
from dail_runtime.rewrite.vllm_http.replicas import Replica, Replicas
from dail_runtime.rewrite.vllm_http.wire import GarbledReply, drawn_by_vllm, read_completion, refusal
from dail_runtime.rewrite.vllm_plugin.requests import PROBE, RESULTS, Row, speaks
from dail_runtime.spec.model import ModelSpec
from dail_runtime.spec.rewrite import VllmHttpEngine
from dail_runtime.spec.servers import Server, servers_in_effect


@pytest.mark.parametrize(
    ("text", "base"),
    [
        ("http://gpu-7:8000", "http://10.0.0.1:8000"),
        ("http://gpu-7:8000/", "http://10.0.0.1:8000"),
        ("http://gpu-7/v1/", "http://10.0.0.1:80"),
        ("https://models.example/llm/v1", "https://10.0.0.1:443/llm"),
    ],
)
def test_servers_are_read_as_people_write_them(text: str, base: str) -> None:
    assert Address(Server.parse(text), "10.0.0.1").base == base


@pytest.mark.parametrize("text", ["gpu-7:8000", "ftp://gpu-7", "http://", "http://gpu-7:port", "http://gpu-7?x=1", "http://u:secret@gpu-7"])
def test_what_is_no_server_is_refused_and_passwords_are_not_repeated(text: str) -> None:
    with pytest.raises(ValueError, match="address of a server") as caught:
        Server.parse(text)
    assert "secret" not in str(caught.value)
    with pytest.raises(ValidationError, match="address of a server"):
        VllmHttpEngine(kind="vllm-http", servers=(text,))


def test_the_environment_names_servers_before_the_job(monkeypatch: pytest.MonkeyPatch) -> None:
    assert [one.name for one in servers_in_effect(["http://a:1"])] == ["a:1"]
    monkeypatch.setenv("DAIL_SERVERS", " http://b:2, http://[::1]:3 ,")
    assert [one.name for one in servers_in_effect(["http://a:1"])] == ["b:2", "[::1]:3"]
    monkeypatch.setenv("DAIL_SERVERS", "b:2")
    with pytest.raises(SetupError, match="DAIL_SERVERS: 'b:2' is no address"):
        servers_in_effect([])


def test_an_address_of_version_6_is_bracketed_and_counts_only_alone() -> None:
    server = Server.parse("http://[::1]:8000")
    (address,) = asyncio.run(resolve(server))
    assert address.base == "http://[::1]:8000"
    assert str(address) == "http://[::1]:8000"
    assert [one.ip for one in asyncio.run(resolve(Server.parse("http://localhost:1")))] == ["127.0.0.1"]


def reply(*results: Any, **changes: Any) -> dict[str, Any]:
    choice = {"token_ids": [5, 6], "finish_reason": "stop", "stop_reason": 6}
    return {"choices": [{**choice, **changes}], "kv_transfer_params": {RESULTS: list(results or (-0.5, -1))}}


def test_replies_are_read_and_garbled_ones_refused() -> None:
    done = read_completion(reply(), plugin=True)
    assert (done.ids, done.values, done.finish, done.reason) == ((5, 6), (-0.5, -1.0), "stop", None)
    ended = read_completion(reply(finish_reason="abort", token_ids=[5], stop_reason="its mate was aborted"), plugin=True)
    assert (ended.finish, ended.reason, ended.values) == ("abort", "its mate was aborted", ())
    plain = {**reply(), "kv_transfer_params": None}
    assert read_completion(plain, plugin=False).ids == (5, 6)
    for broken in (
        {},
        [],
        {"choices": []},
        reply(token_ids=None),
        reply(token_ids=[5, -1]),
        reply(token_ids=[5, True]),
        plain,
        {**plain, "kv_transfer_params": {}},
        reply(-0.5),
        reply(-0.5, None),
        reply(-0.5, float("nan")),
        {**reply(), "choices": reply()["choices"] * 2},
    ):
        with pytest.raises(GarbledReply):
            read_completion(broken, plugin=True)


def test_a_request_names_every_setting_that_a_server_could_fill_in() -> None:
    body = drawn_by_vllm("m", [1, 2], 9, [7], temperature=0.6, top_p=0.9, seed=5, suppress=(4,))
    assert {"top_k", "min_p", "repetition_penalty", "presence_penalty", "frequency_penalty"} <= body.keys()
    assert body["logit_bias"] == {"4": -100}


def test_refusals_are_cut_to_a_line() -> None:
    assert refusal('{"error": {"message": "too long.\\nsee the docs", "code": 400}}') == "too long"
    assert refusal('{"detail": "Not Found"}') == "Not Found"
    assert refusal("<html>") == "<html>"
    assert refusal("") == "no reason given"


def test_retry_after_is_a_number_or_a_date() -> None:
    assert retry_after({"Retry-After": "7"}) == 7
    assert retry_after({"Retry-After": format_datetime(datetime.now(UTC) + timedelta(hours=1), usegmt=True)}) == pytest.approx(
        3600, abs=600
    )
    assert retry_after({"Retry-After": "Mon, 01 Jan 2001 00:00:00 GMT"}) == 0
    assert retry_after({"Retry-After": "soon"}) is None
    assert retry_after({"Retry-After": "\u00b2"}) is None
    assert retry_after({}) is None


def test_the_probe_is_always_refused_and_says_the_protocol() -> None:
    with pytest.raises(ValueError, match="protocol") as caught:
        Row.of({PROBE: 1})
    assert speaks(str(caught.value))
    assert not speaks("dail_probe: dail's plugin has no such argument")


def test_names_tell_models_apart(tmp_path: Path) -> None:
    (tmp_path / "adapter_model.safetensors").write_bytes(b"weights")
    plain = ModelSpec(id="owner/name")
    names = [served_name(plain), served_name(plain.model_copy(update={"revision": "main"})), served_name(plain, tmp_path)]
    assert names[0] == "owner/name"
    assert len(set(names)) == 3
    with pytest.raises(ModelError, match="adapter"):
        served_name(plain, tmp_path / "nowhere")


def test_seeds_of_vllms_sampler_differ_by_sample() -> None:
    assert len({seed_of(seed, index) for seed in range(20) for index in range(20)}) == 400
    assert all(0 <= seed_of(seed, 0) < 2**63 for seed in range(100))


@pytest.mark.parametrize(
    ("listed", "sentence"),
    [
        ("<html>", "no vLLM server"),
        ('{"data": []}', "it serves no model and not m; start it with"),
        ('{"data": [{"id": "other"}]}', "it serves other and not m"),
        ('{"data": [{"id": "m", "max_model_len": 512}]}', "512 tokens and the job needs 1024; start it with --max-model-len 1024"),
    ],
)
def test_a_server_of_another_model_is_unfit(listed: str, sentence: str) -> None:
    with pytest.raises(Unfit, match=sentence):
        check_models(listed, Needed("m", 1024, 1))
    check_models('{"data": [{"id": "x"}, {"id": "m", "max_model_len": 1024}]}', Needed("m", 1024, 1))


async def three(states: tuple[Any, ...] = ("up", "up", "up"), in_flight: int = 8) -> tuple[Replicas, list[Replica]]:
    """Replicas that nobody watches."""
    server = Server.parse("http://servers:8000")
    pool = Replicas([server], None, Needed("m", 8, 1), in_flight, print)  # type: ignore[arg-type]
    made = [Replica(Address(server, f"10.0.0.{n}"), state=state, plugin=True, why="refused") for n, state in enumerate(states)]
    pool._known = {one.address: one for one in made}
    pool._unresolved = {}
    await pool.demand(plugin=True)
    return pool, made


def test_the_least_busy_replica_is_asked() -> None:
    async def check() -> None:
        pool, made = await three()
        assert pool.room() == 24
        for n in range(24):
            await pool.acquire()
            assert max(one.under_way for one in made) - min(one.under_way for one in made) <= 1, n
        waiting = asyncio.ensure_future(pool.acquire())
        await asyncio.sleep(0.01)
        assert not waiting.done()
        await pool.release(made[1])
        assert await waiting is made[1]

    asyncio.run(check())


def test_a_problem_stays_where_its_prompt_is_until_others_are_much_less_busy() -> None:
    async def check() -> None:
        pool, made = await three(in_flight=64)
        homes = [await pool.acquire(made[2]) for _ in range(20)]
        assert made[2].under_way == replicas_module.SLACK + 1 + (20 - replicas_module.SLACK - 1) // 3
        assert homes[: replicas_module.SLACK + 1] == [made[2]] * (replicas_module.SLACK + 1)

    asyncio.run(check())


def test_nobody_is_asked_who_is_down_leaving_quiet_or_without_the_plugin() -> None:
    async def check() -> None:
        pool, made = await three(("up",) * 5 + ("down", "unfit"))
        made[0].leaving = True
        made[1].plugin = False
        pool.quiet(made[2], math.inf)
        assert made[2].quiet_until <= time.monotonic() + replicas_module.QUIET_MOST
        pool.doubt(made[3], time.monotonic(), "reset")
        assert made[3].state == "down"
        assert {await pool.acquire() for _ in range(8)} == {made[4]}
        await pool.demand(plugin=False)
        assert await pool.acquire() is made[1]

    asyncio.run(check())


def test_a_replica_that_looks_well_and_fails_at_everything_is_left_alone_ever_longer() -> None:
    async def check() -> None:
        pool, made = await three(("up",))
        (ill,) = made
        for faults, pause in ((1, 0.0), (2, 0.5), (3, 1.0), (9, 5.0)):
            ill.state, ill.up_since, ill.faults, ill.quiet_until = "up", time.monotonic(), faults - 1, 0.0
            begin = time.monotonic()
            pool.doubt(ill, begin, "HTTP 500")
            pool.doubt(ill, time.monotonic(), "HTTP 500")
            assert ill.faults == faults
            assert ill.quiet_until == 0.0 if not pause else begin + pause <= ill.quiet_until <= time.monotonic() + pause
        # Then it gets one response, and more only once that is drawn.
        ill.state, ill.quiet_until = "up", 0.0
        assert await pool.acquire() is ill
        second = asyncio.ensure_future(pool.acquire())
        await asyncio.sleep(0.01)
        assert not second.done()
        pool.trust(ill)
        await pool.release(ill)
        assert await second is ill
        assert await pool.acquire() is ill

    asyncio.run(check())


def test_what_a_replica_failed_at_before_it_was_looked_at_is_old_news() -> None:
    async def check() -> None:
        pool, (one, *_) = await three()
        begun = time.monotonic()
        one.up_since = begun + 0.001
        pool.doubt(one, begun, "reset")
        assert (one.state, one.faults) == ("up", 0)

    asyncio.run(check())


def test_a_pool_without_hope_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    async def acquire(states: tuple[Any, ...], **changes: Any) -> None:
        pool, made = await three(states)
        for one in made:
            vars(one).update(changes)
        await pool.acquire()

    with pytest.raises(SetupError, match=r"no vLLM server is fit for this job: http://servers:8000 \(10.0.0.0\): refused"):
        asyncio.run(acquire(("unfit", "unfit")))
    with pytest.raises(TransientError, match=r"does what it is asked for: .* failed 20 times in a row, the last time with HTTP 500"):
        asyncio.run(acquire(("up", "unfit"), faults=20, fault="HTTP 500", under_way=1))
    with pytest.raises(SetupError, match="it lacks dail's vLLM plugin, which mixed rewriting needs"):
        asyncio.run(acquire(("up", "unfit"), plugin=False))
    monkeypatch.setattr(replicas_module, "WAIT_SECONDS", 0.0)
    with pytest.raises(TransientError, match="no vLLM server was there for"):
        asyncio.run(acquire(("unfit", "down")))
