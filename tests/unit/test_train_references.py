"""The references' hidden states, kept or not: where, when, and always the same."""

from __future__ import annotations

import resource
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from dail_runtime.errors import IntegrityError, SetupError
from dail_runtime.train import keeping, memory
from dail_runtime.train.batches import collate
from dail_runtime.train.keeping import Keeping, choose_keeping
from dail_runtime.train.memory import free_memory, readable
from dail_runtime.train.references import References
from tests.support.tiny import make_tiny_model
from tests.support.training import alone, make_student, tiny_rows, train_spec

ROWS = tiny_rows(4)
CONTEXTS = ("teacher", "negative")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("model"))


def labels_of(rows: list[int]) -> torch.Tensor:
    batch = collate([ROWS[one].prompts["student"] for one in rows], [ROWS[one].response for one in rows], torch.device("cpu"))
    return batch.labels


@pytest.mark.parametrize("place", ["memory", "disk"])
def test_kept_states_are_the_computed_ones_in_the_order_of_the_rows(place: str, folder: Path) -> None:
    student = make_student(folder, train_spec(), moved=0.1)
    fresh = References(student, ROWS, CONTEXTS, 64, Keeping("none", 0), alone())
    kept = References(student, ROWS, CONTEXTS, 64, Keeping(place, 0), alone())  # type: ignore[arg-type]
    ticks: list[tuple[int, int]] = []
    kept.prepare(lambda done, total: ticks.append((done, total)))
    kept.prepare(lambda *_: pytest.fail("computed twice"))
    assert ticks[-1] == (8, 8)
    rows = [2, 0, 3]
    kept.deal([rows])
    for one, other in ((kept, fresh), (fresh, kept)):
        found, expected = one.of(rows, labels_of(rows)), other.of(rows, labels_of(rows))
        for context in CONTEXTS:
            torch.testing.assert_close(found[context], expected[context], rtol=1e-4, atol=1e-5)
    assert kept.of([], labels_of(rows)) == {}


def test_states_are_those_of_each_row_alone(folder: Path) -> None:
    student = make_student(folder, train_spec())
    states = References(student, ROWS, CONTEXTS, 4096, Keeping("none", 0), alone()).of([0, 1], labels_of([0, 1]))
    row = ROWS[1]
    ids = torch.tensor([(*row.prompts["negative"], *row.response)])
    expected = student.causal.get_decoder()(input_ids=ids).last_hidden_state[0, len(row.prompts["negative"]) - 1 : -1]
    torch.testing.assert_close(states["negative"][len(ROWS[0].response) :], expected, rtol=1e-4, atol=1e-5)


def test_contexts_with_different_responses_are_refused(folder: Path) -> None:
    student = make_student(folder, train_spec())
    wrong = labels_of([0, 1]).roll(1)
    with pytest.raises(IntegrityError, match=r"trace of problem 'p.': its contexts hold different response ids"):
        References(student, ROWS, CONTEXTS, 64, Keeping("none", 0), alone()).of([0, 1], wrong)


def test_preparing_can_be_stopped_and_then_keeps_nothing(folder: Path) -> None:
    seen: list[int] = []
    kept = References(make_student(folder, train_spec()), ROWS, CONTEXTS, 64, Keeping("memory", 0), alone())
    assert not kept.prepare(lambda done, _: seen.append(done), lambda: len(seen) > 2)
    assert 2 < len(seen) < 8
    assert kept.prepare(lambda done, _: seen.append(done))
    assert seen[-1] == 8


@pytest.mark.parametrize(
    ("setting", "size", "epochs", "place"),
    [
        ("auto", 250, 2, "memory"),
        ("auto", 251, 2, "none"),
        ("auto", 250, 1, "none"),
        ("on", 250, 1, "memory"),
        ("on", 251, 2, "disk"),
        ("off", 1, 9, "none"),
        ("on", 0, 9, "none"),
    ],
)
def test_where_states_are_kept(setting: str, size: int, epochs: float, place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeping, "free_memory", lambda: 1000)
    monkeypatch.setattr(keeping.shutil, "disk_usage", lambda _: SimpleNamespace(free=1000))
    assert choose_keeping(setting, size=size, epochs=epochs).place == place  # type: ignore[arg-type]


def test_states_that_fit_nowhere_are_an_error_with_their_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeping, "free_memory", lambda: 8_000_000_000)
    monkeypatch.setattr(keeping.shutil, "disk_usage", lambda _: SimpleNamespace(free=10_000_000_000))
    with pytest.raises(SetupError, match=r"train.cacheReferences: on needs 57.0 GB, .*8.0 GB free.*10.0 GB free.* set it to off"):
        choose_keeping("on", size=57_000_000_000, epochs=5)


def test_a_disk_without_room_is_said_before_anything_is_computed(folder: Path) -> None:
    kept = References(make_student(folder, train_spec()), ROWS, CONTEXTS, 64, Keeping("disk", 0), alone())
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    # A full disk, as far as whoever writes can tell.
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, before[1]))
    try:
        with pytest.raises(
            SetupError, match=r"train.cacheReferences: .* has no room for 1 MB \(File too large\); set it to off, or TMPDIR"
        ):
            kept.prepare(lambda *_: pytest.fail("computed"))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_the_size_is_said_before_it_starts() -> None:
    assert Keeping("none", 5).sentence() is None
    assert Keeping("memory", 27_400_000).sentence() == "The references' hidden states are computed once and kept in memory (27 MB)."
    assert "temporary file" in str(Keeping("disk", 3_210_000_000).sentence())
    assert readable(3_210_000_000) == "3.2 GB"


def test_free_memory_is_that_of_the_container_where_it_has_less(tmp_path: Path) -> None:
    # Others take and give back memory between the two calls.
    assert free_memory(tmp_path) == pytest.approx(free_memory(tmp_path / "none"), rel=0.2)
    assert free_memory(tmp_path) > 0
    (tmp_path / "memory.max").write_text("5000000\n")
    (tmp_path / "memory.current").write_text("4000000\n")
    (tmp_path / "memory.stat").write_text("anon 1\ninactive_file 500000\n")
    assert free_memory(tmp_path) == 1_500_000
    (tmp_path / "memory.max").write_text("max\n")
    assert free_memory(tmp_path) > 5_000_000


def test_running_out_of_memory_says_what_to_change() -> None:
    for error in (
        torch.OutOfMemoryError("CUDA out of memory"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"),
        RuntimeError("CUDA error: out of memory"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        MemoryError(),
    ):
        with pytest.raises(SetupError, match="memory ran out; lower x"), memory.out_of_memory_says("lower x"):
            raise error
    with pytest.raises(RuntimeError, match="another"), memory.out_of_memory_says("lower x"):
        raise RuntimeError("another")
