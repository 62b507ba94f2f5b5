"""vLLM as a job names it: with an adapter, and in a stage `rewrite` that is killed and started again."""

from __future__ import annotations

import importlib.util
import tempfile
from pathlib import Path

import pytest
import torch

from dail_runtime.models import load_model
from dail_runtime.records import Rollout
from dail_runtime.rewrite.engine import Engine, Request, Sampling, open_engine
from dail_runtime.spec.model import ModelSpec
from dail_runtime.spec.rewrite import DirectPolicy, TransformersEngine, VllmEngine
from dail_runtime.stages.run import run_task
from dail_runtime.store import read_manifest
from tests.support.require import require
from tests.support.rollouts import data_job, saved, write_rows
from tests.support.stage_process import run_stage
from tests.support.tiny import make_tiny_model

pytestmark = [pytest.mark.engine, pytest.mark.slow]

PROBLEMS = 12


@pytest.fixture(autouse=True)
def small_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    """One GiB of keys and values: the machine's memory is for others too."""
    monkeypatch.setenv("VLLM_CPU_KVCACHE_SPACE", "1")


def greedy(engine: Engine) -> list[tuple[int, ...]]:
    asked = [Request(str(n), (tuple(range(20 + n, 60 + n)),), (0,), n) for n in range(4)]
    how = Sampling(30, 0.0, 1.0, DirectPolicy(), (), frozenset())
    found = {request.key: samples[0].ids for request, samples in engine.generate(iter(asked), how)}
    engine.close()
    return [found[request.key] for request in asked]


def test_an_adapter_is_part_of_the_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    require(importlib.util.find_spec("vllm"), "vLLM is not installed; install dail with the extra `vllm`")
    from peft import LoraConfig, get_peft_model

    spec = ModelSpec(id=str(make_tiny_model(tmp_path / "model")))
    base = load_model(spec, device=torch.device("cpu"))
    torch.manual_seed(1)
    get_peft_model(base, LoraConfig(r=4, target_modules=["q_proj", "down_proj"], init_lora_weights=False)).save_pretrained(
        tmp_path / "lora"
    )
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    threads = torch.set_num_threads
    tuned = greedy(open_engine(VllmEngine(kind="vllm", maxNumSeqs=4), spec, adapter=tmp_path / "lora"))
    assert torch.set_num_threads is threads
    assert not list(scratch.glob("dail-merged-*"))
    assert tuned == greedy(open_engine(TransformersEngine(), spec, adapter=tmp_path / "lora"))
    assert tuned != greedy(open_engine(TransformersEngine(), spec))


def test_a_killed_rewrite_on_vllm_is_finished_by_the_next_attempt(tmp_path: Path) -> None:
    require(importlib.util.find_spec("vllm"), "vLLM is not installed; install dail with the extra `vllm`")
    model = make_tiny_model(tmp_path / "model")
    rows = [{"problem": f"What is {n} times {n}?", "solution": f"\\boxed{{{n * n}}}"} for n in range(PROBLEMS)]
    test = write_rows(tmp_path / "t.jsonl", [{"problem": "Something else?", "answer": 1}])
    data = {"solutions": write_rows(tmp_path / "x.jsonl", rows), "evaluation": [{"name": "test", "path": test}]}
    # 36 responses, 4 at once: at the kill some problems are done, some under way and some not begun.
    engine = {"kind": "vllm", "maxNumSeqs": 8}
    policy = {"kind": "mixed", "tau": 0.05, "tries": 2}
    rewrite = {"samples": 3, "maxTokens": 60, "engine": engine, "policy": policy}
    run = saved(data_job(data, model={"id": str(model)}, rewrite=rewrite), tmp_path / "store")
    run_task(run.root, data_job(data, model={"id": str(model)}, rewrite=rewrite), {}, "prepare", lambda _: None)
    task = "rewrite/tuned"
    out = run.at(task)
    assert run_stage(run, task, kill_after=4).killed
    assert read_manifest(out) is None
    before = {info.key: out.get(info.key) for info in out.list("rollouts/")}
    assert 0 < len(before) < PROBLEMS
    ended = run_stage(run, task)
    assert ended.code == 0, ended.talk[-3000:]
    after = {info.key: out.get(info.key) for info in out.list("rollouts/")}
    assert before.items() <= after.items()
    rollouts = [Rollout.model_validate_json(data) for data in after.values()]
    assert len({rollout.id for rollout in rollouts}) == PROBLEMS
    assert all([sample.index for sample in rollout.samples] == [0, 1, 2] for rollout in rollouts)
    manifest = read_manifest(out)
    assert manifest is not None
    assert manifest.counts["samples"] == 3 * PROBLEMS
    assert 0 < manifest.counts["accept_rate"] < 1
