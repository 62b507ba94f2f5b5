"""The gradient of a training step against one that is computed row by row, without padding, chunks or caches; and the known slips."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from dail_runtime.train.adapter import Student
from dail_runtime.train.batches import Step
from dail_runtime.train.data import REFERENCES, Row
from tests.support.tiny import make_tiny_model
from tests.support.training import make_student, make_training, store_at, tiny_rows, train_spec

GAMMA = 0.3
ROWS = tiny_rows(5)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("model"))


def plain_gradient(
    student: Student,
    rows: Sequence[Row],
    objective: str,
    *,
    shift: int = 0,
    padded_to: int = 0,
    one_length: bool = False,
    coarse: bool = False,
) -> tuple[float, dict[str, Tensor]]:
    """Loss and gradient by the definition: each context run alone, full logits, autograd. The switches make the known slips.

    shift: take the rows that many places later. padded_to: pad responses with id 0 to that length and count the padding.
    one_length: take the student's prompt length for all contexts. coarse: round logits to bfloat16.
    """
    student.peft.train()
    values = []
    for row in rows:
        response = row.response + (0,) * max(0, padded_to - len(row.response))

        def logs(context: Any, row: Row = row, response: tuple[int, ...] = response) -> Tensor:
            prompt = row.prompts[context]
            ids = torch.tensor([(*prompt, *response)])
            first = len(row.prompts["student"] if one_length else prompt) - 1 + shift
            logits = student.causal(input_ids=ids).logits[0, first : first + len(response)]
            logits = logits.bfloat16().float() if coarse else logits
            return torch.log_softmax(logits, -1)

        log_student = logs("student")
        if objective in ("nll", "sft"):
            values.append(-log_student.gather(1, torch.tensor(response)[:, None]).squeeze(1))
            continue
        with torch.no_grad(), student.peft.disable_adapter():
            references = [logs(context) for context in REFERENCES[objective]]  # type: ignore[index]
        there = min(len(one) for one in (log_student, *references))
        log_student = log_student[:there]
        gaps = [(log_student.exp() * (log_student - one[:there])).sum(-1) for one in references]
        values.append(gaps[0] if len(gaps) == 1 else gaps[0] - GAMMA * gaps[1])
    loss = torch.cat(values).mean()
    weights = student.trainable
    return loss.item(), dict(zip(weights, torch.autograd.grad(loss, list(weights.values())), strict=True))


def step_gradient(student: Student, objective: str, store: Path, **settings: Any) -> tuple[float, dict[str, Tensor]]:
    """Loss and gradient as the training loop computes them."""
    spec = train_spec(objective=objective, gamma=GAMMA, chunkTokens=16, **settings)
    training = make_training(student, ROWS, spec, store_at(store))
    references = training.references()
    references.prepare(lambda *_: None)
    means = training.accumulate(Step(spec.objective, 1, tuple(range(len(ROWS)))), references)
    gradient = {name: weight.grad for name, weight in student.trainable.items()}
    for weight in student.trainable.values():
        weight.grad = None
    return means["value"], gradient  # type: ignore[return-value]


def distance(one: dict[str, Tensor], other: dict[str, Tensor]) -> float:
    """Norm of the difference over the norm of `other`."""
    return float(
        torch.cat([(one[name] - other[name]).flatten() for name in other]).norm() / torch.cat([t.flatten() for t in other.values()]).norm()
    )


@pytest.mark.parametrize("objective", ["contrastive", "distill", "nll", "sft"])
def test_a_steps_gradient_is_that_of_the_definition_for_ragged_batches(objective: str, model: Path, tmp_path: Path) -> None:
    student = make_student(model, train_spec(), moved=0.05)
    loss, expected = plain_gradient(student, ROWS, objective)
    found_loss, found = step_gradient(student, objective, tmp_path)
    assert found_loss == pytest.approx(loss, rel=1e-5)
    assert distance(found, expected) < 1e-5


@pytest.mark.parametrize(
    "settings",
    [
        {"microBatchTokens": 64},
        {"microBatchTokens": 4096, "cacheReferences": "off"},
        {"microBatchTokens": 64, "cacheReferences": "off"},
        {"cacheReferences": "on"},
        {"gradientCheckpointing": "on"},
    ],
    ids=str,
)
def test_micro_batches_caches_and_recomputing_change_nothing(settings: dict[str, Any], model: Path, tmp_path: Path) -> None:
    spec = train_spec(**{"gradientCheckpointing": "off", **settings})
    student = make_student(model, spec, moved=0.05)
    loss, expected = plain_gradient(student, ROWS, "contrastive")
    found_loss, found = step_gradient(student, "contrastive", tmp_path, **settings)
    assert found_loss == pytest.approx(loss, rel=1e-5)
    assert distance(found, expected) < 1e-5


@pytest.mark.parametrize(
    "slip",
    [{"shift": 1}, {"padded_to": 11}, {"one_length": True}, {"coarse": True}],
    ids=["rows shifted by one", "padding counted", "one prompt length for all contexts", "logits in bfloat16"],
)
def test_the_known_slips_would_be_seen(slip: dict[str, Any], model: Path, tmp_path: Path) -> None:
    student = make_student(model, train_spec(), moved=0.05)
    _, slipped = plain_gradient(student, ROWS, "contrastive", **slip)
    _, found = step_gradient(student, "contrastive", tmp_path)
    assert distance(found, slipped) > 3e-4


def test_a_bfloat16_model_is_trained_through_float32_logits_and_a_float32_adapter(model: Path, tmp_path: Path) -> None:
    spec = train_spec()
    exact = make_student(model, spec, moved=0.05)
    narrow = make_student(model, spec, moved=0.05, dtype=torch.bfloat16)
    assert {weight.dtype for weight in narrow.trainable.values()} == {torch.float32}
    _, expected = step_gradient(exact, "contrastive", tmp_path)
    _, found = step_gradient(narrow, "contrastive", tmp_path)
    assert distance(found, expected) < 0.1
