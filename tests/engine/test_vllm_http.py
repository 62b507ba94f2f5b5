"""The engine `vllm-http` on a real, unmodified vLLM server with dail's plugin; faults come from proxies in front of it."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import random
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest
import torch

from dail_runtime.errors import SetupError, TransientError
from dail_runtime.models import load_model, load_tokenizer
from dail_runtime.records import Sample
from dail_runtime.rewrite.engine import Request, Sampling
from dail_runtime.rewrite.transformers_engine import TransformersGenerator
from dail_runtime.rewrite.vllm_http import replicas
from dail_runtime.rewrite.vllm_http.engine import VllmHttpGenerator
from dail_runtime.rewrite.vllm_plugin import PROCESSOR
from dail_runtime.rewrite.vllm_plugin.requests import Row
from dail_runtime.spec.model import ModelSpec
from dail_runtime.spec.rewrite import DirectPolicy, MixedPolicy, VllmHttpEngine
from tests.support.drawing import HOW, LENGTH, MIXED, drawn, ends_at_once, fills_the_model, prompt, requests
from tests.support.drifting import DRIFTING, FIRST_SEED, PLACE
from tests.support.faulty_proxy import Fault, FaultyProxy, faulty_proxy
from tests.support.law import LAW, assert_law
from tests.support.rollouts import data_job, saved, write_rows
from tests.support.servers import VllmServer, vllm_server

pytestmark = [pytest.mark.engine, pytest.mark.slow]


@pytest.fixture(scope="module")
def server(spec: ModelSpec, tmp_path_factory: pytest.TempPathFactory) -> Iterator[VllmServer]:
    """One server, with a cache so small that pairs are preempted all the time."""
    folder = tmp_path_factory.mktemp("server")
    data = {"solutions": write_rows(folder / "x.jsonl", [{"problem": "1?", "solution": "\\boxed{1}"}] * 1)}
    run = saved(data_job(data, model=spec.model_dump(mode="json", by_alias=True)), folder / "store")
    small = ["--", "--max-num-seqs", "32", "--max-num-batched-tokens", "256", "--num-gpu-blocks-override", "120"]
    small += ["--logits-processors", PROCESSOR, DRIFTING]
    with vllm_server(["--run", run.root.uri, "--task", "rewrite/tuned", *small], folder / "log") as one:
        yield one


@contextlib.contextmanager
def opened(spec: ModelSpec, *servers: str, in_flight: int = 24, say: Callable[[str], None] | None = None) -> Iterator[VllmHttpGenerator]:
    engine = VllmHttpGenerator.open(VllmHttpEngine(kind="vllm-http", servers=servers, inFlight=in_flight), spec, say=say)
    try:
        yield engine
    finally:
        engine.close()
        engine.close()


@pytest.fixture
def engine(spec: ModelSpec, server: VllmServer) -> Iterator[VllmHttpGenerator]:
    with opened(spec, server.url) as one:
        yield one


def alike(found: dict[tuple[str, int], Sample], expected: dict[tuple[str, int], Sample]) -> bool:
    """Whether two engines drew the same, but for draws within rounding of the border between two tokens."""
    same = [place for place in expected if found[place].ids == expected[place].ids]
    for place in same:
        assert found[place].logprob == pytest.approx(expected[place].logprob, abs=1e-3)
        assert found[place].distance == pytest.approx(expected[place].distance, abs=1e-3)
        assert (found[place].text, found[place].finish) == (expected[place].text, expected[place].finish)
        assert found[place].accepted == expected[place].accepted
    return len(same) >= 0.9 * len(expected)


@pytest.fixture(scope="module")
def expected(spec: ModelSpec) -> dict[tuple[str, int], Sample]:
    """What the engine `transformers` draws for the requests that most tests here make."""
    other = TransformersGenerator(load_model(spec, device=torch.device("cpu")), load_tokenizer(spec), length=LENGTH, batch_size=32)
    return drawn(other, requests(20, 4), HOW)


@pytest.mark.parametrize("policy", [DirectPolicy(), MIXED], ids=["direct", "mixed"])
def test_samples_are_those_of_the_transformers_engine(
    engine: VllmHttpGenerator, spec: ModelSpec, policy: DirectPolicy | MixedPolicy
) -> None:
    how = replace(HOW, policy=policy)
    asked = requests(12, 3)
    if policy is not MIXED:
        asked = [replace(request, contexts=request.contexts[1:]) for request in asked]
    other = TransformersGenerator(load_model(spec, device=torch.device("cpu")), load_tokenizer(spec), length=LENGTH, batch_size=32)
    found = drawn(engine, asked, how)
    assert alike(found, drawn(other, asked, how))
    assert {one.finish for one in found.values()} == {"stop", "length"}
    assert any(one.accepted for one in found.values()) == (policy is MIXED)


def post(url: str, body: dict[str, Any], answers: dict[str, Any] | None = None, name: str = "") -> dict[str, Any]:
    """A plain HTTP request, as any client makes it."""
    asked = urllib.request.Request(f"{url}/v1/completions", json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(asked, timeout=1200) as reply:
        answer: dict[str, Any] = json.load(reply)["choices"][0]
    if answers is not None:
        answers[name] = answer
    return answer


def test_eighty_pairs_of_plain_http_requests_stay_identical_though_their_halves_arrive_apart(server: VllmServer, spec: ModelSpec) -> None:
    source = random.Random(5)
    common = {"model": spec.id, "temperature": 0, "ignore_eos": True, "return_token_ids": True}
    plain = {f"plain{n}": {**common, "prompt": list(prompt(source, 20, 60)), "max_tokens": 40} for n in range(16)}
    alone = {name: post(server.url, body)["token_ids"] for name, body in plain.items()}
    work = list(plain.items())
    for n in range(84):
        for role, longest in (("student", 40), ("teacher", 500)):
            row = Row(role, f"apart{n}", n, n % 3, 0.9, 0.97, tau=0.05, tries=2, wait=900.0)  # type: ignore[arg-type]
            work.append(
                (f"{role}{n}", {**common, "prompt": list(prompt(source, 2, longest)), "max_tokens": 50, "vllm_xargs": row.to_args()})
            )
    source.shuffle(work)
    answers: dict[str, Any] = {}
    threads = [threading.Thread(target=post, args=(server.url, body, answers, name)) for name, body in work]
    for thread in threads:
        thread.start()
        time.sleep(0.01)
    for thread in threads:
        thread.join()
    for n in range(84):
        student, teacher = answers[f"student{n}"], answers[f"teacher{n}"]
        assert (student["finish_reason"], teacher["finish_reason"]) == ("length", "length")
        assert len(student["token_ids"]) == 50
        assert student["token_ids"] == teacher["token_ids"]
    assert all(answers[name]["token_ids"] == alone[name] for name in plain)


@pytest.mark.parametrize(("tau", "context"), [(0.0, 0), (1.5, 1)], ids=["student", "teacher"])
def test_the_ends_of_tau_are_plain_greedy_decoding(
    engine: VllmHttpGenerator, server: VllmServer, spec: ModelSpec, tau: float, context: int
) -> None:
    asked = requests(10, 1)
    common = {"model": spec.id, "temperature": 0, "max_tokens": 40, "ignore_eos": True, "return_token_ids": True}
    plain = {request.key: post(server.url, {**common, "prompt": list(request.contexts[context])})["token_ids"] for request in asked}
    found = drawn(engine, asked, Sampling(40, 0.0, 1.0, MixedPolicy(kind="mixed", tau=tau), (), frozenset()))
    assert {key: list(one.ids) for (key, _), one in found.items()} == plain
    assert all(one.accepted == (0 if context else 40) for one in found.values())


def test_mixed_responses_have_the_law_of_the_loop(engine: VllmHttpGenerator, spec: ModelSpec) -> None:
    asked = requests(40, 3)
    assert_law(load_model(spec, device=torch.device("cpu")), asked, drawn(engine, asked, LAW))


def test_halves_that_drift_apart_end_loudly_over_http(server: VllmServer, spec: ModelSpec) -> None:
    answers: dict[str, Any] = {}
    threads = []
    for role in ("student", "teacher"):
        row = Row(role, "drifting", FIRST_SEED, 0, 0.9, 0.97, tau=0.05, tries=2)  # type: ignore[arg-type]
        body = {"model": spec.id, "prompt": [*range(30, 60)], "temperature": 0, "max_tokens": 40, "ignore_eos": True}
        threads.append(threading.Thread(target=post, args=(server.url, {**body, "vllm_xargs": row.to_args()}, answers, role)))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {answer["finish_reason"] for answer in answers.values()} == {"abort"}
    assert {answer["stop_reason"] for answer in answers.values()} == {f"the halves of drifting drew different tokens at {PLACE}"}


@pytest.mark.usefixtures("brisk")
def test_pairs_that_drift_apart_are_drawn_again_over_http(server: VllmServer, spec: ModelSpec) -> None:
    asked = [replace(request, seed=FIRST_SEED + 1 + request.seed) for request in requests(8, 2)]
    with proxies(server, 1) as (one,), opened(spec, one.endpoint) as engine:
        posts = []
        for _ in range(2):
            before = sum(method == "POST" for method, _ in one.requests)
            found = drawn(engine, asked, HOW)
            posts.append(sum(method == "POST" for method, _ in one.requests) - before)
            if len(posts) == 1:
                drifted = found
        long = sum(len(sample.ids) > PLACE for sample in found.values())
        # Each pair drifts once, if it gets that far; after that, the server draws the same ones undisturbed. One POST is a look.
        assert posts == [1 + 2 * (16 + long), 2 * 16]
    assert long > 8
    assert alike(drifted, found)


def test_prompts_fill_the_model_up_to_the_last_token_and_a_response_may_end_at_once(engine: VllmHttpGenerator) -> None:
    fills_the_model(engine)
    ends_at_once(engine)


def test_a_mate_that_never_comes_is_not_waited_for_forever_over_http(server: VllmServer, spec: ModelSpec) -> None:
    row = Row("student", "nobody-http", 7, 0, 0.9, 0.97, tau=0.05, tries=2, wait=0.3)
    body = {"model": spec.id, "prompt": list(range(30, 60)), "temperature": 0, "max_tokens": 9}
    answer = post(server.url, {**body, "vllm_xargs": row.to_args()})
    assert (answer["finish_reason"], answer["stop_reason"]) == ("abort", "its mate did not come within 0.3 s")


def test_requests_that_vllm_would_change_are_refused_over_http(server: VllmServer, spec: ModelSpec) -> None:
    row = Row("single", "", 7, 0, 0.9, 0.97)
    body = {"model": spec.id, "prompt": [30, 31], "temperature": 0.7, "max_tokens": 9, "vllm_xargs": row.to_args()}
    with pytest.raises(urllib.error.HTTPError) as refused:
        post(server.url, body)
    assert refused.value.code == 400
    assert b"requests with dail's arguments need temperature 0" in refused.value.read()


@contextlib.contextmanager
def proxies(server: VllmServer, count: int) -> Iterator[list[FaultyProxy]]:
    """So many addresses of the one server; each can be made to fail on its own."""
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(faulty_proxy(server.url)) for _ in range(count)]


@pytest.fixture
def brisk(monkeypatch: pytest.MonkeyPatch) -> None:
    """A driver that notices faults sooner than in earnest."""
    monkeypatch.setattr(replicas, "HEALTH_SECONDS", 0.3)
    monkeypatch.setattr(replicas, "RESOLVE_SECONDS", 0.3)
    monkeypatch.setattr(replicas, "PAUSE_MOST", 0.5)
    monkeypatch.setattr("dail_runtime.rewrite.vllm_http.driver.PAUSE_SECONDS", 0.05)
    monkeypatch.setattr("dail_runtime.rewrite.vllm_http.driver.PAUSE_MOST", 0.5)


def sometimes(seed: int, share: float, *faults: Fault) -> Callable[[str, str], Fault | None]:
    """One of `faults` for a share of the completions, looks included where they are POSTs."""
    source, lock = random.Random(seed), threading.Lock()

    def plan(method: str, _path: str) -> Fault | None:
        with lock:
            return source.choice(faults) if method == "POST" and source.random() < share else None

    return plan


@pytest.mark.usefixtures("brisk")
def test_faulty_replicas_lose_and_double_nothing(server: VllmServer, spec: ModelSpec, expected: dict[tuple[str, int], Sample]) -> None:
    with proxies(server, 3) as (one, two, three), opened(spec, one.endpoint, two.endpoint, three.endpoint, in_flight=8) as engine:
        one.plan = sometimes(1, 0.1, Fault("answer", status=503), Fault("answer", status=429), Fault("answer", status=500))
        two.plan = sometimes(2, 0.1, Fault("reset"), Fault("lose_answer"), Fault("cut"), Fault("web_page", status=200))
        assert alike(drawn(engine, requests(20, 4), HOW), expected)
        assert min(len(proxy.requests) for proxy in (one, two, three)) > 20


@pytest.mark.usefixtures("brisk")
def test_a_replica_that_hangs_is_given_up_and_its_responses_are_drawn_elsewhere(
    server: VllmServer, spec: ModelSpec, expected: dict[tuple[str, int], Sample], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replicas, "ANSWER_SECONDS", 4.0)
    with proxies(server, 2) as (well, ill), opened(spec, well.endpoint, ill.endpoint, in_flight=8) as engine:
        calls = itertools.count()
        # The connections stay open and nothing comes, to looks neither: a half-open network, or a frozen host. Longer than any test lasts.
        ill.plan = lambda *_: Fault("hang", seconds=7200) if next(calls) > 30 else None
        assert alike(drawn(engine, requests(20, 4), HOW), expected)
        assert next(calls) > 30


@pytest.mark.usefixtures("brisk")
def test_both_halves_of_a_pair_go_to_one_replica_and_the_work_is_shared(server: VllmServer, spec: ModelSpec) -> None:
    with proxies(server, 2) as both, opened(spec, *(proxy.endpoint for proxy in both), in_flight=8) as engine:
        drawn(engine, requests(20, 4), HOW)
        # Halves on different replicas would still meet behind these proxies, so count: each gets an even number of POSTs,
        # but for the look that finds out about the plugin.
        counts = [sum(method == "POST" for method, _ in proxy.requests) - 1 for proxy in both]
        assert sum(counts) == 2 * 80
        assert all(count % 2 == 0 and count >= 40 for count in counts)


@pytest.mark.usefixtures("brisk")
def test_work_in_flight_is_bounded_and_requests_are_pulled_as_room_appears(server: VllmServer, spec: ModelSpec) -> None:
    pulled: list[str] = []

    def lazily() -> Iterator[Request]:
        for request in requests(30, 2):
            pulled.append(request.key)
            yield request

    with proxies(server, 1) as (one,), opened(spec, one.endpoint, in_flight=4) as engine:
        stopped = engine.generate(lazily(), HOW)
        next(stopped)
        assert len(pulled) <= 6
        stopped.close()
        assert len(drawn(engine, requests(3, 2), HOW)) == 6


@pytest.mark.usefixtures("brisk")
def test_a_server_of_another_model_is_refused_at_once(server: VllmServer, spec: ModelSpec) -> None:
    other = f"{spec.id}/."
    with opened(spec.model_copy(update={"id": other}), server.url) as engine, pytest.raises(SetupError, match=f"and not {other}; start it"):
        drawn(engine, requests(1, 1), HOW)
    longer = spec.model_copy(update={"max_length": 4096})
    with opened(longer, server.url) as engine, pytest.raises(SetupError, match="1024 tokens and the job needs 4096"):
        drawn(engine, requests(1, 1), HOW)


def all_but_looks(fault: Fault) -> Callable[[str, str], Fault | None]:
    """Every completion fails but the one that follows a look at the models."""
    looked = [False]

    def plan(method: str, path: str) -> Fault | None:
        before, looked[0] = looked[0], path == "/v1/models"
        return fault if method == "POST" and not before else None

    return plan


@pytest.mark.usefixtures("brisk")
def test_a_replica_that_looks_well_and_fails_at_everything_takes_no_work_from_the_others(
    server: VllmServer, spec: ModelSpec, expected: dict[tuple[str, int], Sample], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Pauses that go on to double, so that it is asked no more often where the work takes longer.
    monkeypatch.setattr(replicas, "PAUSE_MOST", 600.0)
    with proxies(server, 2) as (well, ill), opened(spec, well.endpoint, ill.endpoint, in_flight=4) as engine:
        ill.plan = all_but_looks(Fault("answer", status=500))
        assert alike(drawn(engine, requests(20, 4), HOW), expected)
        assert sum(method == "POST" for method, _ in ill.requests) < 60


def test_two_runs_share_a_server(server: VllmServer, spec: ModelSpec, expected: dict[tuple[str, int], Sample]) -> None:
    with opened(spec, server.url) as one, opened(spec, server.url) as other, ThreadPoolExecutor() as threads:
        for found in threads.map(lambda engine: drawn(engine, requests(20, 4), HOW), (one, other)):
            assert alike(found, expected)


@pytest.mark.usefixtures("brisk")
def test_a_response_that_no_server_survives_ends_the_stage_and_not_the_servers(server: VllmServer, spec: ModelSpec) -> None:
    with proxies(server, 1) as (one,), opened(spec, one.endpoint) as engine:
        drawn(engine, requests(1, 1), HOW)
        one.plan = all_but_looks(Fault("reset"))
        with pytest.raises(TransientError, match="0: a response lost its server 20 times, the last time"):
            drawn(engine, requests(1, 1), HOW)
        with pytest.raises(TransientError, match=r"no vLLM server does what it is asked for: .* looks well and failed"):
            drawn(engine, requests(20, 4), HOW)
        assert engine._loop is not None
        assert not any("Driver" in repr(task) for task in asyncio.all_tasks(engine._loop))


@pytest.mark.usefixtures("brisk")
def test_progress_is_told_and_a_server_that_comes_late_is_waited_for(server: VllmServer, spec: ModelSpec) -> None:
    told: list[tuple[int, ...]] = []
    said: list[str] = []
    with proxies(server, 1) as (one,):
        one.plan = lambda *_: Fault("answer", status=503)

        def tick(*now: int) -> None:
            told.append(now)
            if said:
                # That it is waited for was told: there it is.
                one.plan = lambda *_: None

        with opened(spec, one.endpoint, say=said.append) as engine, pytest.MonkeyPatch.context() as patch:
            patch.setattr(replicas, "TELL_SECONDS", 5.0)
            found = list(engine.generate(iter(requests(10, 4)), HOW, tick=tick))
    assert len(found) == 10
    assert told[0] == (0, 0)
    assert told == sorted(told)
    assert len(said) == 1
    assert said[0].startswith(f"Waiting for a vLLM server: {one.endpoint}: HTTP 503")
