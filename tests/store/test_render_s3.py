"""What a run from Git needs of its store, on a real S3 server: uploaded inputs that the stages find, and the chart's own test."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from dail_runtime.models.locate import locate
from dail_runtime.spec import DailJob
from dailctl.render.selftest import main
from tests.support.cli import dailctl
from tests.support.s3 import Bucket

pytestmark = pytest.mark.store

ROW = '{"problem": "1+1?", "solution": "It is \\\\boxed{2}."}\n'


@pytest.fixture
def folder(tmp_path: Path, bucket: Bucket) -> Path:
    """A job over local data and a local model, whose store is the bucket."""
    (tmp_path / "model").mkdir()
    for name in ("config.json", "model.safetensors", "train.py"):
        (tmp_path / "model" / name).write_text(name)
    (tmp_path / "my data.jsonl").write_text(ROW)
    (tmp_path / "job.yaml").write_text(
        "apiVersion: dail/v1alpha1\nkind: DailJob\nmetadata: {name: one}\nspec:\n"
        "  model: {id: ./model}\n  data: {solutions: my data.jsonl}\n"
        f"  storage: {{uri: '{bucket.uri}/team', endpoint: '{bucket.server.endpoint}'}}\n  cluster: {{image: 'r.example.org/dail:1'}}\n"
    )
    return tmp_path


def record_of(folder: Path, *words: str) -> dict[str, str]:
    """Data of the rendered record."""
    said = dailctl("render", *words, cwd=folder)
    assert said.code == 0, said.err
    return dict(next(yaml.safe_load_all(said.out))["data"])


def mounted(folder: Path, data: dict[str, str]) -> Path:
    """The record as a kubelet mounts it: links into a hidden folder."""
    (folder / "record" / "..data").mkdir(parents=True)
    for key, text in data.items():
        (folder / "record" / "..data" / key).write_text(text)
        (folder / "record" / key).symlink_to(f"..data/{key}")
    return folder / "record"


def test_upload_brings_local_data_to_where_the_jobs_pods_look_for_it(folder: Path, bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    data = record_of(folder, "--upload")
    job = DailJob.model_validate(json.loads(data["job.json"])["job"])
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", bucket.server.endpoint)
    monkeypatch.setenv("DAIL_CACHE", str(folder / "cache"))
    found = locate(job.spec.model)
    assert {path.name: path.read_text() for path in found.iterdir()} == {name: name for name in ("config.json", "model.safetensors")}
    key = job.spec.data.solutions.removeprefix(f"{bucket.uri}/")
    assert bucket.store().get(key).decode() == ROW
    again = dailctl("render", "--upload", cwd=folder)
    assert "all local data is at" in again.err
    assert "uploading" not in again.err


def test_without_upload_nothing_is_written(folder: Path, bucket: Bucket) -> None:
    record_of(folder)
    assert list(bucket.store().list()) == []


def test_the_charts_own_test_reads_the_record_and_the_store(
    folder: Path, bucket: Bucket, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    data = record_of(folder)
    assert main([str(mounted(folder, data))]) == 0
    assert "8 tasks" in capsys.readouterr().out
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    assert main([str(folder / "record")]) == 5
    told = capsys.readouterr().err
    assert bucket.name in told
    assert len(told.splitlines()) == 1


@pytest.mark.parametrize(
    ("key", "text", "told"),
    [
        ("run.json", "{}", "run.json of the record cannot be read"),
        ("01-prepare.yaml", "", "no objects for the task prepare"),
        ("job.json", None, "lists other tasks"),
    ],
)
def test_a_record_that_is_not_whole_is_told(
    folder: Path, key: str, text: str | None, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    data = record_of(folder)
    if text is None:
        saved = json.loads(data[key])
        saved["job"]["spec"]["evaluate"]["teacherCheck"] = False
        text = json.dumps(saved)
    assert main([str(mounted(folder, {**data, key: text}))]) == 9
    assert told in capsys.readouterr().err
