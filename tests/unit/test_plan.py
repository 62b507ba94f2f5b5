"""The plan: the right tasks in the right order, and digests that change exactly when a result could."""

from __future__ import annotations

import json
from typing import Any

import pytest
from pydantic import ValidationError

from dail_runtime.spec import STAGES, DailJob, Task, plan
from dail_runtime.stages.jobs import load_saved_job, save_job
from dail_runtime.store import open_store

VARIANTS = {
    "contrastive": {},
    "nll": {"train": {"objective": "nll"}},
    "other": {"rewrite": {"reference": "other"}},
    "strict": {"select": {"keep": 2}},
}
CONTENT = {"/data/x.jsonl": "d1", "/data/t.jsonl": "d2", "/models/m": "w1"}


def job(**sections: Any) -> DailJob:
    spec = {
        "model": {"id": "/models/m"},
        "data": {"solutions": "/data/x.jsonl", "evaluation": [{"name": "test", "path": "/data/t.jsonl"}]},
        "variants": VARIANTS,
    }
    return DailJob.model_validate(
        {"apiVersion": "dail/v1alpha1", "kind": "DailJob", "metadata": {"name": "one"}, "spec": {**spec, **sections}}
    )


def digests(job: DailJob, content: dict[str, str] | None = None) -> dict[str, str]:
    return {task.name: task.digest for task in plan(job, CONTENT if content is None else content)}


def changed(one: dict[str, str], other: dict[str, str]) -> set[str]:
    """Names of tasks whose results another job does not share."""
    return {name for name in one if one[name] != other.get(name)}


def test_every_task_comes_after_its_inputs_stage_by_stage() -> None:
    tasks = plan(job(), CONTENT)
    done: dict[str, Task] = {}
    for task in tasks:
        for name, digest in task.inputs.items():
            assert done[name].digest == digest
        done[task.name] = task
    stages = [STAGES.index(task.stage) for task in tasks]
    assert stages == sorted(stages)
    assert len(done) == len(tasks) == len({task.digest for task in tasks}) == len({task.prefix for task in tasks})
    assert set(done["report"].inputs) == set(done) - {"report"}


def test_another_first_variant_or_another_name_keeps_the_traces() -> None:
    before = {task.stage: task.prefix for task in plan(job(variants={"a": {}}), CONTENT)}
    for variants in ({"b": {}}, {"first": {"train": {"objective": "sft"}}, "a": {}}):
        after = {task.prefix for task in plan(job(variants=variants), CONTENT)}
        assert {before[stage] for stage in ("prepare", "rewrite", "select", "check")} <= after


def test_variants_share_what_they_have_in_common() -> None:
    names = list(digests(job()))
    assert names == [
        "prepare",
        *("rewrite/contrastive", "rewrite/other"),
        *("select/contrastive", "select/other", "select/strict"),
        *("check/contrastive", "check/other", "check/strict"),
        *("train/contrastive", "train/nll", "train/other", "train/strict"),
        *("evaluate/base", "evaluate/contrastive", "evaluate/nll", "evaluate/other", "evaluate/strict"),
        "report",
    ]
    tasks = {task.name: task for task in plan(job(), CONTENT)}
    assert set(tasks["train/nll"].inputs) == {"prepare", "select/contrastive"}
    assert set(tasks["evaluate/base"].inputs) == {"prepare"}
    assert set(tasks["evaluate/nll"].inputs) == {"prepare", "train/nll"}
    assert tasks["train/nll"].settings.train.objective == "nll"
    assert tasks["rewrite/other"].settings.rewrite.reference == "other"


def test_a_job_without_variants_trains_one_called_tuned() -> None:
    assert list(digests(job(variants={}))) == [
        *("prepare", "rewrite/tuned", "select/tuned", "check/tuned", "train/tuned", "evaluate/base", "evaluate/tuned", "report")
    ]


def test_a_moved_folder_keeps_every_result() -> None:
    moved = job(model={"id": "s3://b/m"}, data={"solutions": "s3://b/1.jsonl", "evaluation": [{"name": "test", "path": "s3://b/2.jsonl"}]})
    assert digests(moved, {"s3://b/m": "w1", "s3://b/1.jsonl": "d1", "s3://b/2.jsonl": "d2"}) == digests(job())


@pytest.mark.parametrize(
    ("path", "kept"),
    [
        ("/data/x.jsonl", set()),
        ("/data/t.jsonl", set()),
        ("/models/m", {"prepare"}),
    ],
)
def test_new_content_under_an_old_name_is_never_taken_for_the_old(path: str, kept: set[str]) -> None:
    before, after = digests(job()), digests(job(), {**CONTENT, path: "new"})
    assert set(before) - changed(before, after) == kept


def variant(name: str, **sections: Any) -> dict[str, Any]:
    return {"variants": {**VARIANTS, name: {**VARIANTS[name], **sections}}}


ALL = set(digests(job()))
CHECKS = {name for name in ALL if name.startswith("check")}
MEASURED = {name for name in ALL if name.startswith("evaluate")}
TRAINED = {name for name in ALL if name.startswith("train")} | MEASURED - {"evaluate/base"}


@pytest.mark.parametrize(
    ("sections", "expected"),
    [
        (variant("nll", train={"objective": "nll", "epochs": 2}), {"train/nll", "evaluate/nll", "report"}),
        (variant("strict", select={"keep": 3}), {"select/strict", "check/strict", "train/strict", "evaluate/strict", "report"}),
        ({"seed": 1}, ALL),
        ({"prompts": {"system": "Think."}}, ALL - {"prepare"}),
        ({"model": {"id": "/models/m", "thinking": True}}, ALL - {"prepare"}),
        ({"evaluate": {"samples": 64}}, MEASURED | {"report"}),
        ({"evaluate": {"primary": "nll"}}, {"report"}),
        ({"evaluate": {"teacherCheck": False}}, CHECKS | {"report"}),
        ({"evaluate": {"targets": ["nll"]}}, MEASURED - {"evaluate/nll"} | {"report"}),
        (
            {"train": {"learningRate": 1e-3}},
            {name for name in ALL if name.split("/")[0] in ("train", "evaluate")} - {"evaluate/base"} | {"report"},
        ),
        ({"rewrite": {"samples": 4}}, ALL - {"prepare", "evaluate/base"}),
        ({"rewrite": {"engine": {"kind": "transformers", "batchSize": 4}}}, ALL - {"prepare"}),
        # Where and how wide the work runs is no part of its result.
        ({"rewrite": {"replicas": 4}}, set()),
        ({"train": {"workers": 4, "checkpointEvery": 3, "keepCheckpoints": 1}}, set()),
        ({"train": {"microBatchTokens": 128, "chunkTokens": 64, "gradientCheckpointing": "on", "shard": "on"}}, set()),
        ({"train": {"cacheReferences": "off"}}, set()),
        ({"cluster": {"namespace": "x", "queue": "y"}}, set()),
        ({"storage": {"uri": "s3://elsewhere/x"}}, set()),
    ],
)
def test_a_setting_changes_what_depends_on_it_and_nothing_else(sections: dict[str, Any], expected: set[str]) -> None:
    before, after = digests(job()), digests(job(**sections))
    assert changed(before, after) == expected


def test_the_addresses_of_servers_are_no_part_of_a_result() -> None:
    def with_servers(*servers: str, in_flight: int = 64) -> dict[str, str]:
        return digests(job(rewrite={"engine": {"kind": "vllm-http", "servers": servers, "inFlight": in_flight}}))

    assert with_servers("http://a:8000") == with_servers("http://b:8000", "http://c:8000", in_flight=8)
    assert with_servers("http://a:8000") != digests(job(rewrite={"engine": {"kind": "vllm"}}))


def test_a_saved_job_has_the_plan_of_the_file_it_came_from(tmp_path: Any) -> None:
    run = open_store(str(tmp_path)).at("one")
    saved, content = load_saved_job(run, save_job(run, job(), CONTENT))
    assert saved == job()
    assert digests(saved, content) == digests(job())


def test_digests_do_not_depend_on_how_a_value_is_written() -> None:
    assert digests(job(train={"learningRate": "1e-3", "epochs": 5})) == digests(job(train={"learningRate": 0.001, "epochs": 5.0}))


def test_variants_merge_key_by_key_and_a_new_kind_starts_afresh() -> None:
    spec = job(
        rewrite={"policy": {"kind": "mixed", "tau": 0.5, "tries": 3}, "samples": 7},
        train={"lora": {"r": 8, "alpha": 16}},
        variants={
            "a": {"rewrite": {"policy": {"tau": 0.9}}, "train": {"lora": {"r": 4}}},
            "b": {"rewrite": {"policy": {"kind": "direct"}}},
        },
    ).spec
    assert json.loads(spec.settings("a").rewrite.policy.model_dump_json()) == {"kind": "mixed", "tau": 0.9, "tries": 3}
    assert (spec.settings("a").train.lora.r, spec.settings("a").train.lora.alpha, spec.settings("a").rewrite.samples) == (4, 16, 7)
    assert json.loads(spec.settings("b").rewrite.policy.model_dump_json()) == {"kind": "direct"}


def test_a_variant_that_does_not_resolve_is_refused_with_every_reason() -> None:
    with pytest.raises(ValidationError, match=r"'a': select\.keep.*'a': train\.gamma.*'b': train\.epochs") as caught:
        job(variants={"a": {"train": {"gamma": 2}, "select": {"keep": 0}}, "b": {"train": {"epochs": -1}}})
    assert caught.value.error_count() == 1
