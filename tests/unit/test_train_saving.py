"""Checkpoints in the background: the loop goes on meanwhile, what is saved is the state at that step, and failures are not lost."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
import torch

from dail_runtime.errors import StoreError, TransientError
from dail_runtime.store.file import FileStore
from dail_runtime.train.checkpoint import Checkpoint, Checkpoints
from dail_runtime.train.saving import Saving
from tests.support.tiny import make_tiny_model
from tests.support.training import Heard, make_student, make_training, store_at, tiny_rows, train_spec


def checkpoint(step: int, weight: torch.Tensor) -> Checkpoint:
    return Checkpoint(step, {"adapter": {"a": weight}}, {"keep": None}, b"")


def complete(store: Path) -> list[str]:
    return [info.key for info in store_at(store).list() if info.key.endswith("complete.json")]


def failing(monkeypatch: pytest.MonkeyPatch, errors: list[Exception]) -> None:
    """Let the first uploads of a file fail."""
    put_file = FileStore.put_file

    def fail(self: FileStore, key: str, path: Path) -> Any:
        if errors:
            raise errors.pop(0)
        return put_file(self, key, path)

    monkeypatch.setattr(FileStore, "put_file", fail)


def test_steps_go_on_while_a_checkpoint_is_on_its_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = make_tiny_model(tmp_path / "model")
    spec = train_spec(epochs=2, batchSize=5, checkpointEvery=1)
    third = threading.Event()

    class Counting(Heard):
        def update(self, done: float, total: float, unit: str, **figures: float) -> None:
            super().update(done, total, unit, **figures)
            if unit == "steps" and done == 2:
                third.set()

    put_file = FileStore.put_file

    def slow(self: FileStore, key: str, path: Path) -> Any:
        # The upload of the first checkpoint ends only after the second step: a loop that waited for it would never get there.
        assert third.wait(60)
        return put_file(self, key, path)

    monkeypatch.setattr(FileStore, "put_file", slow)
    training = make_training(make_student(model, spec), tiny_rows(10), spec, store_at(tmp_path / "store"), progress=Counting())
    training.run()
    assert complete(tmp_path / "store") == ["checkpoints/step-00000003/complete.json", "checkpoints/step-00000004/complete.json"]


def test_what_is_saved_is_the_state_at_that_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoints = Checkpoints(store_at(tmp_path), keep=2)
    saving, gate, weight = Saving(checkpoints, pytest.fail), threading.Event(), torch.zeros(3)
    put_file = FileStore.put_file
    monkeypatch.setattr(FileStore, "put_file", lambda *given: (gate.wait(60), put_file(*given))[1])
    saving.save(checkpoint(1, weight), wait=False)
    weight += 1
    gate.set()
    saving.settle()
    found = checkpoints.load(1).tensors["adapter"]["a"]
    assert torch.equal(found, torch.zeros(3))


def test_a_passing_fault_costs_one_checkpoint_and_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    failing(monkeypatch, [TransientError("the server is busy")])
    said: list[str] = []
    saving = Saving(Checkpoints(store_at(tmp_path), keep=2), said.append)
    saving.save(checkpoint(1, torch.zeros(3)), wait=False)
    saving.save(checkpoint(2, torch.zeros(3)), wait=True)
    assert said == ["The checkpoint of step 1 did not reach the store (the server is busy); training goes on to the next one."]
    assert complete(tmp_path) == ["step-00000002/complete.json"]


def test_a_fault_at_the_checkpoint_that_counts_is_raised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    failing(monkeypatch, [TransientError("the server is busy")])
    with pytest.raises(TransientError, match="busy"):
        Saving(Checkpoints(store_at(tmp_path), keep=2), pytest.fail).save(checkpoint(1, torch.zeros(3)), wait=True)


def test_a_store_that_refuses_ends_the_training_at_the_next_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    failing(monkeypatch, [StoreError("no permission")])
    saving = Saving(Checkpoints(store_at(tmp_path), keep=2), pytest.fail)
    saving.save(checkpoint(1, torch.zeros(3)), wait=False)
    with pytest.raises(StoreError, match="no permission"):
        saving.save(checkpoint(2, torch.zeros(3)), wait=False)
