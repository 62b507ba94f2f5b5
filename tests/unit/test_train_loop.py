"""The loop: it learns, it stops and goes on bit for bit, and it says what went wrong."""

from __future__ import annotations

import json
import math
import threading
from pathlib import Path
from typing import Any

import pytest
import torch

from dail_runtime.errors import Interrupted, ResultError, SetupError
from dail_runtime.train import keeping, loop
from dail_runtime.train.loop import Training
from tests.support.tiny import make_tiny_model
from tests.support.training import Heard, make_student, make_training, store_at, tiny_rows, train_spec

ROWS = tiny_rows(10)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("model"))


def trained(model: Path, store: Path, **settings: Any) -> Training:
    spec = train_spec(**settings)
    training = make_training(make_student(model, spec), ROWS, spec, store_at(store))
    training.run()
    return training


def weights(training: Training) -> dict[str, torch.Tensor]:
    return {name: one.detach().clone() for name, one in training._student.trainable.items()}


@pytest.mark.parametrize(
    ("settings", "falls"),
    [
        ({"objective": "contrastive"}, "kl_teacher"),
        ({"objective": "distill"}, "kl_teacher"),
        ({"objective": "nll"}, "loss"),
        ({"objective": "sft"}, "loss"),
    ],
    ids=lambda one: str(one),
)
def test_every_objective_learns(settings: dict[str, Any], falls: str, model: Path, tmp_path: Path) -> None:
    curves = trained(model, tmp_path, epochs=16, batchSize=10, **settings).curves
    assert curves[-1][falls] < 0.7 * curves[0][falls]


def test_a_curves_line_has_everything_the_report_draws(model: Path, tmp_path: Path) -> None:
    training = trained(model, tmp_path, epochs=1, warmup={"epochs": 1}, batchSize=4)
    lines = [json.loads(line) for line in training.curves_jsonl().splitlines()]
    names = ["step", "epoch", "objective", "loss", "kl_teacher", "kl_negative", "entropy", "teacher_top_mass"]
    assert all(list(line) == [*names, "supervised", "clipped", "learning_rate", "grad_norm", "tokens", "tokens_per_s"] for line in lines)
    assert [line["objective"] for line in lines] == ["nll"] * 3 + ["contrastive"] * 3
    assert all(line["kl_teacher"] is None for line in lines[:3])
    assert all(line["loss"] == pytest.approx(line["kl_teacher"] - 0.1 * line["kl_negative"]) for line in lines[3:])
    assert lines[-1]["tokens"] == 2 * sum(len(row.response) for row in ROWS)
    assert lines[-1]["epoch"] == 2


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"cacheReferences": "off", "microBatchTokens": 64},
        {"objective": "nll"},
        {"warmup": {"epochs": 1}},
        {"lora": {"r": 4, "dropout": 0.3}},
    ],
    ids=str,
)
def test_stopped_at_any_step_and_resumed_the_adapter_is_the_same_bit_for_bit(settings: dict[str, Any], model: Path, tmp_path: Path) -> None:
    expected = trained(model, tmp_path / "whole", epochs=2, checkpointEvery=100, **settings)
    total = expected.course.total
    spec = train_spec(epochs=2, checkpointEvery=100, **settings)
    for attempt in range(1, total + 1):
        stop = threading.Event()
        training = make_training(make_student(model, spec), ROWS, spec, store_at(tmp_path / "cut"), progress=Heard(stop=stop), stop=stop)
        if attempt < total:
            with pytest.raises(Interrupted, match=f"after step {attempt} of {total}; a checkpoint is saved"):
                training.run()
        else:
            training.run()
    assert training.resumed_at == total - 1
    found = weights(training)
    assert all(torch.equal(found[name], one) for name, one in weights(expected).items())
    without_clock = [[{**line, "tokens_per_s": 0} for line in one.curves] for one in (training, expected)]
    assert without_clock[0] == without_clock[1]


def test_a_finished_training_is_not_repeated(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = trained(model, tmp_path)
    monkeypatch.setattr(Training, "_step", lambda *_: pytest.fail("a step was repeated"))
    again = trained(model, tmp_path)
    assert again.resumed_at == first.course.total
    assert all(torch.equal(weights(again)[name], one) for name, one in weights(first).items())


def test_checkpoints_come_every_n_steps_and_at_the_end(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    steps: list[tuple[int, bool]] = []
    monkeypatch.setattr(Training, "_save", lambda _, step, *, wait: steps.append((step, wait)))
    trained(model, tmp_path, epochs=2, batchSize=4, checkpointEvery=4)
    assert steps == [(4, False), (6, True)]


def test_whether_references_are_kept_is_decided_once_for_all_attempts(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec, stop, heard = train_spec(epochs=2), threading.Event(), Heard()
    stop.set()
    with pytest.raises(Interrupted):
        make_training(make_student(model, spec), ROWS, spec, store_at(tmp_path), progress=heard, stop=stop).run()
    assert heard.said == ["The references' hidden states are computed once and kept in memory (1 MB)."]
    monkeypatch.setattr(keeping, "free_memory", lambda: 0)
    again = Heard()
    make_training(make_student(model, spec), ROWS, spec, store_at(tmp_path), progress=again).run()
    assert "temporary file" in again.said[0]


def test_the_base_model_is_run_once_a_trace_where_references_are_kept(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    original = loop.Student.reference_hidden
    monkeypatch.setattr(loop.Student, "reference_hidden", lambda self, batch: (seen.append(len(batch.counts)), original(self, batch))[1])
    trained(model, tmp_path / "kept", epochs=3)
    assert sum(seen) == 2 * len(ROWS)
    seen.clear()
    trained(model, tmp_path / "anew", epochs=3, cacheReferences="off")
    assert sum(seen) == 3 * 2 * len(ROWS)


def test_a_loss_that_is_no_number_ends_the_training_with_a_remedy(model: Path, tmp_path: Path) -> None:
    spec = train_spec()
    student = make_student(model, spec)
    with torch.no_grad():
        next(iter(student.trainable.values())).fill_(math.nan)
    before = {name: one.detach().clone() for name, one in student.trainable.items()}
    with pytest.raises(ResultError, match=r"training step 1: the loss is nan .*; lower train.learningRate"):
        make_training(student, ROWS, spec, store_at(tmp_path)).run()
    assert all(torch.equal(one, before[name]) or one.isnan().all() for name, one in student.trainable.items())


def test_running_out_of_memory_names_the_settings_to_change(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(loop, "fused_loss", full)
    with pytest.raises(
        SetupError, match=r"memory ran out; set train.gradientCheckpointing to on, or lower train.microBatchTokens \(now 16384\) or train"
    ):
        trained(model, tmp_path)


def test_a_larger_batch_in_smaller_pieces_gives_the_same_training(model: Path, tmp_path: Path) -> None:
    whole = trained(model, tmp_path / "a", epochs=2, batchSize=5)
    pieces = trained(model, tmp_path / "b", epochs=2, batchSize=5, microBatchTokens=64)
    for one, other in zip(whole.curves, pieces.curves, strict=True):
        assert other["loss"] == pytest.approx(one["loss"], rel=1e-3)


@pytest.mark.parametrize("cache", ["on", "off"])
def test_references_by_their_most_probable_tokens_give_the_same_training_kept_or_not(cache: str, model: Path, tmp_path: Path) -> None:
    full = trained(model, tmp_path / "full", epochs=2, cacheReferences=cache)
    whole = trained(model, tmp_path / "whole", epochs=2, cacheReferences=cache, referenceTopK=4096)
    few = trained(model, tmp_path / "few", epochs=2, cacheReferences=cache, referenceTopK=8)
    for one, other in zip(full.curves, whole.curves, strict=True):
        assert other["loss"] == pytest.approx(one["loss"], rel=2e-3, abs=1e-5)
    assert few.curves[0]["kl_negative"] + few.curves[-1]["kl_teacher"] > 0
    assert few.curves[-1]["kl_teacher"] < full.curves[-1]["kl_teacher"]


def test_kept_most_probable_tokens_take_less_room_than_hidden_states(model: Path, tmp_path: Path) -> None:
    spec = train_spec(epochs=2, referenceTopK=4)
    training = make_training(make_student(model, spec), ROWS, spec, store_at(tmp_path))
    tokens = sum(len(row.response) for row in ROWS)
    assert training.references()._keeping.size == tokens * 15 * 4 < tokens * 2 * 32 * 4


def test_the_sum_over_a_traces_tokens_is_its_mean_times_its_length(model: Path, tmp_path: Path) -> None:
    mean = trained(model, tmp_path / "mean", epochs=1, batchSize=10, maxGradNorm=1e9)
    total = trained(model, tmp_path / "sum", epochs=1, batchSize=10, maxGradNorm=1e9, reduction="sum")
    length = sum(len(row.response) for row in ROWS) / len(ROWS)
    assert total.curves[0]["loss"] == pytest.approx(mean.curves[0]["loss"] * length, rel=1e-5, abs=1e-9)
    assert total.curves[0]["grad_norm"] == pytest.approx(mean.curves[0]["grad_norm"] * length, rel=1e-4)


def test_clips_and_prefix_masks_show_in_the_curves_and_do_not_depend_on_the_split(model: Path, tmp_path: Path) -> None:
    options = {"klClip": 0.5, "prefixMask": {"margin": 0.0, "window": 2}, "epochs": 2, "batchSize": 5}
    whole = trained(model, tmp_path / "a", **options)
    pieces = trained(model, tmp_path / "b", **options, microBatchTokens=64, chunkTokens=16)
    assert 0 < whole.curves[-1]["supervised"] < 1
    assert any(line["clipped"] > 0 for line in whole.curves)
    for one, other in zip(whole.curves, pieces.curves, strict=True):
        assert other["supervised"] == pytest.approx(one["supervised"], abs=0.03)
        assert other["loss"] == pytest.approx(one["loss"], rel=5e-3, abs=1e-4)
    # nll has no teacher: the options do nothing there.
    assert trained(model, tmp_path / "c", objective="nll", **options).curves[-1]["supervised"] is None
