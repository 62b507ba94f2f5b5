"""Bringing a job's files to the store: which, once each, and never a changed one."""

from __future__ import annotations

from pathlib import Path

import pytest

from dail_runtime.errors import DataError
from dail_runtime.spec.content import content_of
from dail_runtime.spec.load import load_job, resolve_paths
from dail_runtime.store import open_store
from dailctl.render.cluster_job import for_cluster
from dailctl.staging import Upload, missing, upload, uploads_of

MODEL = {"config.json": "{}", "model.safetensors": "weights", "README.md": "read me", ".hidden.json": "{}"}


@pytest.fixture
def uploads(tmp_path: Path) -> list[Upload]:
    """What a job over files in a folder needs in the store."""
    folder = tmp_path / "job"
    (folder / "model").mkdir(parents=True)
    for name, text in MODEL.items():
        (folder / "model" / name).write_text(text)
    (folder / "expert solutions.jsonl").write_text('{"problem": "1+1", "solution": "2", "answer": "2"}\n')
    (folder / "test.jsonl").write_text('{"problem": "1+2", "answer": "3"}\n')
    (folder / "job.yaml").write_text(
        "apiVersion: dail/v1alpha1\nkind: DailJob\nmetadata: {name: staged}\nspec:\n  model: {id: ./model}\n"
        "  data: {solutions: './expert solutions.jsonl', evaluation: [{name: test, path: ./test.jsonl}]}\n"
        "  storage: {uri: 's3://bucket/runs/'}\n  cluster: {image: dail}\n"
    )
    job = resolve_paths(load_job(folder / "job.yaml"), folder)
    content = content_of(job)
    return uploads_of(for_cluster(job, content)[2], content)


def test_data_goes_as_files_and_a_model_as_the_files_that_make_it_up(uploads: list[Upload]) -> None:
    names = sorted((one.key.split("/")[0], one.key.split("/")[2], one.path.name) for one in uploads)
    assert names == [
        ("inputs", "config.json", "config.json"),
        ("inputs", "expert-solutions.jsonl", "expert solutions.jsonl"),
        ("inputs", "model.safetensors", "model.safetensors"),
        ("inputs", "test.jsonl", "test.jsonl"),
    ]


def test_what_is_there_is_not_uploaded_again(tmp_path: Path, uploads: list[Upload]) -> None:
    root = open_store(str(tmp_path / "store"))
    told: list[str] = []
    assert missing(root, uploads) == uploads
    upload(root, uploads[:2], lambda one: told.append(one.key))
    assert missing(root, uploads) == uploads[2:]
    upload(root, missing(root, uploads), lambda one: told.append(one.key))
    assert missing(root, uploads) == []
    assert told == [one.key for one in uploads]


def test_a_file_that_changes_meanwhile_is_refused_and_not_kept(tmp_path: Path, uploads: list[Upload]) -> None:
    changed = next(one for one in uploads if one.path.name == "test.jsonl")
    changed.path.write_text('{"problem": "1+2", "answer": "4"}\n')
    root = open_store(str(tmp_path / "store"))
    with pytest.raises(DataError, match=r"test\.jsonl changed while it was submitted; submit the job again"):
        upload(root, uploads, lambda _: None)
    assert root.head(changed.key) is None
