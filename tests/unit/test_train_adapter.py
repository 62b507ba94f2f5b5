"""The student: one copy of the weights, heads of several families, merging, and errors in sentences."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    CohereConfig,
    CohereForCausalLM,
    Gemma2Config,
    Gemma2ForCausalLM,
    Glm4MoeConfig,
    Glm4MoeForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    GraniteConfig,
    GraniteForCausalLM,
    Llama4ForCausalLM,
    Llama4TextConfig,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
)

from dail_runtime.errors import ModelError
from dail_runtime.spec.train import LoraSpec
from dail_runtime.train.adapter import Student, check_targets, merge, recomputes
from dail_runtime.train.batches import collate
from dail_runtime.train.loss import fused_loss
from tests.support.tiny import make_tiny_model
from tests.support.training import make_student, train_spec

IDS = torch.tensor([[5, 9, 2, 7, 7, 1, 30, 12]])
SHAPE = {
    "vocab_size": 64,
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 8,
    "initializer_range": 0.5,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
EXPERTS = {
    "moe_intermediate_size": 8,
    "n_routed_experts": 4,
    "n_group": 1,
    "topk_group": 1,
    "num_experts_per_tok": 2,
    "first_k_dense_replace": 1,
}


def family(name: str) -> PreTrainedModel:
    torch.manual_seed(0)
    made: dict[str, Any] = {
        "llama, untied": lambda: LlamaForCausalLM(LlamaConfig(**SHAPE, tie_word_embeddings=False)),
        "gemma 2, soft-cap": lambda: Gemma2ForCausalLM(Gemma2Config(**SHAPE, final_logit_softcapping=3.0)),
        "cohere, logit scale": lambda: CohereForCausalLM(CohereConfig(**SHAPE, logit_scale=0.3)),
        "granite, logits scaling": lambda: GraniteForCausalLM(GraniteConfig(**SHAPE, logits_scaling=4.0)),
        "glm 4, a layer of experts": lambda: Glm4MoeForCausalLM(Glm4MoeConfig(**SHAPE, **EXPERTS)),
        "gpt 2, no linear layer": lambda: GPT2LMHeadModel(GPT2Config(vocab_size=64, n_embd=16, n_layer=1, n_head=2)),
        "llama 4, text": lambda: Llama4ForCausalLM(Llama4TextConfig(**SHAPE, intermediate_size_mlp=32, num_local_experts=2)),
    }
    model: PreTrainedModel = made[name]()
    return model.requires_grad_(False).eval()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("model"))


@pytest.mark.parametrize("name", ["llama, untied", "gemma 2, soft-cap", "cohere, logit scale", "granite, logits scaling"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_head_makes_the_logits_of_every_family(name: str, dtype: torch.dtype) -> None:
    student = Student(family(name).to(dtype), LoraSpec(r=2), seed=0, recompute=False)
    student.check_head(IDS)


def test_a_model_that_makes_its_logits_in_another_way_is_refused() -> None:
    model = family("gemma 2, soft-cap")
    student = Student(model, LoraSpec(r=2), seed=0, recompute=False)
    model.lm_head.register_forward_hook(lambda _module, _inputs, logits: logits * 1.5)
    with pytest.raises(ModelError, match="Gemma2ForCausalLM makes its logits in a way that dail's loss does not know"):
        student.check_head(IDS)


def test_there_is_one_copy_of_the_weights_and_training_leaves_them_alone(folder: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(folder).requires_grad_(False)
    before = {one.data_ptr(): one.clone() for one in model.parameters()}
    student = Student(model, LoraSpec(r=2), seed=0, recompute=False)
    frozen = [one for one in student.peft.parameters() if not one.requires_grad]
    assert {one.data_ptr() for one in frozen} == set(before)
    batch = collate([(5, 6)], [(7, 8, 2)], torch.device("cpu"))
    student.hidden(batch).sum().backward()
    assert all(one.grad is None for one in frozen)
    assert all(torch.equal(one, before[one.data_ptr()]) for one in frozen)


def test_the_references_are_the_model_without_its_adapter_and_without_dropout(folder: Path) -> None:
    spec = train_spec(lora={"r": 4, "dropout": 0.5})
    fresh, moved = make_student(folder, spec), make_student(folder, spec, moved=0.2)
    for student in (fresh, moved):
        for layer in student.causal.model.layers:
            layer.self_attn.attention_dropout = 0.5
    batch = collate([(5, 6, 7)], [(7, 8, 2)], torch.device("cpu"))
    base = fresh.reference_hidden(batch)
    moved.hidden(batch)
    assert torch.equal(moved.reference_hidden(batch), base)
    assert torch.equal(moved.reference_hidden(batch), base)
    assert not base.requires_grad
    one, other = moved.hidden(batch), moved.hidden(batch)
    assert one.requires_grad
    assert not torch.allclose(one, other), "dropout is off while the student learns"


def test_a_fresh_student_is_in_training_mode_throughout_so_that_checkpointing_takes_effect(folder: Path) -> None:
    student = make_student(folder, train_spec(gradientCheckpointing="on"))
    assert all(module.training for module in student.peft.modules())
    assert student.causal.is_gradient_checkpointing


def test_the_adapters_first_values_depend_on_the_seed_and_leave_the_global_generator_alone(folder: Path) -> None:
    state = torch.get_rng_state()
    one, same, other = (make_student(folder, train_spec(), seed=seed) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(one.trainable[name], same.trainable[name]) for name in one.trainable)
    assert any(not torch.equal(one.trainable[name], other.trainable[name]) for name in one.trainable)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_merged_model_is_the_base_plus_the_update_rounded_once(folder: Path, dtype: torch.dtype) -> None:
    student = make_student(folder, train_spec(), moved=0.05, dtype=dtype)
    name = "model.layers.0.mlp.up_proj.weight"
    before = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype).get_parameter(name).float()
    factors = {
        key[0]: weight for key, weight in ((key.split("lora_")[1], w) for key, w in student.trainable.items() if "0.mlp.up_proj" in key)
    }
    expected = (before + 2.0 * factors["B"] @ factors["A"]).to(dtype).detach()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
        adapted = student.causal.eval()(IDS).logits.float()
    model = merge(student)
    assert torch.equal(model.get_parameter(name), expected)
    assert not any("lora" in name for name, _ in model.named_parameters())
    with torch.no_grad():
        merged = model(IDS).logits.float()
    torch.testing.assert_close(merged, adapted, rtol=0, atol=1e-4 if dtype == torch.float32 else 0.1 * float(adapted.abs().max()))


def test_an_adapted_output_layer_makes_the_models_own_logits_and_its_loss_has_autograds_gradients() -> None:
    student = Student(family("llama, untied"), LoraSpec(r=2, targets=("q_proj", "lm_head")), seed=0, recompute=False)
    noise = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in student.trainable.values():
            weight.add_(torch.randn(weight.shape, generator=noise), alpha=0.1)
    student.check_head(IDS)
    assert any("lm_head.lora_B" in name for name in student.trainable)
    batch = collate([(5, 6)], [(7, 8, 2)], torch.device("cpu"))
    hidden = student.hidden(batch)
    ours = fused_loss(hidden, student.head, objective="nll", labels=batch.labels, update=student.update(hidden)).loss
    logits = student.causal(input_ids=batch.ids).logits[0, batch.rows]
    plain = torch.nn.functional.cross_entropy(logits, batch.labels)
    torch.testing.assert_close(ours, plain)
    weights = list(student.trainable.values())
    for one, other in zip(torch.autograd.grad(ours, weights), torch.autograd.grad(plain, weights), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)
    # Merged, the output layer has its update as well; the references never had it.
    with torch.no_grad():
        adapted = student.causal.eval()(IDS).logits
    torch.testing.assert_close(merge(student)(IDS).logits, adapted, rtol=1e-4, atol=1e-4)


def test_experts_that_are_one_tensor_are_merged_like_layers() -> None:
    student = Student(family("glm 4, a layer of experts"), LoraSpec(r=2), seed=0, recompute=False)
    assert any("experts" in name for name in student.trainable)
    noise = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in student.trainable.values():
            weight.add_(torch.randn(weight.shape, generator=noise), alpha=0.1)
        base, adapted = student.peft.eval(), student.causal.eval()(IDS).logits
        with base.disable_adapter():
            assert not torch.allclose(student.causal(IDS).logits, adapted, atol=1e-2)
        torch.testing.assert_close(merge(student)(IDS).logits, adapted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("name", "lora", "says"),
    [
        (
            "glm 4, a layer of experts",
            LoraSpec(dropout=0.1),
            r"train.lora: .* cannot be adapted so \(.*dropout.*\); change targets or dropout",
        ),
        ("gpt 2, no linear layer", LoraSpec(), "no linear layer 'q_proj' that can be adapted; it has none at all: choose another model"),
        ("llama 4, text", LoraSpec(), "Llama4ForCausalLM does not tell its decoder apart; choose another model"),
    ],
)
def test_models_that_cannot_be_adapted_are_refused_in_a_sentence(name: str, lora: LoraSpec, says: str) -> None:
    with pytest.raises(ModelError, match=says):
        Student(family(name), lora, seed=0, recompute=False)


def test_a_target_that_matches_no_layer_is_an_error_that_names_the_layers(folder: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(folder)
    for target in ("c_attn", "lm_head", "proj"):
        with pytest.raises(ModelError, match=rf"train.lora.targets: .* has no linear layer '{target}' .* down_proj, gate_proj, k_proj"):
            check_targets(model, ("q_proj", target))
    check_targets(model, ("q_proj", "mlp.up_proj"))


def test_gradient_checkpointing_is_automatic_over_500_m_parameters(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = AutoModelForCausalLM.from_pretrained(folder)
    assert [recomputes(setting, model) for setting in ("on", "off", "auto")] == [True, False, False]
    monkeypatch.setattr(type(model), "num_parameters", lambda _: 500_000_001)
    assert recomputes("auto", model)
