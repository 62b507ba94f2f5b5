"""The stage `evaluate` with a real (tiny) model and its real adapter."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
import torch

from dail_runtime.evaluate.records import RESPONSES, SUMMARY, Summary
from dail_runtime.models import load_model
from dail_runtime.records import Problem, Rollout, to_jsonl
from dail_runtime.spec import DailJob, plan
from dail_runtime.stages import evaluate
from dail_runtime.stages.base import StageContext
from dail_runtime.store import Store, open_store
from tests.support.evaluating import Notes
from tests.support.tiny import make_tiny_model

PROBLEMS = [Problem(id=f"p{n}", problem=f"What is {n} + {n}?", answer=str(2 * n), set="dev") for n in range(3)]


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> DailJob:
    model = make_tiny_model(tmp_path_factory.mktemp("model"))
    return DailJob.model_validate(
        {
            "apiVersion": "dail/v1alpha1",
            "kind": "DailJob",
            "metadata": {"name": "t"},
            "spec": {
                "model": {"id": str(model)},
                "data": {"solutions": "/s.jsonl", "evaluation": [{"name": "dev", "path": "/dev.jsonl"}]},
                "evaluate": {"samples": 3, "maxTokens": 16, "budgets": [8], "forcedTokens": 4, "temperature": 1.0},
            },
        }
    )


def run(job: DailJob, root: Store, target: str) -> tuple[Summary, list[Rollout]]:
    task = {task.name: task for task in plan(job, {})}[f"evaluate/{target}"]
    out = root.at(f"out/{target}")
    evaluate.run(StageContext(job, task, root, out, {name: root.at(name) for name in task.inputs}, Notes(), threading.Event()))
    rollouts = [Rollout.model_validate_json(out.get(info.key)) for info in out.list(RESPONSES)]
    return Summary.model_validate_json(out.get(SUMMARY)), rollouts


def test_a_real_model_is_measured_the_same_way_twice_and_its_adapter_changes_it(job: DailJob, tmp_path: Path) -> None:
    from peft import LoraConfig, get_peft_model

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        config = LoraConfig(r=4, target_modules=["q_proj", "down_proj"], init_lora_weights=False)
        adapted = get_peft_model(load_model(job.spec.model, device=torch.device("cpu")), config)
        adapted.save_pretrained(str(tmp_path / "adapter"))
    roots = [open_store(str(tmp_path / name)) for name in ("one", "two")]
    for root in roots:
        root.at("prepare").put("evaluation/dev.jsonl", to_jsonl(PROBLEMS))
        for path in (tmp_path / "adapter").iterdir():
            root.at("train/tuned/adapter").put_file(path.name, path)
    base, again = run(job, roots[0], "base"), run(job, roots[1], "base")
    tuned = run(job, roots[0], "tuned")
    assert base == again
    assert [rollout.id for rollout in base[1]] == [rollout.id for rollout in tuned[1]]
    assert base[1] != tuned[1]
    assert all(len(sample.ids) <= 16 for rollout in base[1] for sample in rollout.samples)
    figures = base[0].sets["dev"]
    assert (figures.problems, figures.samples) == (3, 3)
    assert figures.budgets[8].forced > 0
    assert figures.budgets[8].mean_tokens <= 8 + 4
