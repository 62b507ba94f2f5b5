"""Content digests: the same for the same content whatever it is called, another for other content."""

from __future__ import annotations

import hashlib
import importlib.metadata
from pathlib import Path

import pytest

from dail_runtime.errors import DataError, ModelError
from dail_runtime.spec import DailJob, content
from dail_runtime.spec.content import LARGE, content_of


def job(solutions: Path | str, model: str = "owner/name", revision: str | None = None, evaluation: Path | None = None) -> DailJob:
    sets = [{"name": "test", "path": str(evaluation)}] if evaluation else []
    spec = {"model": {"id": model, "revision": revision}, "data": {"solutions": str(solutions), "evaluation": sets}}
    return DailJob.model_validate({"apiVersion": "dail/v1alpha1", "kind": "DailJob", "metadata": {"name": "one"}, "spec": spec})


@pytest.fixture
def data(tmp_path: Path) -> Path:
    path = tmp_path / "x.jsonl"
    path.write_bytes(b"{}\n")
    return path


def model_folder(folder: Path, weights: bytes = b"weights", config: str = "{}") -> Path:
    folder.mkdir()
    (folder / "config.json").write_text(config)
    (folder / "model.safetensors").write_bytes(weights)
    return folder


def test_data_files_are_named_by_their_sha256(data: Path, tmp_path: Path) -> None:
    other = tmp_path / "t.jsonl"
    other.write_bytes(b"[]\n")
    found = content_of(job(data, evaluation=other))
    assert found[str(data)] == hashlib.sha256(b"{}\n").hexdigest()
    assert found[str(other)] == hashlib.sha256(b"[]\n").hexdigest()


def test_hub_ids_go_by_revision(data: Path) -> None:
    assert content_of(job(data))["owner/name"] == "owner/name@main"
    assert content_of(job(data, revision="abc"))["owner/name"] == "owner/name@abc"


def test_packages_go_by_version(data: Path) -> None:
    version = importlib.metadata.version("pyyaml")
    assert content_of(job(data, "python:pyyaml"))["python:pyyaml"] == f"python:pyyaml@{version}"
    assert content_of(job(data, "python:yaml"))["python:yaml"] == f"python:yaml@{version}"
    with pytest.raises(ModelError, match="no-such-package: the package is not installed; install it"):
        content_of(job(data, "python:no-such-package"))


def test_a_model_folder_goes_by_what_is_in_it_not_by_its_name(data: Path, tmp_path: Path) -> None:
    def digest(folder: Path) -> str:
        return content_of(job(data, str(folder)))[str(folder)]

    one, same = model_folder(tmp_path / "a"), model_folder(tmp_path / "b")
    (same / "README.md").write_text("words")
    (same / ".cache").mkdir()
    weights, config = model_folder(tmp_path / "c", weights=b"WEIGHTS"), model_folder(tmp_path / "d", config='{"a": 1}')
    assert digest(one) == digest(same)
    assert len({digest(one), digest(weights), digest(config)}) == 3


def test_a_large_weight_file_is_told_from_another_of_its_size(data: Path, tmp_path: Path) -> None:
    size = LARGE + 12345
    folder = model_folder(tmp_path / "m", weights=bytes(size))
    before = content_of(job(data, str(folder)))[str(folder)]
    weights = bytearray(size)
    for at in range(0, size, 100_000):
        weights[at] = 1  # what training does to a file: little, everywhere
    (folder / "model.safetensors").write_bytes(weights)
    assert content_of(job(data, str(folder)))[str(folder)] != before
    (folder / "model.safetensors").write_bytes(bytes(size - 1) + b"\x01")
    assert content_of(job(data, str(folder)))[str(folder)] != before


def test_pieces_of_a_large_file_reach_from_its_first_byte_to_its_last() -> None:
    offsets = list(content._offsets(LARGE + 7))
    assert (offsets[0], offsets[-1] + content.SAMPLE_BYTES) == (0, LARGE + 7)
    assert offsets == sorted(set(offsets))


def test_what_is_not_there_is_told_with_a_remedy(data: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"data\.solutions: .*/y\.jsonl: there is no such file; did you mean x\.jsonl\?"):
        content_of(job(tmp_path / "y.jsonl"))
    with pytest.raises(DataError, match=r"data\.evaluation\.0\.path: .*: this is a folder; name the file in it"):
        content_of(job(data, evaluation=tmp_path))
    with pytest.raises(DataError, match="only files and s3:// objects are read; download it first"):
        content_of(job("https://example.org/x.jsonl"))
    with pytest.raises(ModelError, match="there is no such folder; check the path"):
        content_of(job(data, str(tmp_path / "nowhere")))
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModelError, match="the folder holds no model files"):
        content_of(job(data, str(tmp_path / "empty")))
