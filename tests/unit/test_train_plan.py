"""The memory plan against what training really keeps, its sentences, and the checks before a model is loaded."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from dail_runtime.errors import DailError, SetupError
from dail_runtime.train import sanity
from dail_runtime.train.adapter import Student
from dail_runtime.train.batches import Batch, collate
from dail_runtime.train.plan import MemoryPlan, plan_memory, remedy
from dail_runtime.train.ranks import Place
from dail_runtime.train.sanity import check_device, within
from dail_runtime.train.sharding import must_shard
from tests.support.tiny import make_tiny_model
from tests.support.training import alone, make_student, tiny_rows, train_spec


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("model"), hidden=128, layers=4)


def kept_for_backward(student: Student, batch: Batch) -> int:
    """Bytes of all tensors that autograd keeps, each storage once, weights left out."""
    weights = {one.untyped_storage().data_ptr() for one in student.causal.parameters()}
    seen: dict[int, int] = {}

    def keep(one: Tensor) -> Tensor:
        storage = one.untyped_storage()
        if storage.data_ptr() not in weights:
            seen[storage.data_ptr()] = storage.nbytes()
        return one

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda one: one):
        student.hidden(batch)
    return sum(seen.values())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("recompute", [False, True])
def test_planned_activations_are_near_what_autograd_keeps(dtype: torch.dtype, recompute: bool, model: Path) -> None:
    spec = train_spec(gradientCheckpointing="on" if recompute else "off", microBatchTokens=4096)
    student = make_student(model, spec, dtype=dtype)
    batch = collate([(5,) * 500] * 4, [(7,) * 12] * 4, torch.device("cpu"))
    kind: dict[str, Any] = {"weights": 0, "trainable": 0, "itemsize": dtype.itemsize, "ranks": 1, "cpu": True}
    plan = plan_memory(student.causal.config, spec, [511] * 4, recompute=recompute, **kind)
    whole = plan_memory(student.causal.config, spec, [511] * 4, recompute=False, **kind)
    assert plan.tokens == 4 * 511
    found = kept_for_backward(student, batch)
    if recompute:
        # One layer is made anew in the backward pass, where nothing here sees it.
        layer = whole.activations / student.causal.config.num_hidden_layers
        assert found + 0.6 * layer < plan.activations < found + 1.5 * layer
    else:
        assert 0.7 * found < plan.activations < 1.4 * found


def test_the_plan_counts_the_scores_of_an_attention_that_keeps_them(model: Path) -> None:
    spec = train_spec(microBatchTokens=4096)
    student = make_student(model, spec)
    student.causal.set_attn_implementation("eager")
    found = kept_for_backward(student, collate([(5,) * 500] * 4, [(7,) * 12] * 4, torch.device("cpu")))
    kind: dict[str, Any] = {"weights": 0, "trainable": 0, "itemsize": 4, "recompute": False, "ranks": 1, "cpu": True}
    plan = plan_memory(student.causal.config, spec, [511] * 4, **kind)
    assert 0.7 * found < plan.activations < 1.5 * found


def test_the_plan_is_a_sentence_that_warns_where_it_may_not_fit() -> None:
    plan = MemoryPlan(15_200_000_000, 1_300_000_000, 3_100_000_000, 16384, 2_500_000_000, 1024)
    said = plan.sentence(79_000_000_000, train_spec(), recompute=True)
    assert said == (
        "A training process will take about 22.1 GB of 79.0 GB free: weights 15.2 GB, adapter and optimiser 1.3 GB, activations 3.1 GB "
        "(16384 tokens at once, recomputed), logits 2.5 GB (1024 tokens)."
    )
    tight = plan.sentence(20_000_000_000, train_spec(), recompute=False)
    assert "That may not fit: set train.gradientCheckpointing to on, or lower train.microBatchTokens (now 16384)" in tight
    assert "spread" not in remedy(train_spec(shard="on"), recompute=True)


def test_weights_spread_over_ranks_count_once_and_a_layer(model: Path) -> None:
    config = make_student(model, train_spec()).causal.config
    kind: dict[str, Any] = {"weights": 10**9, "trainable": 0, "itemsize": 2, "recompute": True, "cpu": True}
    whole, part = (plan_memory(config, train_spec(), [100], ranks=ranks, **kind).weights for ranks in (1, 8))
    assert whole == 10**9
    assert 10**9 // 8 < part < 10**9


@pytest.mark.parametrize(("setting", "weights", "size", "expected"), [("auto", 7, 2, True), ("auto", 6, 2, False), ("on", 1, 1, False)])
def test_weights_are_spread_where_a_copy_leaves_too_little(setting: str, weights: int, size: int, expected: bool) -> None:
    world = alone()
    world.place = Place(0, size, 0, size)
    world.any = lambda flag: flag  # type: ignore[method-assign]
    assert must_shard(setting, weights=weights, room=9, world=world) is expected
    assert not must_shard("off", weights=99, room=9, world=world)


def test_more_ranks_than_gpus_on_a_machine_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    with pytest.raises(SetupError, match="8 training processes run on this machine, but PyTorch sees 4 GPUs"):
        check_device(Place(0, 8, 0, 8), torch.device("cuda", 0), lambda _: None)
    check_device(Place(0, 8, 0, 8), torch.device("cpu"), lambda _: pytest.fail("nothing to check"))


def test_a_gpu_that_is_not_there_is_a_sentence_within_a_minute() -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    with pytest.raises(SetupError, match="PyTorch sees 0 GPUs"):
        check_device(Place(), torch.device("cuda", 0), lambda _: None)
    assert 2 * sanity.LIMIT > 60 > sanity.LIMIT


def test_a_call_that_never_returns_ends_the_process_with_the_reason() -> None:
    heard: list[DailError] = []
    called = threading.Event()
    with within(0.05, SetupError("cuda:3 did not answer"), lambda error: (heard.append(error), called.set())[0]):
        assert called.wait(120)
    assert str(heard[0]) == "cuda:3 did not answer"


def test_a_call_that_returns_is_not_watched_any_more() -> None:
    before = threading.enumerate()
    with within(1000.0, SetupError("late"), pytest.fail):
        (timer,) = [one for one in threading.enumerate() if isinstance(one, threading.Timer) and one not in before]
    timer.join(120)
    assert not timer.is_alive()


def test_rows_of_the_plan_are_those_of_training() -> None:
    # The same packing as in the loop: the plan counts padding.
    lengths = [len(row.prompts["student"]) + len(row.response) - 1 for row in tiny_rows(9)]
    config = type("Config", (), {"num_hidden_layers": 1, "hidden_size": 8, "vocab_size": 9, "num_attention_heads": 1})()
    kind: dict[str, Any] = {"weights": 0, "trainable": 3, "itemsize": 4, "recompute": False, "ranks": 1, "cpu": True}
    plan = plan_memory(config, train_spec(microBatchTokens=64), lengths, **kind)
    assert plan.tokens <= 64
    assert plan.adapter == 48
    # Widths of their own in each layer (Gemma 3n): the widest counts.
    config.intermediate_size = [8, 32, 16]
    assert plan_memory(config, train_spec(microBatchTokens=64), lengths, **kind).activations == plan.activations
