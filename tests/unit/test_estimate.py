"""What a run will take: lengths and rates come from what ran before, and nothing is made up where nothing did."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from dail_runtime.spec import DailJob, Task, plan
from dail_runtime.stages.jobs import save_job
from dail_runtime.stages.usage import Usage, add_usage
from dail_runtime.store import Manifest, ObjectInfo, open_store, write_manifest
from dailctl.cli.plan import document, told
from dailctl.estimate.demand import Demand, demand_of, is_gpu
from dailctl.estimate.facts import Fact, facts_of
from dailctl.estimate.of_run import on_cluster
from dailctl.estimate.rates import Rate
from dailctl.estimate.total import Estimate, TaskEstimate, estimate
from dailctl.estimate.work import Sizes
from dailctl.observe.model import Plan
from dailctl.runs import run_of_file
from tests.support.cli import dailctl

GPU = "nvidia.com/gpu"
SIZES = Sizes(100, {"test": 50})
CONTENT = {"/data/x.jsonl": "d1", "/data/t.jsonl": "d2", "/models/m": "w1"}


def job(limit: int | None = None, **sections: Any) -> DailJob:
    spec = {
        "model": {"id": "/models/m"},
        "data": {"solutions": "/data/x.jsonl", "evaluation": [{"name": "test", "path": "/data/t.jsonl"}], "limit": limit},
        "rewrite": {"samples": 4, "maxTokens": 1000, "temperature": 0.6},
        "select": {"keep": 1},
        "train": {"epochs": 5},
        "evaluate": {"samples": 8, "maxTokens": 2000},
    }
    return DailJob.model_validate(
        {"apiVersion": "dail/v1alpha1", "kind": "DailJob", "metadata": {"name": "one"}, "spec": {**spec, **sections}}
    )


def tasks_of(of: DailJob) -> dict[str, Task]:
    return {task.name: task for task in plan(of, CONTENT)}


def fact(of: DailJob, name: str, seconds: float, usage: Usage | None = None, **counts: Any) -> Fact:
    """A finished task of an earlier job."""
    task = tasks_of(of)[name]
    return Fact("pilot", of.spec.model.id, task, manifest(task, seconds, **counts), usage)


def manifest(task: Task, seconds: float, **counts: Any) -> Manifest:
    now = datetime.now(UTC)
    return Manifest(
        task=task.name,
        digest=task.digest,
        inputs=dict(task.inputs),
        objects=(ObjectInfo(key="x", size=1000),),
        counts=counts,
        started=now,
        finished=now,
        seconds=seconds,
        attempts=1,
        versions={},
    )


def estimated(of: DailJob, facts: Sequence[Fact] = (), **options: Any) -> dict[str, TaskEstimate]:
    return {task.task: task for task in whole(of, facts, **options).tasks}


def whole(of: DailJob, facts: Sequence[Fact] = (), **options: Any) -> Estimate:
    return estimate(of, plan(of, CONTENT), SIZES, facts=facts, **{"demand": {}, **options})


def test_without_any_measurement_only_the_most_there_can_be_is_said() -> None:
    found = estimated(job())
    assert found["rewrite/tuned"].tokens is None
    assert found["rewrite/tuned"].tokens_at_most == 100 * 4 * 1000
    assert found["evaluate/base"].tokens_at_most == 50 * 8 * 2000
    assert found["train/tuned"].tokens_at_most == 100 * 1 * 1000 * 5
    assert all(task.seconds is None and task.cost is None for task in found.values())
    assert whole(job()).unknown() == ["rewrite/tuned", "check/tuned", "train/tuned", "evaluate/base", "evaluate/tuned"]


def test_budgets_and_the_warm_up_count() -> None:
    with_more = job(
        evaluate={"samples": 8, "maxTokens": 2000, "budgets": [500, 1000], "budgetSamples": 2, "forcedTokens": 10},
        train={"epochs": 5, "warmup": {"epochs": 1}},
    )
    found = estimated(with_more)
    assert found["evaluate/base"].tokens_at_most == 50 * 8 * 2000 + 50 * 2 * 2 * 10
    assert found["train/tuned"].tokens_at_most == 100 * 1000 * 6


def test_lengths_and_rates_come_from_a_pilot_and_scale_with_gpus() -> None:
    pilot = job(limit=10)
    usage = Usage(pods=3, gpus={GPU: 2}, seconds=30, gpu_seconds={GPU: 60})
    # 8000 tokens at 400/s are 20 s of work on 2 GPUs; the other 10 s went into starting.
    before = fact(pilot, "rewrite/tuned", 30, usage, samples=40, tokens=8000, tokens_per_s=400)
    found = estimated(job(), [before], demand={"rewrite/tuned": Demand(4, 5, {GPU: 4})}, prices={GPU: 3.0})["rewrite/tuned"]
    assert found.tokens == 100 * 4 * 200
    assert found.seconds == pytest.approx(10 + 80_000 / (200 * 4))
    assert found.gpu_hours == {GPU: pytest.approx(4 * 110 / 3600)}
    assert found.cost == pytest.approx(3.0 * 4 * 110 / 3600)
    assert found.sources == ("200 tokens a response, as in pilot rewrite/tuned", "measured by pilot rewrite/tuned on 2 x nvidia.com/gpu")


def test_a_sum_says_what_it_leaves_out() -> None:
    other = "amd.com/gpu"
    demand = {"rewrite/tuned": Demand(1, 1, {GPU: 1}), "evaluate/base": Demand(1, 1, {other: 1})}
    rates = {"rewrite": Rate(tokens_per_second=100, per=GPU, source="x"), "evaluate": Rate(tokens_per_second=100, per=other, source="x")}
    found = whole(job(), demand=demand, rates=rates, prices={GPU: 2.0})
    assert found.unpriced(done=False) == [other]
    assert whole(job(), demand=demand, rates=rates).unpriced(done=False) == []
    sums = told(found).splitlines()[-1]
    assert sums.startswith("to do: at least "), "the training's time is not known"
    assert sums.endswith(f"without {other}, which has no price")


def test_a_rate_of_one_machine_says_nothing_about_gpus() -> None:
    before = fact(job(limit=10), "rewrite/tuned", 30, samples=40, tokens=8000, tokens_per_s=400)
    on_gpus = estimated(job(), [before], demand={"rewrite/tuned": Demand(1, 1, {GPU: 1})})["rewrite/tuned"]
    assert on_gpus.tokens == 80_000
    assert on_gpus.seconds is None
    here = estimated(job(), [before])["rewrite/tuned"]
    assert here.seconds == pytest.approx(10 + 200)


def test_a_rate_of_another_model_policy_or_objective_is_not_used() -> None:
    other_model = fact(job(limit=10, model={"id": "/models/other"}), "rewrite/tuned", 30, samples=40, tokens=8000, tokens_per_s=400)
    mixed = job(limit=10, rewrite={"samples": 4, "maxTokens": 1000, "policy": {"kind": "mixed"}})
    other_policy = fact(mixed, "rewrite/tuned", 30, samples=40, tokens=8000, tokens_per_s=400)
    sft = fact(job(limit=10, train={"objective": "sft"}), "train/tuned", 60, rows=10, tokens=3000, tokens_per_s=100)
    found = estimated(job(), [other_model, other_policy, sft])
    assert found["rewrite/tuned"].seconds is None
    assert found["rewrite/tuned"].tokens == 80_000, "lengths do carry over from another policy"
    assert found["train/tuned"].seconds is None


def test_training_counts_kept_traces_times_epochs() -> None:
    pilot = job(limit=10)
    before = [
        fact(pilot, "select/tuned", 1, problems=10, kept=6),
        fact(pilot, "train/tuned", 200, rows=6, tokens=1_200, tokens_per_s=500),
    ]
    found = estimated(job(train={"epochs": 2}), before)["train/tuned"]
    tokens = 200 * 0.6 * 100 * 2
    assert found.tokens == tokens
    assert found.seconds == pytest.approx((200 - 1_200 * 5 / 500) + tokens / 500)
    assert "0.60 traces a problem, 200 tokens each, as in pilot train/tuned" in found.sources


def test_rates_from_a_file_serve_where_nothing_was_measured() -> None:
    written = {"rewrite": Rate(tokens_per_second=1000, per=GPU, source="our wiki")}
    demand = {name: Demand(2, 2, {GPU: 2}) for name in ("rewrite/tuned", "check/tuned", "train/tuned")}
    found = estimated(job(), rates=written, demand=demand)
    assert found["rewrite/tuned"].seconds == pytest.approx(400_000 / 2000)
    assert found["rewrite/tuned"].sources == ("our wiki",)
    assert found["check/tuned"].seconds is not None, "a check generates as a rewrite does"
    assert found["train/tuned"].seconds is None


def test_the_price_of_a_pool_beats_that_of_its_resource_and_a_missing_one_leaves_no_cost() -> None:
    written = {stage: Rate(tokens_per_second=1000, per=GPU, source="s") for stage in ("rewrite", "train")}
    demand = {name: Demand(1, 1, {GPU: 1}) for name in ("rewrite/tuned", "train/tuned")}
    found = estimated(job(), rates=written, demand=demand, prices={"train": 9.0})
    assert found["train/tuned"].cost == pytest.approx(9.0 * 500_000 / 1000 / 3600)
    assert found["rewrite/tuned"].cost is None


def test_what_is_done_is_shown_as_it_was(tmp_path: Path) -> None:
    run = open_store(str(tmp_path))
    save_job(run, job(), CONTENT)
    task = tasks_of(job())["train/tuned"]
    write_manifest(run.at(task.prefix), manifest(task, 100, rows=60, tokens=12_000, tokens_per_s=500))
    add_usage(run.at(task.prefix), Usage(pods=2, gpus={GPU: 2}, seconds=90, gpu_seconds={GPU: 180}))
    facts = facts_of(run, "one")
    assert [one.where for one in facts] == ["one train/tuned"]
    result = whole(job(), facts, prices={GPU: 2.0})
    found = next(one for one in result.tasks if one.task == "train/tuned")
    assert found.done
    assert (found.seconds, found.tokens, found.stored) == (100, 12_000 * 5, 1000)
    assert found.gpu_hours == {GPU: pytest.approx(0.05)}
    done = document(result).done
    assert (done.seconds, done.gpu_hours, done.cost) == (100, {GPU: pytest.approx(0.05)}, pytest.approx(0.1))


def test_a_job_of_another_version_is_passed_over(tmp_path: Path) -> None:
    run = open_store(str(tmp_path))
    save_job(run, job(), CONTENT)
    run.put("jobs/0000000000000000.json", b'{"job": {"kind": "Other"}, "content": {}}')
    assert facts_of(run, "one") == []


def pod(**limits: str) -> dict[str, Any]:
    return {"template": {"spec": {"containers": [{"resources": {"limits": limits}}, {}]}}}


def test_demand_is_counted_from_the_manifests_themselves() -> None:
    eight = pod(**{GPU: "8"})
    objects = [
        {"kind": "Deployment", "spec": {"replicas": 3, **pod(**{GPU: "2", "memory": "8Gi"})}},
        {"kind": "Service", "spec": {}},
        {"kind": "Job", "spec": pod()},
        {"kind": "PyTorchJob", "spec": {"pytorchReplicaSpecs": {"Master": eight, "Worker": {"replicas": 3, **eight}}}},
    ]
    assert demand_of(objects) == Demand(objects=4, pods=3 + 1 + 4, gpus={GPU: 6 + 32})


@pytest.mark.parametrize("resource", [GPU, "amd.com/gpu", "nvidia.com/mig-3g.40gb", "gpu.intel.com/xe"])
def test_names_of_gpu_resources(resource: str) -> None:
    assert is_gpu(resource)


@pytest.mark.parametrize("resource", ["cpu", "memory", "ephemeral-storage", "hugepages-2Mi", "rdma/ib"])
def test_names_of_other_resources(resource: str) -> None:
    assert not is_gpu(resource)


@pytest.mark.parametrize(
    ("option", "text", "words"),
    [
        ("--rates", "rewrite: {tokensPerSecond: 0, source: x}", "rewrite.tokensPerSecond: Input should be greater than 0"),
        ("--rates", "rewrite: {tokensPerSecond: 5}", "rewrite.source: Field required"),
        ("--rates", "- 1", "the file: Input should be a valid dictionary"),
        ("--prices", "nvidia.com/gpu: -2", "nvidia.com/gpu: Input should be greater than or equal to 0"),
        ("--prices", "{", "not YAML"),
    ],
)
def test_wrong_files_get_a_sentence(tmp_path: Path, option: str, text: str, words: str) -> None:
    path = tmp_path / "figures.yaml"
    path.write_text(text)
    said = dailctl("plan", option, path, cwd=tmp_path)
    assert said.code == 2
    assert words in said.err
    assert str(path) in said.err
    assert "Traceback" not in said.err


def test_plan_reads_the_data_writes_nothing_and_speaks_json(tmp_path: Path) -> None:
    example = Path(__file__).parents[2] / "examples" / "tinymath" / "smoke.yaml"
    store = tmp_path / "runs"
    said = dailctl("plan", "-f", example, "--set", f"storage.uri={store}", "-o", "json")
    assert said.code == 0, said.err
    Plan.model_validate_json(said.out)
    rewrite = next(task for task in json.loads(said.out)["tasks"] if task["task"] == "rewrite/tuned")
    assert rewrite["tokensAtMost"] == 32 * 160
    assert not store.exists()
    assert "No measured rate for rewrite/tuned" not in said.out


def test_plan_for_a_cluster_counts_the_objects_it_would_make(tmp_path: Path) -> None:
    example = Path(__file__).parents[2] / "examples" / "tinymath" / "smoke.yaml"
    gpus = [f"cluster.pools.{pool}.gpus={number}" for pool, number in (("rewrite", 2), ("train", 8))]
    settings = [*gpus, "cluster.image=registry.example/dail:1", "train.workers=3", "rewrite.replicas=4"]
    words = [word for setting in settings for word in ("--set", setting)]
    said = dailctl("plan", "-f", example, "--set", f"storage.uri={tmp_path}", *words)
    assert said.code == 3
    assert "is a folder of this machine, which pods cannot reach" in said.err
    run = run_of_file(example, settings)
    moved = run.job.spec.storage.model_copy(update={"uri": "s3://bucket/prefix"})
    run = replace(run, job=run.job.model_copy(update={"spec": run.job.spec.model_copy(update={"storage": moved})}))
    there, demand = on_cluster(run)
    assert demand["rewrite/tuned"].gpus == {GPU: 4 * 2}
    assert demand["rewrite/tuned"].pods == 4 + 1
    assert demand["train/tuned"] == Demand(objects=1, pods=3, gpus={GPU: 3 * 8})
    assert demand["prepare"] == Demand(objects=1, pods=1, gpus={})
    assert {task.name for task in there.tasks} == set(demand)
