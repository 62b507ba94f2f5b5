"""The stage train over a tiny model: what it writes, what it counts, and its errors."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

from dail_runtime.errors import ModelError, ResultError
from dail_runtime.models import locate
from dail_runtime.stages.base import end_process
from dail_runtime.stages.follow import follow_task
from dail_runtime.stages.jobs import load_saved_job
from dail_runtime.stages.run import run_task
from dail_runtime.store import Manifest, ObjectInfo
from dail_runtime.store.file import FileStore
from tests.support.ranks import run_ranks
from tests.support.stage_process import SavedRun, run_stage
from tests.support.tiny import make_tiny_model
from tests.support.training import finish, training_run


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("model"))


def run(saved: SavedRun, task: str = "train/tuned", heard: list[dict[str, Any]] | None = None) -> Manifest:
    job, content = load_saved_job(saved.root, saved.digest)
    return run_task(saved.root, job, content, task, (heard if heard is not None else []).append)


def fetch(saved: SavedRun, folder: Path, prefix: str, task: str = "train/tuned") -> Path:
    store = saved.at(task).at(prefix)
    for info in store.list():
        path = folder / prefix / info.key
        path.parent.mkdir(parents=True, exist_ok=True)
        store.get_file(info.key, path)
    return folder / prefix


def test_the_stage_leaves_an_adapter_a_merged_model_and_curves(model: Path, tmp_path: Path) -> None:
    saved = training_run(model, tmp_path / "run", train={"objective": "contrastive", "epochs": 3})
    manifest = run(saved)
    keys = {info.key for info in manifest.objects}
    assert {
        "adapter/adapter_config.json",
        "adapter/adapter_model.safetensors",
        "model/model.safetensors",
        "model/config.json",
        "curves.jsonl",
    } <= keys
    assert {"model/tokenizer.json", "model/generation_config.json"} <= keys
    assert not any("checkpoint" in key or key.endswith((".bin", ".pt", ".md")) for key in keys)
    counts = manifest.counts
    assert (counts["rows"], counts["steps"], counts["dropped"], counts["resumed_at_step"]) == (6, 6, {}, 0)
    assert len(saved.at("train/tuned").get("curves.jsonl").splitlines()) == 6

    folder = fetch(saved, tmp_path, "model")
    merged = AutoModelForCausalLM.from_pretrained(folder).eval()
    adapted = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(model), fetch(saved, tmp_path, "adapter")).eval()
    ids = torch.tensor([AutoTokenizer.from_pretrained(folder)("What is 1 + 2?").input_ids])
    with torch.no_grad():
        torch.testing.assert_close(merged(ids).logits, adapted(ids).logits, rtol=1e-4, atol=1e-4)
        assert not torch.allclose(merged(ids).logits, AutoModelForCausalLM.from_pretrained(model)(ids).logits, atol=1e-2)
    assert merged.config.tie_word_embeddings
    assert json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())["base_model_name_or_path"] == str(model)


def test_variants_are_trained_by_their_own_settings(model: Path, tmp_path: Path) -> None:
    variants = {
        "nll": {"train": {"objective": "nll", "saveMerged": False}},
        "sft": {"train": {"objective": "sft"}},
        "other": {"train": {"reference": "other"}},
    }
    saved = training_run(model, tmp_path, train={"objective": "contrastive", "epochs": 1}, variants=variants)
    for name in variants:
        run(saved, f"train/{name}")
    lines = {name: json.loads(saved.at(f"train/{name}").get("curves.jsonl").splitlines()[-1]) for name in variants}
    assert {name: line["objective"] for name, line in lines.items()} == {"nll": "nll", "sft": "sft", "other": "contrastive"}
    assert not list(saved.at("train/nll").list("model/"))
    manifest = run(saved, "train/sft")
    assert manifest.counts["boxes_added"] == 6
    assert "sft: 6 of 6 expert solutions have no \\boxed answer" in manifest.counts["notes"][0]


def test_ranks_of_one_machine_fetch_the_model_once(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = tmp_path / "fetched"

    class Far(FileStore):
        def get_file(self, key: str, path: Path) -> ObjectInfo:
            with log.open("a") as file:
                print(key, file=file)
            if key == "model.safetensors":
                time.sleep(2)  # a download takes its time: a rank that does not wait for it begins one of its own
            return super().get_file(key, path)

    monkeypatch.setattr(locate, "open_store", lambda _: Far(model))
    monkeypatch.setenv("DAIL_CACHE", str(tmp_path / "cache"))
    train = {"objective": "nll", "epochs": 1, "saveMerged": False}
    saved = training_run(model, tmp_path / "run", train=train, model={"id": "s3://far/model", "dtype": "float32"})

    def body(rank: int) -> None:
        job, content = load_saved_job(saved.root, saved.digest)
        if rank == 0:
            run_task(saved.root, job, content, "train/tuned", lambda _: None)
        else:
            follow_task(saved.root, job, content, "train/tuned", threading.Event(), end_process)

    run_ranks(2, body)
    assert log.read_text().split().count("model.safetensors") == 1


def test_what_memory_it_will_take_is_said_before_the_first_step(model: Path, tmp_path: Path) -> None:
    heard: list[dict[str, Any]] = []
    run(training_run(model, tmp_path, train={"objective": "contrastive", "epochs": 1, "saveMerged": False}), heard=heard)
    plans = [number for number, event in enumerate(heard) if "A training process will take about" in event.get("sentence", "")]
    computed = [number for number, event in enumerate(heard) if event["event"] == "progress"]
    assert len(plans) == 1
    assert plans[0] < min(computed)


def test_gpus_that_were_asked_for_and_are_not_visible_end_the_process_before_anything_is_loaded(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    saved = training_run(model, tmp_path, train={})
    monkeypatch.setenv("DAIL_DEVICE", "cuda")
    ended = run_stage(saved, "train/tuned")
    assert ended.code == 7
    assert [event["event"] for event in ended.events] in (["error"], ["start", "error"])
    assert ended.events[-1]["message"] == "GPUs were asked for, but PyTorch sees none; check the driver, the image and CUDA_VISIBLE_DEVICES"


def test_nothing_to_learn_from_is_an_error_that_says_why(model: Path, tmp_path: Path) -> None:
    saved = training_run(model, tmp_path, train={})
    finish(saved, "select/tuned", {"kept.jsonl": b""})
    with pytest.raises(ResultError, match=r"train/tuned: there is no trace to learn from \(select kept none\)"):
        run(saved)


def test_prompts_that_do_not_fit_are_counted(model: Path, tmp_path: Path) -> None:
    saved = training_run(model, tmp_path, train={}, model={"id": str(model), "dtype": "float32", "maxLength": 96})
    with pytest.raises(ResultError, match=r"\(6 prompt_too_long\)"):
        run(saved)


def test_a_generation_config_that_transformers_refuses_to_save_is_kept_as_it_came(tmp_path: Path) -> None:
    folder = make_tiny_model(tmp_path / "model")
    config = folder / "generation_config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "do_sample": False, "temperature": 0.6, "top_k": 20}))
    saved = training_run(folder, tmp_path / "run", train={"objective": "nll", "epochs": 1})
    run(saved)
    kept = json.loads(saved.at("train/tuned").get("model/generation_config.json"))
    assert (kept["do_sample"], kept["temperature"], kept["top_k"]) == (False, 0.6, 20)
    assert kept["eos_token_id"] == json.loads(config.read_text())["eos_token_id"]


@pytest.mark.parametrize(("train", "says"), [({"lora": {"targets": ["c_attn"]}}, "no linear layer 'c_attn'")])
def test_a_wrong_target_is_an_error_before_anything_is_written(train: dict[str, Any], says: str, model: Path, tmp_path: Path) -> None:
    saved = training_run(model, tmp_path, train=train)
    with pytest.raises(ModelError, match=says):
        run(saved)
    assert [info.key for info in saved.at("train/tuned").list() if not info.key.startswith("_")] == []
