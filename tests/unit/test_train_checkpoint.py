"""Checkpoints: complete or not there, never a pickle, the last few kept."""

from __future__ import annotations

import resource
from pathlib import Path
from typing import Any

import pytest
import torch

from dail_runtime.errors import SetupError
from dail_runtime.store import Store
from dail_runtime.train.checkpoint import MARKER, Checkpoint, Checkpoints
from tests.support.training import store_at


def checkpoint(step: int) -> Checkpoint:
    tensors = {
        "adapter": {"a": torch.full((2, 3), float(step))},
        "optimizer": {"a.step": torch.tensor(float(step)), "a.exp_avg": torch.ones(2, 3)},
    }
    return Checkpoint(step, tensors, {"keep": "memory"}, f'{{"step": {step}}}\n'.encode())


def keys(store: Store) -> list[str]:
    return [info.key for info in store.list()]


def nobody(sentence: str) -> None:
    pytest.fail(sentence)


def test_what_was_saved_is_loaded(tmp_path: Path) -> None:
    checkpoints = Checkpoints(store_at(tmp_path), keep=2)
    assert checkpoints.newest(nobody) is None
    saved = checkpoint(7)
    checkpoints.save(saved)
    found = checkpoints.newest(nobody)
    assert found is not None
    assert (found.step, found.facts, found.curves) == (saved.step, saved.facts, saved.curves)
    for kind, tensors in saved.tensors.items():
        assert all(torch.equal(found.tensors[kind][name], one) for name, one in tensors.items())
    assert {key.rsplit(".", 1)[1] for key in keys(store_at(tmp_path))} == {"safetensors", "json", "jsonl"}


def test_the_last_k_are_kept_and_the_newest_is_loaded(tmp_path: Path) -> None:
    checkpoints = Checkpoints(store_at(tmp_path), keep=2)
    for step in (5, 10, 15, 1000):
        checkpoints.save(checkpoint(step))
    assert {key.split("/")[0] for key in keys(store_at(tmp_path))} == {"step-00000015", "step-00001000"}
    found = checkpoints.newest(nobody)
    assert found is not None
    assert found.step == 1000
    checkpoints.clear()
    assert keys(store_at(tmp_path)) == []


def test_one_that_was_not_finished_is_never_loaded_whatever_is_missing(tmp_path: Path) -> None:
    store = store_at(tmp_path)
    checkpoints = Checkpoints(store, keep=9)
    checkpoints.save(checkpoint(5))
    checkpoints.save(checkpoint(10))
    written = [info.key for info in store.at("step-00000010").list()]
    # In the order of writing: the marker is last, so a save that was cut off lacks it at least.
    for key in (MARKER, *(key for key in written if key != MARKER)):
        store.at("step-00000010").delete(key)
        found = checkpoints.newest(nobody)
        assert found is not None
        assert found.step == 5


def test_the_marker_is_written_last_and_removed_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = store_at(tmp_path)
    log: list[str] = []
    for name in ("put", "put_file", "delete"):
        method = getattr(type(store), name)

        def logged(self: Any, key: str, *args: Any, method: Any = method, name: str = name) -> Any:
            log.append(f"{name} {key}")
            return method(self, key, *args)

        monkeypatch.setattr(type(store), name, logged)
    checkpoints = Checkpoints(store, keep=1)
    checkpoints.save(checkpoint(5))
    assert [entry.split(" ")[1] for entry in log if entry.startswith("put")][-1] == MARKER
    log.clear()
    checkpoints.save(checkpoint(6))
    removed = [entry for entry in log if entry.startswith("delete")]
    assert removed[0] == f"delete {MARKER}"
    assert len(removed) == 5
    assert log.index(f"put {MARKER}") < log.index(removed[0])


def test_leftovers_of_a_killed_save_are_removed_by_the_next_one(tmp_path: Path) -> None:
    store = store_at(tmp_path)
    store.put("step-00000003/adapter.safetensors", b"half")
    Checkpoints(store, keep=2).save(checkpoint(5))
    assert not any(key.startswith("step-00000003") for key in keys(store))


def test_a_step_that_is_saved_already_is_not_written_again(tmp_path: Path) -> None:
    checkpoints = Checkpoints(store_at(tmp_path), keep=2)
    checkpoints.save(checkpoint(5))
    other = checkpoint(5)
    other.tensors["adapter"]["a"] += 1
    checkpoints.save(other)
    found = checkpoints.newest(nobody)
    assert found is not None
    assert torch.equal(found.tensors["adapter"]["a"], torch.full((2, 3), 5.0))


@pytest.mark.parametrize("damage", ["truncated", "replaced", "missing"])
def test_a_damaged_one_is_named_and_an_older_one_taken(damage: str, tmp_path: Path) -> None:
    store = store_at(tmp_path)
    checkpoints = Checkpoints(store, keep=2)
    checkpoints.save(checkpoint(5))
    checkpoints.save(checkpoint(10))
    if damage == "truncated":
        (tmp_path / "step-00000010" / "adapter.safetensors").write_bytes(b"x")
    elif damage == "replaced":
        store.put("step-00000010/adapter.safetensors", store.get("step-00000005/adapter.safetensors"))
    else:
        store.delete("step-00000010/state.json")
    said: list[str] = []
    found = checkpoints.newest(said.append)
    assert found is not None
    assert found.step == 5
    assert len(said) == 1
    assert "step-00000010 is damaged" in said[0]


def test_temporary_files_without_room_are_said_in_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoints = Checkpoints(store_at(tmp_path / "store"), keep=2)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    # A full disk, as far as whoever writes can tell.
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, before[1]))
    try:
        with pytest.raises(SetupError, match=r"File too large .* make room, or let TMPDIR name a larger disk"):
            checkpoints.save(checkpoint(1))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "gone"))
    with pytest.raises(SetupError, match=r"gone: files cannot be put together there"):
        checkpoints.save(checkpoint(1))
    assert checkpoints.newest(nobody) is None


def test_damaged_ones_never_push_out_those_that_are_written_after_them(tmp_path: Path) -> None:
    for step in (10, 15):
        Checkpoints(store_at(tmp_path), keep=2).save(checkpoint(step))
    for step in (10, 15):
        (tmp_path / f"step-{step:08d}" / "optimizer.safetensors").write_bytes(b"x")
    checkpoints, said = Checkpoints(store_at(tmp_path), keep=2), list[str]()
    assert checkpoints.newest(said.append) is None
    assert [one.rsplit("; ", 1)[1] for one in said] == ["training goes on from an older one.", "training goes on from the start."]
    # The training comes by the steps that were lost once more, and may be killed after any of them.
    for step in (5, 10, 12):
        checkpoints.save(checkpoint(step))
        found = Checkpoints(store_at(tmp_path), keep=2).newest(nobody)
        assert found is not None
        assert found.step == step
    assert {key.split("/")[0] for key in keys(store_at(tmp_path))} == {"step-00000010", "step-00000012"}


@pytest.mark.parametrize("marker", [b"{}", b"null", b'{"adapter.safetensors": "0"}', b'{"state.json": "", "curves.jsonl": "", "a//b": ""}'])
def test_a_marker_that_names_something_else_is_damage(marker: bytes, tmp_path: Path) -> None:
    checkpoints = Checkpoints(store_at(tmp_path), keep=2)
    for step in (5, 10):
        checkpoints.save(checkpoint(step))
    store_at(tmp_path).put(f"step-00000010/{MARKER}", marker)
    said: list[str] = []
    found = checkpoints.newest(said.append)
    assert found is not None
    assert (found.step, len(said)) == (5, 1)
