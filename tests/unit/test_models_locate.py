"""Where a model's files come from: folders, the hub, s3:// and installed packages; what is missing is said in a sentence."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub
import pytest
from huggingface_hub import constants, errors
from safetensors import SafetensorError

from dail_runtime.errors import DailError, ModelError, SetupError
from dail_runtime.models import cache, locate
from dail_runtime.models.locate import _from_store
from dail_runtime.spec.model import ModelSpec
from dail_runtime.store import open_store


def find(**fields: Any) -> Path:
    return locate.locate(ModelSpec.model_validate(fields))


def test_a_folder_is_itself(tmp_path: Path) -> None:
    assert find(id=str(tmp_path)) == tmp_path
    assert find(id=f"file://{tmp_path}") == tmp_path


@pytest.mark.parametrize(
    "id_", ["/no/such/folder", "./missing", "~/missing", "file:///missing", "C:\\models\\qwen", "a/b/c", "owner/", "white space"]
)
def test_a_folder_that_is_missing_is_never_looked_up_on_the_hub(id_: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *_, **__: pytest.fail("asked the hub"))
    with pytest.raises(ModelError, match="there is no such folder; correct the path"):
        find(id=id_)


def test_a_hub_id_is_downloaded_without_anything_that_could_hold_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, Any] = {}
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda id_, **options: asked.update(options, id=id_) or str(tmp_path))
    assert find(id="Qwen/Qwen2.5-7B-Instruct", revision="abc") == tmp_path
    assert (asked["id"], asked["revision"]) == ("Qwen/Qwen2.5-7B-Instruct", "abc")
    assert set(asked["allow_patterns"]) == {"*.json", "*.jinja", "*.txt", "*.model", "*.safetensors"}
    find(id="owner/model", ggufFile="m.gguf")
    assert "m.gguf" in asked["allow_patterns"]
    assert "*.safetensors" not in asked["allow_patterns"]


RESPONSE: Any = SimpleNamespace(headers={}, request=None, status_code=401)


@pytest.mark.parametrize(
    ("fault", "sentence"),
    [
        (errors.GatedRepoError("x", response=RESPONSE), "accept the licence on its hub page and set HF_TOKEN"),
        (errors.RepositoryNotFoundError("x", response=RESPONSE), "the hub knows no such model"),
        (errors.RevisionNotFoundError("x", response=RESPONSE), "correct model.revision"),
        (errors.LocalEntryNotFoundError("x"), "the hub cannot be reached; download it first"),
        (errors.HfHubHTTPError("500 oh\nmore", response=RESPONSE), r"failed \(500 oh\); try again"),
        (ConnectionResetError("reset"), r"failed \(reset\); try again"),
    ],
)
def test_what_the_hub_refuses_is_said_with_its_remedy(fault: Exception, sentence: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> str:
        raise fault

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", refuse)
    with pytest.raises(ModelError, match=sentence):
        find(id="owner/model")


def test_offline_the_hub_is_not_called(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ModelError, match="HF_HUB_OFFLINE is set; download it first"):
        find(id="owner/model")


def install(folder: Path, name: str, files: dict[str, bytes]) -> None:
    """A package as pip would leave it; importing it fails."""
    module, info = folder / name.replace("-", "_"), folder / f"{name.replace('-', '_')}-1.0.dist-info"
    module.mkdir()
    info.mkdir()
    (module / "__init__.py").write_text("raise RuntimeError('imported')")
    for file, content in files.items():
        (module / file).write_bytes(content)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (info / "RECORD").write_text("".join(f"{module.name}/{file},,\n" for file in ["__init__.py", *files]))


def test_a_package_is_found_by_either_name_and_not_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path, "far-weights", {"w.gguf": b"x"})
    monkeypatch.syspath_prepend(str(tmp_path))
    assert find(id="python:far-weights", ggufFile="w.gguf") == tmp_path / "far_weights"
    assert find(id="python:far_weights", ggufFile="w.gguf") == tmp_path / "far_weights"
    with pytest.raises(ModelError, match=r"the package has no config\.json; name the file of the weights in model\.ggufFile"):
        find(id="python:far-weights")


def test_a_package_without_a_record_of_its_files_is_found_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "bare_weights").mkdir()
    (tmp_path / "bare_weights" / "__init__.py").write_text("raise RuntimeError('imported')")
    (tmp_path / "bare_weights" / "config.json").write_text("{}")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert find(id="python:bare-weights") == tmp_path / "bare_weights"


@pytest.mark.parametrize("name", ["not-there-at-all", "", "../etc", "os.path", "a b"])
def test_a_package_that_is_missing_is_said_in_a_sentence(name: str) -> None:
    with pytest.raises(ModelError, match="is not installed; install it, or correct its name"):
        find(id=f"python:{name}")


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DAIL_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "models"


def test_a_model_in_a_store_is_fetched_once_and_again_when_it_changes(tmp_path: Path, own_cache: Path) -> None:
    store = open_store(str(tmp_path / "bucket"))
    for key in ("config.json", "model.safetensors", "pytorch_model.bin", "modeling_evil.py", "sub/config.json"):
        store.put(key, key.encode())
    folder = _from_store("s3://bucket/model", store)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == {
        "config.json": b"config.json",
        "model.safetensors": b"model.safetensors",
    }
    (folder / "config.json").touch()
    assert _from_store("s3://bucket/model", store) == folder
    store.put("config.json", b"config.jsoN")
    changed = _from_store("s3://bucket/model", store)
    assert changed != folder
    assert (changed / "config.json").read_bytes() == b"config.jsoN"
    assert own_cache.is_dir()


def test_without_weights_only_configuration_and_tokenizer_are_fetched(own_cache: Path, tmp_path: Path) -> None:
    store = open_store(str(tmp_path / "bucket"))
    for key in ("config.json", "tokenizer.json", "model.safetensors", "model.gguf"):
        store.put(key, key.encode())
    assert {path.name for path in _from_store("s3://bucket/model", store, weights=False).iterdir()} == {"config.json", "tokenizer.json"}
    assert len(list(_from_store("s3://bucket/model", store).iterdir())) == 4
    assert len(list(own_cache.iterdir())) == 2


def test_an_empty_prefix_is_said_in_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no model files there; check the prefix"):
        _from_store("s3://bucket/model", open_store(str(tmp_path)))


def test_a_download_that_breaks_leaves_nothing_behind(own_cache: Path) -> None:
    def half(folder: Path) -> None:
        (folder / "config.json").write_text("{")
        raise DailError("lost")

    with pytest.raises(DailError, match="lost"):
        cache.cached("model", half)
    assert list(own_cache.iterdir()) == []


def test_of_two_that_fill_the_same_folder_the_first_wins(own_cache: Path) -> None:
    def quick(folder: Path) -> None:
        (folder / "who").write_text("first")

    def slow(folder: Path) -> None:
        (folder / "who").write_text("second")
        cache.cached("model", quick)

    assert (cache.cached("model", slow) / "who").read_text() == "first"
    assert [path.name for path in own_cache.iterdir()] == ["model"]


def test_weights_that_find_no_room_in_the_cache_are_said_in_a_sentence(own_cache: Path) -> None:
    def make(_: Path) -> None:
        raise SafetensorError("I/O error: No space left on device (os error 28)")

    with pytest.raises(SetupError, match=r"No space left on device .* make room there or set DAIL_CACHE"):
        cache.cached("model", make)
    assert list(own_cache.iterdir()) == []


def test_a_cache_that_cannot_be_written_is_said_in_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("DAIL_CACHE", str(tmp_path / "file"))
    with pytest.raises(SetupError, match="set DAIL_CACHE to a folder that can be written"):
        cache.cached("model", lambda _: None)
