"""GGUF files: unpacked once into an ordinary folder that loads, generates and saves like any other."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch

from dail_runtime.errors import ModelError
from dail_runtime.models import eos_ids, load_model, load_tokenizer, max_length, model_folder
from dail_runtime.spec.model import ModelSpec
from tests.support.tiny import QWEN25, make_tiny_tokenizer

HIDDEN, LAYERS, INNER = 64, 1, 96


def write_gguf(path: Path) -> dict[str, np.ndarray]:
    """A tiny Llama with the tests' tokenizer, its matrices quantised to 8 bits; returns what each tensor unpacks to."""
    tokenizer = make_tiny_tokenizer("qwen2.5")
    vocabulary = sorted(tokenizer.get_vocab(), key=tokenizer.get_vocab().__getitem__)
    special = {token.content for token in tokenizer.added_tokens_decoder.values()}
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(512)
    writer.add_embedding_length(HIDDEN)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(INNER)
    writer.add_head_count(2)
    writer.add_head_count_kv(1)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(10000.0)
    writer.add_vocab_size(len(vocabulary))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(vocabulary)
    writer.add_token_types([gguf.TokenType.CONTROL if token in special else gguf.TokenType.NORMAL for token in vocabulary])
    merges = json.loads(tokenizer.backend_tokenizer.to_str())["model"]["merges"]
    writer.add_token_merges([" ".join(pair) for pair in merges])
    writer.add_eos_token_id(tokenizer.eos_token_id)
    writer.add_pad_token_id(tokenizer.pad_token_id)
    writer.add_chat_template(QWEN25)
    shapes = {
        "token_embd.weight": (len(vocabulary), HIDDEN),
        "blk.0.attn_q.weight": (HIDDEN, HIDDEN),
        "blk.0.attn_k.weight": (HIDDEN // 2, HIDDEN),
        "blk.0.attn_v.weight": (HIDDEN // 2, HIDDEN),
        "blk.0.attn_output.weight": (HIDDEN, HIDDEN),
        "blk.0.ffn_gate.weight": (INNER, HIDDEN),
        "blk.0.ffn_up.weight": (INNER, HIDDEN),
        "blk.0.ffn_down.weight": (HIDDEN, INNER),
    }
    random = np.random.default_rng(0)
    unpacked = {}
    for name, shape in shapes.items():
        packed = gguf.quantize(random.normal(0, 0.1, shape).astype(np.float32), gguf.GGMLQuantizationType.Q8_0)
        writer.add_tensor(name, packed, raw_dtype=gguf.GGMLQuantizationType.Q8_0)
        unpacked[name] = gguf.dequantize(packed, gguf.GGMLQuantizationType.Q8_0)
    for name in ("output_norm.weight", "blk.0.attn_norm.weight", "blk.0.ffn_norm.weight"):
        writer.add_tensor(name, np.ones(HIDDEN, dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return unpacked


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> tuple[ModelSpec, dict[str, np.ndarray]]:
    folder = tmp_path_factory.mktemp("gguf")
    tensors = write_gguf(folder / "tiny.Q8_0.gguf")
    return ModelSpec.model_validate({"id": str(folder), "ggufFile": "tiny.Q8_0.gguf"}), tensors


@pytest.fixture(autouse=True, scope="module")
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DAIL_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


def test_a_gguf_file_becomes_an_ordinary_model(unpacked: tuple[ModelSpec, dict[str, np.ndarray]], tmp_path: Path) -> None:
    spec, tensors = unpacked
    model = load_model(spec, device=torch.device("cpu"))
    state = model.state_dict()
    for theirs, ours in (
        ("token_embd", "model.embed_tokens"),
        ("blk.0.attn_v", "model.layers.0.self_attn.v_proj"),
        ("blk.0.attn_output", "model.layers.0.self_attn.o_proj"),
        ("blk.0.ffn_gate", "model.layers.0.mlp.gate_proj"),
        ("blk.0.ffn_down", "model.layers.0.mlp.down_proj"),
    ):
        np.testing.assert_array_equal(state[f"{ours}.weight"].numpy(), tensors[f"{theirs}.weight"])
    model.save_pretrained(tmp_path)
    assert (tmp_path / "model.safetensors").is_file()
    assert max_length(spec, model.config) == 512


def test_its_tokenizer_and_chat_template_come_along(unpacked: tuple[ModelSpec, dict[str, np.ndarray]]) -> None:
    spec, _ = unpacked
    tokenizer, original = load_tokenizer(spec), make_tiny_tokenizer("qwen2.5")
    turns = [{"role": "user", "content": "How many apples?"}]
    text = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    assert text == original.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    assert tokenizer.decode(tokenizer(text).input_ids) == text
    assert tokenizer.eos_token == "<|im_end|>"
    assert tokenizer.eos_token_id in eos_ids(load_model(spec, device=torch.device("cpu")), tokenizer)


def test_it_is_unpacked_once(unpacked: tuple[ModelSpec, dict[str, np.ndarray]]) -> None:
    spec, _ = unpacked
    folder = model_folder(spec)
    stamp = (folder / "model.safetensors").stat().st_mtime_ns
    assert model_folder(spec) == folder
    assert (folder / "model.safetensors").stat().st_mtime_ns == stamp


def test_a_broken_gguf_file_is_refused_in_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "broken.gguf").write_bytes(b"GGUF" + b"\0" * 50)
    with pytest.raises(ModelError, match=r"model.ggufFile broken.gguf of .*: cannot be unpacked .*; give the model's safetensors instead"):
        model_folder(ModelSpec.model_validate({"id": str(tmp_path), "ggufFile": "broken.gguf"}))
