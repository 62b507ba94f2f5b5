"""Pairs of a model whose attention sees a window only: vLLM's cache then lets go of what lies before it."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, MistralConfig, MistralForCausalLM

from dail_runtime.rewrite.engine import Request
from dail_runtime.rewrite.policies import Shaping, distribution
from dail_runtime.rewrite.vllm_engine import VllmGenerator
from tests.support.drawing import HOW, LENGTH, MIXED, drawn
from tests.support.law import mixed_law
from tests.support.tiny import make_tiny_tokenizer

pytestmark = [pytest.mark.engine, pytest.mark.slow]


@pytest.mark.usefixtures("spec")  # skips where there is no vLLM
@torch.inference_mode()
def test_prompts_longer_than_the_window_are_found_in_the_cache_whole(tmp_path: Path) -> None:
    tokenizer = make_tiny_tokenizer()
    torch.manual_seed(0)
    config = MistralConfig(
        vocab_size=-(-len(tokenizer) // 16) * 16,
        hidden_size=64,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=32,
        sliding_window=64,
        max_position_embeddings=LENGTH,
        initializer_range=0.2,
    )
    MistralForCausalLM(config).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    engine = VllmGenerator(tmp_path, tokenizer, length=LENGTH, dtype=torch.float32, max_num_seqs=4, num_gpu_blocks_override=100)
    # All but the last token of a prompt fill whole blocks: those of the first sample, which the other two find.
    source = random.Random(1)
    contexts = tuple(tuple(source.randrange(20, 300) for _ in range(length)) for length in (161, 225))
    how = replace(HOW, max_tokens=20, suppress=(), eos=frozenset())
    found = drawn(engine, [Request("long", contexts, (0, 1, 2), 5)], how)
    engine.close()
    model = AutoModelForCausalLM.from_pretrained(tmp_path, attn_implementation="eager", dtype=torch.float32)
    shaping = Shaping.of([how.temperature] * 20, [how.top_p] * 20)
    for sample in found.values():
        rows = (model(torch.tensor([[*ids, *sample.ids[:-1]]])).logits[0, len(ids) - 1 :] for ids in contexts)
        law = mixed_law(*(distribution(logits, shaping).double() for logits in rows), MIXED.tau, MIXED.tries)
        exact = law.gather(1, torch.tensor(sample.ids)[:, None]).log().sum()
        assert sample.logprob == pytest.approx(float(exact), abs=1e-3)
