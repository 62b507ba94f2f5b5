"""Loading: real tiny models, and every way in which a folder is not one."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import Gemma2Config, Gemma2ForCausalLM

from dail_runtime.errors import ModelError
from dail_runtime.models import empty_model, load_model, load_tokenizer, model_folder, parameter_count
from dail_runtime.spec.model import ModelSpec
from tests.support.tiny import Style, make_tiny_model

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture
def copy(tiny: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny, tmp_path / "copy"))


def spec(folder: Path, **fields: Any) -> ModelSpec:
    return ModelSpec.model_validate({"id": str(folder), **fields})


@pytest.mark.parametrize("style", ["qwen2.5", "qwen3"])
def test_a_model_is_loaded_frozen_and_in_evaluation_mode(style: Style, tmp_path: Path) -> None:
    folder = make_tiny_model(tmp_path, style=style)
    model, tokenizer = load_model(spec(folder), device=CPU), load_tokenizer(spec(folder))
    assert not model.training
    assert not any(parameter.requires_grad for parameter in model.parameters())
    assert model.dtype == torch.float32
    assert model.config._attn_implementation == "sdpa"
    assert parameter_count(folder) == model.num_parameters()
    assert model(torch.tensor([tokenizer("2+3=").input_ids])).logits.isfinite().all()


def test_an_attention_with_a_soft_cap_is_computed_with_it(tmp_path: Path) -> None:
    config = Gemma2Config(
        vocab_size=64,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=8,
        query_pre_attn_scalar=8,
        attn_logit_softcapping=0.5,
        initializer_range=1.0,
    )
    Gemma2ForCausalLM(config).save_pretrained(tmp_path)
    ids = torch.tensor([[5, 9, 2, 7, 7, 1, 30, 12]])
    expected = Gemma2ForCausalLM.from_pretrained(tmp_path, attn_implementation="eager")(ids).logits
    model = load_model(spec(tmp_path), device=CPU)
    torch.testing.assert_close(model(ids).logits, expected)
    # The ranks that get their weights from another compute the same.
    assert empty_model(tmp_path, torch.float32).config._attn_implementation == model.config._attn_implementation == "eager"
    # That it matters: PyTorch's attention leaves the cap out.
    model.set_attn_implementation("sdpa")
    assert not torch.allclose(model(ids).logits, expected, atol=1e-2)


def test_the_dtype_of_the_job_is_taken(tiny: Path) -> None:
    assert load_model(spec(tiny, dtype="bfloat16"), device=CPU).dtype == torch.bfloat16


def edit(name: str, **changes: Any) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        old = json.loads((folder / name).read_text())
        (folder / name).write_text(json.dumps({**old, **changes}))

    return change


def weights(change: Callable[[dict[str, torch.Tensor]], object]) -> Callable[[Path], None]:
    def rewrite(folder: Path) -> None:
        tensors = load_file(folder / "model.safetensors")
        change(tensors)
        save_file(tensors, folder / "model.safetensors", {"format": "pt"})

    return rewrite


def truncate(folder: Path) -> None:
    whole = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(whole[: len(whole) // 2])


def split_with_a_shard_missing(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "model-00001-of-00002.safetensors")
    index = {"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def only_pickles(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def only_an_adapter(folder: Path) -> None:
    (folder / "config.json").rename(folder / "adapter_config.json")


def only_gguf(folder: Path) -> None:
    (folder / "config.json").unlink()
    (folder / "small.gguf").write_bytes(b"")


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (only_pickles, "its weights are pickles, which can run code when they are loaded, and dail loads safetensors only"),
        (lambda folder: (folder / "model.safetensors").unlink(), "it has no weights"),
        (lambda folder: (folder / "config.json").unlink(), "there is no config.json in .*; give the folder"),
        (lambda folder: (folder / "config.json").write_text("{"), "config.json cannot be read"),
        (lambda folder: (folder / "config.json").write_text("[]"), "config.json is no object"),
        (only_gguf, "set model.ggufFile: small.gguf"),
        (only_an_adapter, "holds a LoRA adapter and no model"),
        (truncate, "not a whole safetensors file .*; download it again"),
        (split_with_a_shard_missing, r"1 of 2 weight files are missing \(model-00002-of-00002.safetensors"),
        (lambda folder: (folder / "model.safetensors.index.json").write_text("{}"), "not an index of weights"),
        (weights(lambda tensors: tensors.pop("model.norm.weight")), r"1 weights are missing from its files \(model.norm.weight"),
        (weights(lambda tensors: tensors.update({"model.norm.weight": torch.zeros(5)})), "it cannot be loaded"),
        (edit("config.json", quantization_config={"quant_method": "awq"}), r"its weights are quantised \(awq\)"),
        (edit("config.json", model_type="martian"), "it cannot be loaded"),
        (
            edit("config.json", model_type="martian", auto_map={"AutoConfig": "evil.Evil"}),
            "it needs code of its own, which dail never runs",
        ),
    ],
)
def test_a_damaged_folder_is_refused_in_a_sentence(damage: Callable[[Path], object], sentence: str, copy: Path) -> None:
    (copy / "evil.py").write_text("raise SystemExit('ran')")
    damage(copy)
    with pytest.raises(ModelError, match=sentence):
        load_model(spec(copy), device=CPU)


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (lambda folder: (folder / "chat_template.jinja").unlink(), "has no chat template .*; use the instruction-tuned version"),
        (lambda folder: (folder / "tokenizer.json").write_text("{"), "its tokenizer cannot be loaded"),
        (lambda folder: (folder / "tokenizer.json").unlink(), "its tokenizer"),
    ],
)
def test_a_damaged_tokenizer_is_refused_in_a_sentence(damage: Callable[[Path], object], sentence: str, copy: Path) -> None:
    damage(copy)
    with pytest.raises(ModelError, match=sentence):
        load_tokenizer(spec(copy))


def test_a_missing_pad_token_becomes_the_eos_token(copy: Path) -> None:
    edit("tokenizer_config.json", pad_token=None)(copy)
    tokenizer = load_tokenizer(spec(copy))
    assert tokenizer.pad_token_id == tokenizer.eos_token_id


def test_a_gguf_file_that_is_not_there_is_named_with_those_that_are(copy: Path) -> None:
    (copy / "other.gguf").write_bytes(b"")
    with pytest.raises(ModelError, match=r"has no such file \(GGUF files there: other.gguf\); correct the name"):
        model_folder(spec(copy, ggufFile="small.gguf"))


def save_adapter(base: Path, folder: Path) -> torch.Tensor:
    """Save a random adapter of `base`; returns the logits with it, unmerged."""
    torch.manual_seed(1)
    model = get_peft_model(
        load_model(spec(base), device=CPU), LoraConfig(r=4, target_modules=["q_proj", "down_proj"], init_lora_weights=False)
    )
    model.save_pretrained(folder)
    with torch.no_grad():
        logits: torch.Tensor = model(torch.arange(20)[None]).logits
    return logits


def test_an_adapter_is_merged_and_computes_the_same(tiny: Path, tmp_path: Path) -> None:
    expected = save_adapter(tiny, tmp_path)
    merged, base = load_model(spec(tiny), device=CPU, adapter=tmp_path), load_model(spec(tiny), device=CPU)
    assert {name for name, _ in merged.named_parameters()} == {name for name, _ in base.named_parameters()}
    assert not any(parameter.requires_grad for parameter in merged.parameters())
    torch.testing.assert_close(merged(torch.arange(20)[None]).logits, expected, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(base(torch.arange(20)[None]).logits, expected, atol=0.1)
    merged.save_pretrained(tmp_path / "merged")


def test_merging_in_bfloat16_rounds_each_weight_once(tiny: Path, tmp_path: Path) -> None:
    save_adapter(tiny, tmp_path)
    exact = load_model(spec(tiny, dtype="float32"), device=CPU, adapter=tmp_path).state_dict()
    base = load_model(spec(tiny, dtype="float32"), device=CPU).state_dict()
    rounded = load_model(spec(tiny, dtype="bfloat16"), device=CPU, adapter=tmp_path).state_dict()
    for name, weight in exact.items():
        wanted = base[name].bfloat16().float() + (weight - base[name])
        torch.testing.assert_close(rounded[name].float(), wanted, rtol=2**-8, atol=1e-6)


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (
            lambda folder: (folder / "adapter_model.safetensors").rename(folder / "adapter_model.bin"),
            "there is no adapter_model.safetensors",
        ),
        (lambda folder: (folder / "adapter_config.json").unlink(), "there is no adapter_config.json"),
        (lambda folder: (folder / "adapter_model.safetensors").write_bytes(b"x" * 100), "cannot be loaded into"),
        (edit("adapter_config.json", r=8), "cannot be loaded into"),
        (edit("adapter_config.json", target_modules=["q_proj"]), "do not have the same layers"),
        (edit("adapter_config.json", target_modules=["nothing"]), "cannot be loaded into"),
    ],
)
def test_an_adapter_that_does_not_fit_is_refused_in_a_sentence(
    damage: Callable[[Path], object], sentence: str, tiny: Path, tmp_path: Path
) -> None:
    save_adapter(tiny, tmp_path)
    damage(tmp_path)
    with pytest.raises(ModelError, match=sentence):
        load_model(spec(tiny), device=CPU, adapter=tmp_path)
