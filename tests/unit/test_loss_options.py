"""Options of the fused loss against autograd on the plain one: coarse references, clips, prefix masks, adapted and sharded heads."""

from __future__ import annotations

import itertools
import threading
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import Shard, distribute_tensor

from dail_runtime.train.loss import Head, LowRank, PrefixMask, TopK, columns, fused_loss, top_k
from dail_runtime.train.loss.plain import plain_logits, plain_values
from dail_runtime.train.ranks import place
from dail_runtime.train.world import joined
from tests.support.ranks import run_ranks
from tests.unit.test_loss import grads, inputs


def alive_by_hand(margins: list[float], counts: list[int], mask: PrefixMask) -> list[bool]:
    """The definition of the prefix mask, token by token."""
    found: list[bool] = []
    at = 0
    for count in counts:
        over = False
        for position in range(count):
            found.append(not over)
            window = margins[at + position + 1 - mask.window : at + position + 1] if position + 1 >= mask.window else []
            over = over or (bool(window) and sum(window) / len(window) < mask.margin)
        at += count
    return found


@settings(max_examples=40, deadline=None)
@given(
    counts=st.lists(st.integers(1, 9), min_size=1, max_size=4),
    width=st.integers(1, 9),
    vocabulary=st.integers(3, 60),
    chunk=st.integers(1, 20),
    objective=st.sampled_from(("contrastive", "distill")),
    gamma=st.floats(0, 0.9),
    reduction=st.sampled_from(("mean", "sum")),
    k=st.sampled_from((None, 1, 2, 3)),
    clip=st.sampled_from((None, 0.5, 2.0)),
    prefix=st.sampled_from((None, PrefixMask(0.0, 1), PrefixMask(0.5, 2), PrefixMask(-1.0, 3))),
    adapted=st.booleans(),
    cap=st.sampled_from((None, 3.0)),
    seed=st.integers(0, 99),
)
def test_options_in_any_mixture_equal_autograd_on_the_plain_version(
    counts, width, vocabulary, chunk, objective, gamma, reduction, k, clip, prefix, adapted, cap, seed
):
    tokens = sum(counts)
    given = inputs(tokens, width, vocabulary, seed=seed)
    head = Head(given["weight"], given["bias"], 0.5, cap)
    frozen = Head(given["weight"].detach(), given["bias"].detach(), 0.5, cap)
    negative = given["negative"] if objective == "contrastive" else None
    down, up = (torch.randn(*shape, dtype=torch.float64, requires_grad=True) for shape in ((2, width), (vocabulary, 2)))
    weights = torch.rand(tokens, dtype=torch.float64) + 0.1
    starts = torch.tensor([sum(counts[:at]) for at, count in enumerate(counts) for _ in range(count)])

    # Plain: the adapter's update is part of the matrix.
    whole = Head(given["weight"] + (up @ down if adapted else 0), given["bias"], 0.5, cap)
    moved = plain_logits(given["hidden"], whole)
    logs = {name: torch.log_softmax(plain_logits(given[name], frozen), -1) for name in ("teacher", "negative")}
    kept = {"teacher": logs["teacher"].exp(), "negative": logs["negative"].exp()}
    student = torch.log_softmax(moved, -1)
    if k is not None:
        ids = logs["teacher"].topk(k, -1).indices
        rest = torch.ones_like(student).scatter(1, ids, 0)
        student = torch.cat([student.gather(1, ids), (student.exp() * rest).sum(-1, keepdim=True).log()], 1)
        kept = {name: torch.cat([p.gather(1, ids), (p * rest).sum(-1, keepdim=True)], 1) for name, p in kept.items()}
    values = (student.exp() * (student - kept["teacher"].log())).sum(-1)
    if negative is not None:
        values = values - gamma * (student.exp() * (student - kept["negative"].log())).sum(-1)
    alive = torch.ones(tokens, dtype=torch.float64)
    if prefix is not None:
        index = given["labels"][:, None]
        margins = (logs["teacher"].gather(1, index) - torch.log_softmax(moved, -1).gather(1, index)).squeeze(1)
        alive = torch.tensor(alive_by_hand(margins.tolist(), counts, prefix), dtype=torch.float64)
    clipped = torch.clamp(values, max=clip) if clip is not None else values
    expected = (weights * alive * clipped).sum() / ((weights * alive).sum() if reduction == "mean" else 1)

    references: dict[str, Any] = {"teacher": given["teacher"], "negative": negative}
    if k is not None:
        references = {"targets": top_k(given["teacher"], negative, frozen, given["labels"], k, chunk_tokens=chunk)}
    found = fused_loss(
        given["hidden"],
        head,
        objective=objective,
        **references,
        labels=given["labels"],
        gamma=gamma,
        weights=weights,
        reduction=reduction,
        chunk_tokens=chunk,
        reference_head=frozen,
        update=LowRank(given["hidden"] @ down.t(), up) if adapted else None,
        clip=clip,
        prefix=prefix,
        starts=starts,
    )
    wanted = [given["hidden"], given["weight"], given["bias"], *([down, up] if adapted else [])]
    torch.testing.assert_close(found.loss, expected, rtol=1e-8, atol=1e-11)
    torch.testing.assert_close(found.tokens.value, (alive * clipped).detach(), rtol=1e-8, atol=1e-11)
    if prefix is not None:
        assert torch.equal(found.tokens.supervised, alive)
    if clip is not None:
        assert torch.equal(found.tokens.clipped, (alive * (values > clip)).detach())
    for ours, plain in zip(grads(found.loss, wanted), grads(expected, wanted), strict=True):
        torch.testing.assert_close(ours, plain, rtol=1e-7, atol=1e-10)


@settings(max_examples=12, deadline=None)
@given(
    vocabulary=st.sampled_from((50_257, 128_256, 151_936, 256_000)),
    counts=st.lists(st.integers(1, 5), min_size=1, max_size=3),
    objective=st.sampled_from(("contrastive", "nll")),
    dtype=st.sampled_from((torch.float64, torch.float32)),
    k=st.sampled_from((None, 64)),
    seed=st.integers(0, 9),
)
def test_vocabularies_up_to_256k_equal_the_plain_version_in_float64(vocabulary, counts, objective, dtype, k, seed):
    narrow = {
        name: one.detach().to(dtype) if one.is_floating_point() else one
        for name, one in inputs(sum(counts), 8, vocabulary, seed=seed).items()
    }
    exact = {name: one.double() if one.is_floating_point() else one for name, one in narrow.items()}
    narrow["hidden"].requires_grad_()
    exact["hidden"].requires_grad_()
    k = k if objective == "contrastive" else None
    head = Head(narrow["weight"])
    kind: dict[str, Any] = {"teacher": narrow["teacher"], "negative": narrow["negative"], "labels": narrow["labels"]}
    if k is not None:
        kind = {"targets": top_k(narrow["teacher"], narrow["negative"], head, narrow["labels"], k)}
    found = fused_loss(narrow["hidden"], head, objective=objective, **kind, chunk_tokens=3)
    expected = plain_values(
        exact["hidden"],
        Head(exact["weight"]),
        objective=objective,
        teacher=exact["teacher"],
        negative=exact["negative"],
        labels=exact["labels"],
        top_k=k,
    ).mean()
    # Coarse: nearly everything is in the tail here, and in float32 the logs of two tails close to 1 differ by little but rounding.
    tolerance = 1e-9 if dtype == torch.float64 else 1e-4 if k is None else 3e-4
    torch.testing.assert_close(found.loss.double(), expected, rtol=tolerance, atol=tolerance / 100)
    ours, plain = grads(found.loss, [narrow["hidden"]])[0].double(), grads(expected, [exact["hidden"]])[0]
    assert (ours - plain).norm() <= tolerance * plain.norm()


def test_the_whole_vocabulary_as_top_k_is_the_full_objective():
    given = inputs(7, 5, 19)
    head = Head(given["weight"].detach())
    targets = top_k(given["teacher"], given["negative"], head, given["labels"], 99)
    coarse = fused_loss(given["hidden"], head, objective="contrastive", targets=targets)
    full = fused_loss(given["hidden"], head, objective="contrastive", teacher=given["teacher"], negative=given["negative"])
    torch.testing.assert_close(coarse.loss, full.loss)
    torch.testing.assert_close(coarse.tokens.kl_negative, full.tokens.kl_negative)
    torch.testing.assert_close(coarse.tokens.teacher_top_mass, full.tokens.teacher_top_mass)
    torch.testing.assert_close(grads(coarse.loss, [given["hidden"]])[0], grads(full.loss, [given["hidden"]])[0])


def test_a_coarser_partition_never_has_a_larger_kl():
    given = inputs(9, 6, 50)
    head = Head(given["weight"].detach())
    found = [
        fused_loss(given["hidden"], head, objective="distill", targets=top_k(given["teacher"], None, head, given["labels"], k)).tokens.value
        for k in (1, 4, 16, 50)
    ]
    for coarse, fine in itertools.pairwise(found):
        assert (coarse <= fine + 1e-12).all()


@pytest.mark.parametrize("negative", [True, False])
def test_packed_targets_are_unpacked_the_same(negative: bool):
    given = inputs(6, 5, 300, dtype=torch.float32)
    head = Head(given["weight"].detach())
    made = top_k(given["teacher"], given["negative"] if negative else None, head, given["labels"], 7)
    packed = made.packed()
    assert packed.shape == (6, columns(7, negative=negative))
    again = TopK.unpacked(packed, 7, negative=negative)
    for one, other in zip(again._fields(), made._fields(), strict=True):
        assert (one is None and other is None) or torch.equal(one, other)


def test_a_clipped_token_gives_no_gradient_and_is_counted():
    given = inputs(12, 6, 40)
    head = Head(given["weight"].detach())
    plain = fused_loss(given["hidden"], head, objective="distill", teacher=given["teacher"]).tokens.value
    clip = float(plain.median())
    found = fused_loss(given["hidden"], head, objective="distill", teacher=given["teacher"], clip=clip, reduction="sum")
    grad = grads(found.loss, [given["hidden"]])[0]
    over = plain > clip
    assert 0 < over.sum() < 12
    assert torch.equal(found.tokens.clipped.bool(), over)
    assert grad[over].abs().max() == 0
    assert (grad[~over].abs().amax(-1) > 0).all()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"prefix": PrefixMask(0, 1), "starts": None}, "needs `starts`"),
        ({"prefix": PrefixMask(0, 1), "labels": None}, "needs `labels`"),
        ({"objective": "nll", "prefix": PrefixMask(0, 1)}, "has no teacher whose margin"),
    ],
)
def test_options_that_lack_something_are_refused(change, says):
    given = inputs(5, 4, 9)
    kind = {"objective": "distill", "teacher": given["teacher"], "labels": given["labels"], "starts": torch.zeros(5, dtype=torch.long)}
    with pytest.raises(ValueError, match=says):
        fused_loss(given["hidden"], Head(given["weight"]), **{**kind, **change})


@pytest.mark.parametrize("size", [2, 4])
@pytest.mark.parametrize("trained", [False, True])
def test_a_matrix_sharded_over_ranks_gives_the_loss_and_gradients_of_the_whole_one(size: int, trained: bool):
    given = inputs(8, 5, 21)
    parts = [slice(at * 8 // size, (at + 1) * 8 // size) for at in range(size)]

    def kind(part: slice, head: Head) -> dict[str, Any]:
        return {
            "objective": "contrastive",
            "teacher": given["teacher"][part],
            "negative": given["negative"][part],
            "weights": torch.full((part.stop - part.start,), 1 / 8, dtype=torch.float64),
            "reduction": "sum",
            "reference_head": None if not trained else Head(given["weight"].detach(), head.bias),
        }

    whole = Head(given["weight"].detach().requires_grad_(trained), given["bias"].detach())
    expected = fused_loss(given["hidden"], whole, **kind(slice(0, 8), whole))
    wanted = grads(expected.loss, [given["hidden"], *([whole.weight] if trained else [])])

    def on_rank(rank: int) -> tuple[Tensor, list[Tensor]]:
        with joined(place(), torch.device("cpu"), threading.Event(), lambda _: None):
            mesh = init_device_mesh("cpu", (size,))
            # 21 rows: the shards are not equally large.
            weight = distribute_tensor(given["weight"].detach(), mesh, [Shard(0)]).requires_grad_(trained)
            head = Head(weight, given["bias"].detach())
            hidden = given["hidden"].detach()[parts[rank]].clone().requires_grad_()
            loss = fused_loss(hidden, head, **kind(parts[rank], head)).loss
            loss.backward()
            return loss.detach(), [hidden.grad, *([weight.grad.full_tensor()] if trained else [])]

    found = run_ranks(size, on_rank)
    torch.testing.assert_close(sum(loss for loss, _ in found), expected.loss.detach())
    torch.testing.assert_close(torch.cat([one[0] for _, one in found]), wanted[0])
    if trained:
        torch.testing.assert_close(found[0][1][1], wanted[1])
