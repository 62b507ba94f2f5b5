"""Several ranks are one: the same training as on one rank, whatever the split, and on any number of ranks after a stop."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.distributed.tensor import DTensor
from transformers import Qwen3Config, Qwen3ForCausalLM

from dail_runtime.errors import Interrupted
from dail_runtime.train.loop import Training
from dail_runtime.train.ranks import place
from dail_runtime.train.sharding import shard
from dail_runtime.train.world import World, joined
from tests.support.ranks import run_ranks
from tests.support.tiny import make_tiny_model
from tests.support.training import Heard, make_student, make_training, store_at, tiny_rows, train_spec

ROWS = tiny_rows(10)
TOLERANCE = {"rtol": 1e-3, "atol": 1e-4}
"""N ranks against one, in float32: sums are formed in another order, and Adam passes that on. The absolute part is a hundredth of what
one step moves a weight by."""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("model"))


def trained(model: Path, store: Path, world: World, stop_after: int | None = None, **settings: Any) -> tuple[dict[str, Tensor], list[Any]]:
    """Adapter and curves; `stop_after`: the stop comes to the last rank alone, once it has done so many steps."""
    spec = train_spec(**settings)
    stop = threading.Event()
    training = make_training(make_student(model, spec), ROWS, spec, store_at(store), progress=Heard(), stop=stop, world=world)
    if stop_after is not None and world.place.rank == world.size - 1:
        step = Training._step
        training._step = lambda number, *rest: (stop.set() if number == stop_after else None, step(training, number, *rest))[1]  # type: ignore[method-assign]
    training.run()
    return {name: one.detach() for name, one in training._student.trainable.items()}, training.curves


def on_ranks(size: int, body: Callable[[World], Any]) -> list[Any]:
    def run(_: int) -> Any:
        stop = threading.Event()
        with joined(place(), torch.device("cpu"), stop, lambda _: None) as world:
            return body(world)

    return run_ranks(size, run)


def close(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    for name, one in expected.items():
        torch.testing.assert_close(found[name], one, **TOLERANCE)


@pytest.mark.parametrize("size", [2, 4])
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"cacheReferences": "off", "microBatchTokens": 64},
        {"objective": "nll", "batchSize": 3},
        {"warmup": {"epochs": 1}, "cacheReferences": "on"},
    ],
    ids=str,
)
def test_n_ranks_train_as_one(size: int, settings: dict[str, Any], model: Path, tmp_path: Path) -> None:
    expected, curves = trained(model, tmp_path / "one", World(place({}), torch.device("cpu")), **settings)
    found = on_ranks(size, lambda world: trained(model, tmp_path / "many", world, **settings))
    for weights, lines in found:
        # Bit for bit the same on every rank, and within the tolerance that of one rank.
        assert all(torch.equal(one, found[0][0][name]) for name, one in weights.items())
        close(weights, expected)
        assert [line["tokens"] for line in lines] == [line["tokens"] for line in curves]
        for line, alone in zip(lines, curves, strict=True):
            assert line["loss"] == pytest.approx(alone["loss"], rel=1e-4, abs=1e-6)


@pytest.mark.parametrize(("before", "after"), [(2, 1), (1, 2), (4, 2)])
def test_stopped_on_one_rank_all_save_once_and_another_number_of_ranks_goes_on(
    before: int, after: int, model: Path, tmp_path: Path
) -> None:
    expected, _ = trained(model, tmp_path / "one", World(place({}), torch.device("cpu")), checkpointEvery=100)

    def cut(world: World) -> str:
        with pytest.raises(Interrupted) as caught:
            trained(model, tmp_path / "cut", world, stop_after=2, checkpointEvery=100)
        return str(caught.value)

    said = on_ranks(before, cut)
    assert said == [f"training was asked to stop after step 2 of {len(_)}; a checkpoint is saved, run again to go on"] * before
    keys = [info.key for info in store_at(tmp_path / "cut").list()]
    assert {key.split("/")[1] for key in keys} == {"step-00000002"}
    found = on_ranks(after, lambda world: trained(model, tmp_path / "cut", world, checkpointEvery=100))
    close(found[0][0], expected)


@pytest.mark.parametrize("size", [2, 4])
@pytest.mark.parametrize(
    ("family", "settings"),
    [
        ("tied", {"cacheReferences": "off", "microBatchTokens": 64}),
        ("tied", {"gradientCheckpointing": "on", "referenceTopK": 16}),
        ("untied", {"lora": {"r": 4, "targets": ["q_proj", "lm_head"]}, "batchSize": 3, "microBatchTokens": 64, "cacheReferences": "off"}),
    ],
    ids=str,
)
def test_weights_spread_over_ranks_train_as_one(size: int, family: str, settings: dict[str, Any], model: Path, tmp_path: Path) -> None:
    folder = model
    if family == "untied":
        config = Qwen3Config.from_pretrained(model, tie_word_embeddings=False)
        torch.manual_seed(0)
        folder = tmp_path / "untied"
        Qwen3ForCausalLM(config).save_pretrained(folder)
    expected, curves = trained(folder, tmp_path / "one", World(place({}), torch.device("cpu")), **settings)

    def spread(world: World) -> tuple[dict[str, Tensor], list[Any], int]:
        spec = train_spec(**settings)
        student = make_student(folder, spec, empty=not world.lead)
        before = sum(one.numel() for one in student.causal.parameters() if not one.requires_grad)
        shard(student, world)
        student.check_head(torch.tensor([[5, 9, 2, 7]]))
        here = sum(one.to_local().numel() for one in student.causal.parameters() if isinstance(one, DTensor))
        assert not [name for name, one in student.causal.named_parameters() if not isinstance(one, DTensor) and "lora" not in name]
        training = make_training(student, ROWS, spec, store_at(tmp_path / "many"), world=world)
        training.run()
        return {name: one.detach() for name, one in student.trainable.items()}, training.curves, before - size * here

    for weights, lines, missing in on_ranks(size, spread):
        close(weights, expected)
        assert abs(missing) < 5000, "the shards of all ranks are the model"
        for line, alone in zip(lines, curves, strict=True):
            assert line["loss"] == pytest.approx(alone["loss"], rel=1e-4, abs=1e-6)
