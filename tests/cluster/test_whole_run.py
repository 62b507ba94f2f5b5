"""The real stages under the real control plane: a tiny model rewritten, trained by a PyTorchJob of two pods, measured and reported."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab.control_plane import ControlPlane
from tests.support.cluster_run import ClusterRun, cluster_run
from tests.support.process_kubelet import as_here
from tests.support.s3 import Bucket

pytestmark = [pytest.mark.cluster, pytest.mark.slow]


@pytest.fixture
def real(control_plane: ControlPlane, namespace: str, bucket: Bucket, tmp_path: Path) -> Iterator[ClusterRun]:
    """A run whose stages are the real ones."""
    with cluster_run(control_plane, namespace, bucket, tmp_path, as_here) as found:
        short = {"samples": 1, "maxTokens": 160, "temperature": 1.0, "topP": 1.0}
        found.write(
            # Real stages look for the GPUs that they were promised.
            gpus=0,
            prompts={
                "student": "{problem}",
                "privileged": "{problem}\n## Reference solution\n{solution}\nExplain it in full.",
                "negative": "{problem}\n## Hint\nanswer {answer} numbers {landmarks}",
            },
            data={"limit": 24},
            rewrite={**short, "engine": {"kind": "transformers"}},
            train={"epochs": 1, "learningRate": 4.0e-3, "batchSize": 8, "workers": 2, "lora": {"r": 8, "alpha": 16}},
            evaluate={**short, "teacherCheck": False},
        )
        yield found


def test_a_run_with_its_real_stages(real: ClusterRun) -> None:
    run = real
    said = run.submit("--wait")
    assert said.code == 0, said.err[-3000:] + "".join(run.kubelet.log_of(name)[-2000:] for name, _ in run.kubelet.started[-2:])
    status = run.status()
    assert status is not None
    assert status.state == "done"
    assert all(task.seconds for task in status.tasks)
    assert "report: " in said.out
    # Both ranks ran, and the master's result is the run's.
    assert sum("train-tuned" in name for name, _ in run.kubelet.started) == 2
    adapter = [key for key in run.results() if key.endswith("adapter/adapter_model.safetensors")]
    assert len(adapter) == 1
    run.until_only_the_record_is_left()
