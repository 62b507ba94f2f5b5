"""Stages that are drawn by real servers: one is killed, one comes late, the driver is killed, one serves a trained adapter."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import torch

from dail_runtime.models import load_model, load_tokenizer
from dail_runtime.objects import evaluation_key
from dail_runtime.prompts.contexts import Prompts
from dail_runtime.records import Problem, Rollout, from_jsonl
from dail_runtime.rewrite.engine import Request, Sampling, open_engine
from dail_runtime.rewrite.limits import limits
from dail_runtime.spec.model import ModelSpec
from dail_runtime.spec.prompts import PromptSpec
from dail_runtime.spec.rewrite import DirectPolicy, TransformersEngine
from dail_runtime.stages.run import run_task
from dail_runtime.store import Manifest, Store, read_manifest, write_manifest
from tests.lab.components import wait_until
from tests.support.require import require
from tests.support.rollouts import data_job, saved, write_rows
from tests.support.servers import VllmServer, start_server
from tests.support.stage_process import REPOSITORY, SavedRun, run_stage
from tests.support.tiny import make_tiny_model

pytestmark = [pytest.mark.engine, pytest.mark.slow]

PROBLEMS, SAMPLES = 24, 3
MODEL_LENGTH = 1024


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> ModelSpec:
    require(importlib.util.find_spec("vllm"), "vLLM is not installed; install dail with the extra `vllm`")
    return ModelSpec(id=str(make_tiny_model(tmp_path_factory.mktemp("model"))), maxLength=MODEL_LENGTH)


def run_of(model: ModelSpec, folder: Path, **engine: Any) -> SavedRun:
    """A prepared run in `folder` whose engine is vllm-http; greedy, so that its answers can be compared."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = [{"problem": f"What is {n} times {n}?", "solution": f"It is \\boxed{{{n * n}}}"} for n in range(PROBLEMS)]
    test = write_rows(folder / "t.jsonl", [{"problem": f"What is {n} plus 1?", "answer": n + 1} for n in range(6)])
    job = data_job(
        {"solutions": write_rows(folder / "x.jsonl", rows), "evaluation": [{"name": "test", "path": test}]},
        model=model.model_dump(mode="json", by_alias=True),
        rewrite={
            "samples": SAMPLES,
            "maxTokens": 60,
            "engine": {"kind": "vllm-http", "inFlight": 6, **engine},
            "policy": {"kind": "mixed", "tau": 0.05, "tries": 2},
        },
        evaluate={"samples": 2, "maxTokens": 24, "temperature": 0, "budgets": [8], "teacherCheck": False},
    )
    run = saved(job, folder / "store")
    run_task(run.root, job, {}, "prepare", lambda _: None)
    return run


@pytest.fixture(scope="module")
def run(model: ModelSpec, tmp_path_factory: pytest.TempPathFactory) -> SavedRun:
    return run_of(model, tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def servers(run: SavedRun, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[VllmServer]]:
    """Two servers of the base model."""
    folder = tmp_path_factory.mktemp("servers")
    words = ["--run", run.root.uri, "--job", run.digest, "--task", "rewrite/tuned", "--drain", "900"]
    started = [start_server(words, folder / f"log-{n}") for n in range(2)]
    try:
        for one in started:
            one.wait()
        # A test may put a new one in the place of one that it ended.
        yield started
    finally:
        for one in started:
            one.end()


def rollouts(out: Store) -> list[Rollout]:
    return [Rollout.model_validate_json(out.get(info.key)) for info in out.list("rollouts/")]


def assert_whole(out: Store) -> None:
    """Every problem once, with every sample once and in order."""
    found = rollouts(out)
    assert len(found) == len({one.id for one in found}) == PROBLEMS
    assert all([sample.index for sample in one.samples] == list(range(SAMPLES)) for one in found)
    manifest = read_manifest(out)
    assert manifest is not None
    assert manifest.counts["samples"] == PROBLEMS * SAMPLES
    assert 0 < manifest.counts["accept_rate"] < 1


def test_a_killed_driver_is_finished_by_the_next_attempt(run: SavedRun, servers: list[VllmServer], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DAIL_SERVERS", ",".join(one.url for one in servers))
    out = run.at("rewrite/tuned")
    assert run_stage(run, "rewrite/tuned", kill_after=4).killed
    assert read_manifest(out) is None
    before = {info.key: out.get(info.key) for info in out.list("rollouts/")}
    assert 0 < len(before) < PROBLEMS
    # What the killed driver left on the servers has no part in what the next one draws.
    ended = run_stage(run, "rewrite/tuned")
    assert ended.code == 0, ended.talk[-3000:]
    assert before.items() <= {info.key: out.get(info.key) for info in out.list("rollouts/")}.items()
    assert_whole(out)


def test_a_server_is_killed_and_another_comes_while_the_driver_works(
    model: ModelSpec, run: SavedRun, servers: list[VllmServer], tmp_path: Path
) -> None:
    again = run_of(model, tmp_path)
    command = [sys.executable, "-m", "dail_runtime.stages", "rewrite/tuned", "--run", again.root.uri, "--job", again.digest]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "DAIL_SERVERS": ",".join(one.url for one in servers)}
    with (tmp_path / "talk").open("wb") as talk:
        driver = subprocess.Popen(command, cwd=REPOSITORY, env=environment, stdout=subprocess.DEVNULL, stderr=talk)
    try:
        out = again.at("rewrite/tuned")
        deadline = time.monotonic() + 1200
        while not list(out.list("rollouts/")):
            assert time.monotonic() < deadline
            assert driver.poll() is None
            time.sleep(0.02)
        port = int(servers[0].url.rsplit(":", 1)[1])
        # With SIGKILL, as the kernel's out-of-memory killer does: connections break and nobody says why.
        servers[0].end(signal.SIGKILL)
        words = ["--run", run.root.uri, "--task", "rewrite/tuned", "--drain", "900"]
        servers[0] = start_server(words, tmp_path / "log", port=port)
        assert driver.wait(1200) == 0, (tmp_path / "talk").read_text()[-3000:]
        assert_whole(out)
        assert f"{servers[0].url} is down" in (tmp_path / "talk").read_text()
    finally:
        driver.kill()


def drawing(server: VllmServer) -> bool:
    """Whether it says that it is drawing something."""
    with urllib.request.urlopen(f"{server.url}/metrics", timeout=300) as told:
        return any(
            line.startswith("vllm:num_requests_running{") and float(line.split()[-1]) > 0 for line in told.read().decode().splitlines()
        )


def test_sigterm_lets_a_server_finish_what_it_draws(servers: list[VllmServer]) -> None:
    server = servers[1]
    with urllib.request.urlopen(f"{server.url}/v1/models", timeout=300) as listed:
        name = json.load(listed)["data"][0]["id"]
    # Seconds of work for a fast machine, and far from what a slow one may take before it is cut off.
    body = {"model": name, "prompt": [30, 31, 32], "max_tokens": 900, "ignore_eos": True, "n": 32, "return_token_ids": True}
    answers: list[Any] = []

    def ask() -> None:
        asked = urllib.request.Request(f"{server.url}/v1/completions", json.dumps(body).encode(), {"Content-Type": "application/json"})
        with urllib.request.urlopen(asked, timeout=1200) as reply:
            answers.extend(json.load(reply)["choices"])

    thread = threading.Thread(target=ask)
    thread.start()
    assert wait_until(lambda: drawing(server), 600)
    assert not answers, "the responses were too short for this test"
    code = server.end(signal.SIGTERM)
    thread.join()
    assert [len(one["token_ids"]) for one in answers] == [900] * 32
    assert code == 0


def test_an_evaluation_asks_for_the_adapter_and_gets_no_other_model(
    run: SavedRun, model: ModelSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from peft import LoraConfig, get_peft_model

    base = load_model(model, device=torch.device("cpu"))
    torch.manual_seed(1)
    get_peft_model(base, LoraConfig(r=4, target_modules=["q_proj", "down_proj"], init_lora_weights=False)).save_pretrained(
        tmp_path / "lora"
    )
    trained = run.at("train/tuned")
    objects = [trained.put_file(f"adapter/{path.name}", path) for path in sorted((tmp_path / "lora").iterdir()) if path.suffix != ".md"]
    now = datetime.now(UTC)
    task = run.tasks["train/tuned"]
    facts: dict[str, Any] = {"counts": {}, "started": now, "finished": now, "seconds": 0.0, "attempts": 1, "versions": {}}
    write_manifest(trained, Manifest(task=task.name, digest=task.digest, inputs=dict(task.inputs), objects=tuple(objects), **facts))
    monkeypatch.setenv("DAIL_CACHE", str(tmp_path / "cache"))
    server = start_server(["--run", run.root.uri, "--job", run.digest, "--task", "evaluate/tuned"], tmp_path / "log").wait()
    try:
        monkeypatch.setenv("DAIL_SERVERS", server.url)
        refused = run_stage(run, "evaluate/base")
        assert refused.code == 7
        assert f"and not {model.id}; start it with python -m dail_runtime.serve" in refused.events[-1]["message"]
        ended = run_stage(run, "evaluate/tuned")
        assert ended.code == 0, ended.talk[-3000:]
    finally:
        server.end()
    monkeypatch.delenv("DAIL_SERVERS")
    # The same adapter in the engine of this process: greedy answers are the same, forced endings within the budget too.
    out = run.at("evaluate/tuned")
    answers = [Rollout.model_validate_json(out.get(info.key)) for info in out.list("responses/")]
    assert len(answers) == 6
    assert (tmp_path / "log").read_text().startswith("dail ")
    prompts = _prompts(run, model)
    engine = open_engine(TransformersEngine(), model, adapter=tmp_path / "lora")
    how = Sampling(24, 0.0, 0.95, DirectPolicy(), (), _ends(model))
    asked = [Request(one.id, (prompts[one.id],), (0,), 1) for one in answers]
    expected = {request.key: samples[0].ids for request, samples in engine.generate(asked, how)}
    engine.close()
    assert {one.id: one.samples[0].ids for one in answers} == expected
    assert all(one.samples[0].ids == one.samples[1].ids for one in answers)


def _prompts(run: SavedRun, model: ModelSpec) -> dict[str, tuple[int, ...]]:
    prompts = Prompts(load_tokenizer(model), PromptSpec(), thinking=model.thinking, max_tokens=900)
    problems = from_jsonl(Problem, run.at("prepare").get(evaluation_key("test")))
    return {one.id: prompts.student(one).ids for one in problems}


def _ends(model: ModelSpec) -> frozenset[int]:
    return limits(model, load_tokenizer(model)).eos
