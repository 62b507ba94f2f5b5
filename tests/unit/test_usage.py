"""What a task held of a cluster adds up over its attempts and is kept beside its results, never as one of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from dail_runtime.errors import IntegrityError
from dail_runtime.stages.usage import USAGE, Usage, add_usage, read_usage
from dail_runtime.store import open_store


def test_a_task_that_never_was_on_a_cluster_has_no_usage(tmp_path: Path) -> None:
    assert read_usage(open_store(str(tmp_path))) is None


def test_attempts_add_their_seconds_and_keep_the_highest_counts(tmp_path: Path) -> None:
    task = open_store(str(tmp_path))
    add_usage(task, Usage(pods=3, gpus={"nvidia.com/gpu": 2}, seconds=10, gpu_seconds={"nvidia.com/gpu": 20}))
    add_usage(task, Usage(pods=2, gpus={"amd.com/gpu": 1}, seconds=5, gpu_seconds={"amd.com/gpu": 5}))
    assert read_usage(task) == Usage(
        pods=3,
        gpus={"nvidia.com/gpu": 2, "amd.com/gpu": 1},
        seconds=15,
        gpu_seconds={"nvidia.com/gpu": 20, "amd.com/gpu": 5},
    )


def test_the_record_is_about_the_task_and_no_part_of_its_result() -> None:
    assert USAGE.startswith("_")


def test_a_record_that_is_none_is_reported_with_its_place(tmp_path: Path) -> None:
    task = open_store(str(tmp_path))
    task.put(USAGE, b'{"pods": -1}')
    with pytest.raises(IntegrityError, match=r"_usage\.json is not a record of usage"):
        read_usage(task)
