"""The fused loss against the plain one: values, gradients, memory, and the slips it must not make."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from dail_runtime.train.loss import Head, LossOutput, fused_loss, rows
from dail_runtime.train.loss.plain import plain_logits, plain_values

OBJECTIVES = ("contrastive", "distill", "nll", "sft")


def inputs(tokens: int, width: int, vocabulary: int, *, dtype: torch.dtype = torch.float64, seed: int = 0) -> dict[str, Tensor]:
    made = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=made, dtype=torch.float64).to(dtype)

    return {
        "hidden": draw(tokens, width).requires_grad_(),
        "teacher": draw(tokens, width),
        "negative": draw(tokens, width),
        "labels": torch.randint(vocabulary, (tokens,), generator=made),
        "weight": draw(vocabulary, width).requires_grad_(),
        "bias": draw(vocabulary).requires_grad_(),
    }


def chosen(objective: str, given: dict[str, Tensor]) -> dict[str, Any]:
    names = {"contrastive": ["teacher", "negative"], "distill": ["teacher"]}.get(objective, ["labels"])
    return {name: given[name] for name in names}


def grads(loss: Tensor, wanted: list[Tensor]) -> list[Tensor]:
    return list(torch.autograd.grad(loss, wanted))


@settings(max_examples=40, deadline=None)
@given(
    tokens=st.integers(1, 23),
    width=st.integers(1, 9),
    vocabulary=st.integers(2, 70),
    chunk=st.integers(1, 30),
    objective=st.sampled_from(OBJECTIVES),
    gamma=st.floats(0, 0.95),
    reduction=st.sampled_from(("mean", "sum")),
    with_bias=st.booleans(),
    scale=st.sampled_from((1.0, 0.25)),
    cap=st.sampled_from((None, 3.0)),
    weighted=st.booleans(),
    seed=st.integers(0, 99),
)
def test_loss_and_gradients_equal_the_plain_version_over_random_shapes(
    tokens, width, vocabulary, chunk, objective, gamma, reduction, with_bias, scale, cap, weighted, seed
):
    given = inputs(tokens, width, vocabulary, seed=seed)
    head = Head(given["weight"], given["bias"] if with_bias else None, scale, cap)
    weights = torch.rand(tokens, dtype=torch.float64) + 0.1 if weighted else torch.ones(tokens, dtype=torch.float64)
    kind = {"objective": objective, "gamma": gamma, **chosen(objective, given)}
    values = plain_values(given["hidden"], head, **kind)
    expected = (weights * values).sum() / (weights.sum() if reduction == "mean" else 1)
    found = fused_loss(given["hidden"], head, **kind, weights=weights if weighted else None, reduction=reduction, chunk_tokens=chunk)
    wanted = [given["hidden"], given["weight"]] + ([given["bias"]] if with_bias else [])
    torch.testing.assert_close(found.loss, expected, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(found.tokens.value, values.detach(), rtol=1e-9, atol=1e-12)
    for ours, plain in zip(grads(found.loss, wanted), grads(expected, wanted), strict=True):
        torch.testing.assert_close(ours, plain, rtol=1e-8, atol=1e-11)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_gradients_pass_gradcheck(objective):
    given = inputs(5, 4, 11)

    # The references do not follow the weights that are being varied.
    fixed = Head(given["weight"].detach().clone(), given["bias"].detach().clone(), 0.5, 4.0)

    def loss(hidden: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return fused_loss(
            hidden,
            Head(weight, bias, 0.5, 4.0),
            objective=objective,
            **chosen(objective, given),
            gamma=0.3,
            chunk_tokens=2,
            reference_head=fixed,
        ).loss

    assert torch.autograd.gradcheck(loss, (given["hidden"], given["weight"], given["bias"]))


@pytest.mark.parametrize("objective", ["contrastive", "nll"])
def test_in_float32_gradients_stay_within_1e_5_of_float64_at_a_large_vocabulary(objective):
    wide = inputs(24, 48, 50_257)
    narrow = {name: tensor.detach().to(torch.float32) if tensor.is_floating_point() else tensor for name, tensor in wide.items()}
    exact = {name: tensor.to(torch.float64) if tensor.is_floating_point() else tensor for name, tensor in narrow.items()}
    narrow["hidden"].requires_grad_()
    exact["hidden"].requires_grad_()
    kind = {"objective": objective, "gamma": 0.1}
    found = fused_loss(narrow["hidden"], Head(narrow["weight"]), **kind, **chosen(objective, narrow), chunk_tokens=7)
    expected = plain_values(exact["hidden"], Head(exact["weight"]), **kind, **chosen(objective, exact)).mean()
    torch.testing.assert_close(found.loss.double(), expected, rtol=1e-5, atol=0)
    ours, plain = grads(found.loss, [narrow["hidden"]])[0].double(), grads(expected, [exact["hidden"]])[0]
    assert (ours - plain).norm() <= 1e-5 * plain.norm()


def test_the_value_is_the_fused_kl_to_p_star_up_to_a_constant_of_the_references():
    given, gamma = inputs(6, 5, 17), 0.4
    head = Head(given["weight"])
    teacher, negative = (torch.log_softmax(plain_logits(given[name], head), -1) for name in ("teacher", "negative"))
    raw = (teacher - gamma * negative) / (1 - gamma)
    target = torch.log_softmax(raw, -1)
    student = torch.log_softmax(plain_logits(given["hidden"], head), -1)
    fused_kl = (student.exp() * (student - target)).sum(-1)
    constant = -(1 - gamma) * torch.logsumexp(raw, -1)
    found = fused_loss(given["hidden"], head, objective="contrastive", teacher=given["teacher"], negative=given["negative"], gamma=gamma)
    torch.testing.assert_close(found.tokens.value, ((1 - gamma) * fused_kl + constant).detach())


def test_the_figures_of_each_token_are_those_of_the_full_distributions():
    given = inputs(9, 6, 40)
    head = Head(given["weight"])
    logs = {name: torch.log_softmax(plain_logits(given[name], head), -1) for name in ("hidden", "teacher", "negative")}
    p = logs["hidden"].exp()
    tokens = fused_loss(given["hidden"], head, objective="contrastive", teacher=given["teacher"], negative=given["negative"]).tokens
    torch.testing.assert_close(tokens.kl_teacher, (p * (logs["hidden"] - logs["teacher"])).sum(-1).detach())
    torch.testing.assert_close(tokens.kl_negative, (p * (logs["hidden"] - logs["negative"])).sum(-1).detach())
    torch.testing.assert_close(tokens.entropy, -(p * logs["hidden"]).sum(-1).detach())
    top = logs["teacher"].argmax(-1, keepdim=True)
    torch.testing.assert_close(tokens.teacher_top_mass, p.gather(1, top).squeeze(1).detach())
    assert not any(one.requires_grad for one in tokens.all() if one is not None)


def test_nll_has_no_figures_of_references():
    given = inputs(4, 3, 10)
    tokens = fused_loss(given["hidden"], Head(given["weight"]), objective="nll", labels=given["labels"]).tokens
    assert (tokens.kl_teacher, tokens.kl_negative, tokens.teacher_top_mass) == (None, None, None)


def test_logits_of_a_bfloat16_head_are_not_rounded_to_bfloat16():
    given = inputs(16, 64, 300, dtype=torch.bfloat16)
    head = Head(given["weight"].detach())
    exact = {name: tensor.detach().double() for name, tensor in given.items() if name != "labels"}
    expected = plain_values(
        exact["hidden"].requires_grad_(),
        Head(exact["weight"]),
        objective="contrastive",
        teacher=exact["teacher"],
        negative=exact["negative"],
    )
    found = fused_loss(given["hidden"], head, objective="contrastive", teacher=given["teacher"], negative=given["negative"], chunk_tokens=5)
    assert found.loss.dtype == torch.float32
    torch.testing.assert_close(found.tokens.value.double(), expected.detach(), rtol=1e-4, atol=1e-4)
    # The slip: logits in bfloat16. It is far off, so the line above would notice it.
    slip = plain_values(given["hidden"], head, objective="contrastive", **chosen("contrastive", given))
    assert (slip.double() - expected).abs().max() > 1e-2
    grad = grads(found.loss, [given["hidden"]])[0]
    assert grad.dtype == torch.bfloat16
    wanted = grads(expected.mean(), [exact["hidden"]])[0]
    assert (grad.double() - wanted).norm() <= 4e-3 * wanted.norm()


def test_a_bfloat16_matrix_is_widened_in_tiles_without_a_seam(monkeypatch):
    from dail_runtime.train.loss import head as module

    given = inputs(6, 8, 700, dtype=torch.bfloat16)
    whole = fused_loss(given["hidden"], Head(given["weight"], given["bias"]), objective="nll", labels=given["labels"])
    expected = grads(whole.loss, [given["hidden"], given["weight"], given["bias"]])
    monkeypatch.setattr(module, "_TILE_BYTES", 1)
    tiled = fused_loss(given["hidden"], Head(given["weight"], given["bias"]), objective="nll", labels=given["labels"])
    torch.testing.assert_close(tiled.loss, whole.loss)
    for one, other in zip(grads(tiled.loss, [given["hidden"], given["weight"], given["bias"]]), expected, strict=True):
        torch.testing.assert_close(one, other)


def test_a_token_of_weight_zero_counts_for_nothing():
    given = inputs(8, 5, 21)
    head, weights = Head(given["weight"]), torch.tensor([1.0, 1, 0, 1, 0, 1, 1, 0], dtype=torch.float64)
    keep = weights.bool()
    part = {name: given[name][keep] for name in ("teacher", "negative")}
    full = fused_loss(given["hidden"], head, objective="contrastive", **chosen("contrastive", given), weights=weights)
    less = fused_loss(given["hidden"][keep], head, objective="contrastive", **part)
    torch.testing.assert_close(full.loss, less.loss)
    ours, expected = grads(full.loss, [given["hidden"]])[0], grads(less.loss, [given["hidden"]])[0]
    torch.testing.assert_close(ours, expected)
    assert ours[~keep].abs().max() == 0


def test_a_tied_matrix_gets_the_gradient_of_both_its_uses():
    given = inputs(7, 6, 30)
    ids = torch.randint(30, (7,))

    def with_tied(loss_of: Any) -> Tensor:
        hidden = torch.tanh(torch.nn.functional.embedding(ids, given["weight"]))
        return grads(loss_of(hidden, Head(given["weight"])), [given["weight"]])[0]

    ours = with_tied(lambda hidden, head: fused_loss(hidden, head, objective="nll", labels=given["labels"]).loss)
    plain = with_tied(lambda hidden, head: plain_values(hidden, head, objective="nll", labels=given["labels"]).mean())
    torch.testing.assert_close(ours, plain)


def test_a_trained_head_is_compared_with_the_frozen_one():
    given = inputs(6, 5, 20)
    frozen = Head(given["weight"].detach())
    moved = Head((given["weight"] * 1.5).detach().requires_grad_())
    found = fused_loss(given["hidden"], moved, objective="distill", teacher=given["teacher"], reference_head=frozen)
    student = torch.log_softmax(plain_logits(given["hidden"], moved), -1)
    teacher = torch.log_softmax(plain_logits(given["teacher"], frozen), -1)
    expected = (student.exp() * (student - teacher)).sum(-1).mean()
    torch.testing.assert_close(found.loss, expected)
    torch.testing.assert_close(grads(found.loss, [moved.weight])[0], grads(expected, [moved.weight])[0])


def test_a_loss_scaled_by_the_caller_scales_its_gradient():
    given = inputs(4, 3, 9)
    kind = {"objective": "nll", "labels": given["labels"]}
    once, twice = (
        grads(factor * fused_loss(given["hidden"], Head(given["weight"]), **kind).loss, [given["hidden"]])[0] for factor in (1, -2)
    )
    torch.testing.assert_close(twice, -2 * once)


def test_without_gradients_asked_for_none_is_computed(monkeypatch):
    given = inputs(4, 3, 9)
    monkeypatch.setattr("dail_runtime.train.loss.fused.pull_back", lambda *_: pytest.fail("a gradient was computed"))
    with torch.no_grad():
        loss = fused_loss(given["hidden"], Head(given["weight"]), objective="nll", labels=given["labels"]).loss
    assert not loss.requires_grad


def test_autocast_does_not_reach_into_the_loss():
    given = inputs(12, 32, 90, dtype=torch.float32)
    kind = {"objective": "contrastive", **chosen("contrastive", given)}
    expected = fused_loss(given["hidden"], Head(given["weight"]), **kind).loss
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = fused_loss(given["hidden"], Head(given["weight"]), **kind).loss
    assert torch.equal(found, expected)


def test_no_tensor_of_all_tokens_times_the_vocabulary_is_made():
    tokens, vocabulary, chunk = 4096, 1000, 32
    given = inputs(tokens, 8, vocabulary, dtype=torch.float32)
    largest = 0

    class Watch(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            nonlocal largest
            made = func(*args, **(kwargs or {}))
            for one in made if isinstance(made, (tuple, list)) else (made,):
                if isinstance(one, Tensor):
                    largest = max(largest, one.numel())
            return made

    with Watch():
        fused_loss(
            given["hidden"], Head(given["weight"]), objective="contrastive", **chosen("contrastive", given), chunk_tokens=chunk
        ).loss.backward()
    assert largest <= max(chunk * vocabulary, tokens * 8)


def test_blocks_of_rows_change_nothing(monkeypatch):
    given = inputs(50, 6, 33)
    kind = {"objective": "contrastive", **chosen("contrastive", given)}
    whole = fused_loss(given["hidden"], Head(given["weight"]), **kind)
    monkeypatch.setattr(rows, "BLOCK_BYTES", 1)
    blocks = fused_loss(given["hidden"], Head(given["weight"]), **kind)
    assert torch.equal(whole.tokens.value, blocks.tokens.value)


def test_no_token_gives_zero_and_no_gradient():
    given = inputs(0, 3, 9)
    found: LossOutput = fused_loss(given["hidden"], Head(given["weight"]), objective="nll", labels=given["labels"])
    assert found.loss == 0
    assert grads(found.loss, [given["hidden"]])[0].shape == (0, 3)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"teacher": None}, "needs `teacher`"),
        ({"negative": None}, "needs `negative`"),
        ({"teacher": torch.zeros(3, 4)}, "`teacher` has 3 rows, but `hidden` has 5"),
        ({"gamma": 1.0}, "no lower bound"),
    ],
)
def test_wrong_arguments_are_refused(change, says):
    given = inputs(5, 4, 9)
    kind: dict[str, Any] = {"objective": "contrastive", **chosen("contrastive", given), **change}
    with pytest.raises(ValueError, match=says):
        fused_loss(given["hidden"], Head(given["weight"]), **kind)
