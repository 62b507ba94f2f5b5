"""Device, dtype, and the ends of a sequence."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from dail_runtime.errors import ModelError, SetupError
from dail_runtime.models import device, eos_ids, max_length, pick_device, pick_dtype
from dail_runtime.models.load import load_model, load_tokenizer
from dail_runtime.spec.model import ModelSpec
from tests.support.tiny import make_tiny_model

CPU, CUDA = torch.device("cpu"), torch.device("cuda", 0)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> ModelSpec:
    return ModelSpec(id=str(make_tiny_model(tmp_path_factory.mktemp("models"))))


@pytest.fixture(autouse=True)
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DAIL_DEVICE", raising=False)
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


def see_gpus(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)


def test_the_gpu_is_taken_where_one_is_visible(monkeypatch: pytest.MonkeyPatch) -> None:
    assert pick_device() == CPU
    see_gpus(monkeypatch, 2)
    assert pick_device() == CUDA
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert pick_device() == torch.device("cuda", 1)
    monkeypatch.setenv("DAIL_DEVICE", "cpu")
    assert pick_device() == CPU


def test_a_gpu_that_was_asked_for_and_is_not_there_ends_the_stage_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DAIL_DEVICE", "cuda")
    with pytest.raises(SetupError, match=r"a GPU was asked for \(DAIL_DEVICE=cuda\), but .*; check the driver"):
        pick_device()


def test_an_unknown_device_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DAIL_DEVICE", "tpu")
    with pytest.raises(SetupError, match="set it to cpu or cuda"):
        pick_device()


def test_auto_is_bfloat16_only_where_the_hardware_multiplies_it(tiny: ModelSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "SMALL", 1)
    for able, expected in ((True, torch.bfloat16), (False, torch.float32)):
        monkeypatch.setattr(device, "cpu_multiplies_bf16", lambda able=able: able)
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation, able=able: able and not including_emulation)
        assert pick_dtype(tiny, CPU) == expected
        assert pick_dtype(tiny, CUDA) == expected


def test_small_models_stay_float32_on_a_cpu(tiny: ModelSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "cpu_multiplies_bf16", lambda: True)
    assert pick_dtype(tiny, CPU) == torch.float32


def test_the_job_can_name_the_dtype(tiny: ModelSpec) -> None:
    assert pick_dtype(tiny.model_copy(update={"dtype": "bfloat16"}), CPU) == torch.bfloat16
    assert pick_dtype(tiny.model_copy(update={"dtype": "float32"}), CUDA) == torch.float32


def test_every_end_token_counts(tiny: ModelSpec) -> None:
    model, tokenizer = load_model(tiny, device=CPU), load_tokenizer(tiny)
    ends = {tokenizer.convert_tokens_to_ids(token) for token in ("<|im_end|>", "<|endoftext|>")}
    assert eos_ids(model, tokenizer) == ends
    model.generation_config.eos_token_id = 7
    assert eos_ids(model, tokenizer) == {7, tokenizer.eos_token_id}
    model.generation_config.eos_token_id = None
    model.config.eos_token_id = [8, 9]
    assert eos_ids(model, tokenizer) == eos_ids(model.config, tokenizer) == {8, 9, tokenizer.eos_token_id}


def test_no_end_token_at_all_is_refused() -> None:
    config = SimpleNamespace(eos_token_id=None, name_or_path="m")
    with pytest.raises(ModelError, match="names no end-of-sequence token"):
        eos_ids(config, SimpleNamespace(eos_token_id=None))


def test_the_longest_sequence_is_the_jobs_or_the_models(tmp_path: Path) -> None:
    spec, config = ModelSpec(id=str(tmp_path)), SimpleNamespace(max_position_embeddings=100)
    assert max_length(spec, config) == 100
    shorter = ModelSpec.model_validate({"id": "m", "maxLength": 50})
    assert max_length(shorter, config) == 50
    assert max_length(shorter, SimpleNamespace()) == 50
    with pytest.raises(ModelError, match="m was made for 40 tokens; lower it"):
        max_length(shorter, SimpleNamespace(max_position_embeddings=40))
    with pytest.raises(ModelError, match="its configuration does not say how long a sequence may be"):
        max_length(spec, SimpleNamespace())
