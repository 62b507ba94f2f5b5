"""The launcher's reading of the environment: Kubeflow's variables, torchrun's names, and sentences for what cannot be."""

from __future__ import annotations

from typing import Any

import pytest

from dail_runtime.errors import SetupError, UsageError
from dail_runtime.train import launch
from dail_runtime.train.elastic import Elastic, elastic_of
from dail_runtime.train.launch import Nodes, nodes_of, processes, takes_ranks
from dail_runtime.train.ranks import Place, place

OPERATOR = {
    "MASTER_ADDR": "r-train-master-0",
    "MASTER_PORT": "23456",
    "WORLD_SIZE": "4",
    "RANK": "1",
    "PET_MASTER_ADDR": "r-train-master-0",
    "PET_MASTER_PORT": "23456",
    "PET_NPROC_PER_NODE": "2",
    "PET_NODE_RANK": "1",
    "PET_NNODES": "2",
}
"""What Kubeflow's training operator sets for the first worker of a master and a worker with two processes each."""


@pytest.fixture(autouse=True)
def gpus(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """How many GPUs PyTorch sees."""
    seen = {"count": 0}
    monkeypatch.setattr(launch, "_visible_gpus", lambda: seen["count"])
    return seen


def test_the_operators_variables_give_the_ranks_of_a_worker() -> None:
    nodes = nodes_of(OPERATOR, processes(OPERATOR))
    assert nodes == Nodes(2, 1, 2, "r-train-master-0", 23456)
    places = [place(nodes.environment(one)) for one in range(2)]
    assert places == [Place(2, 4, 0, 2), Place(3, 4, 1, 2)]
    assert [one.node for one in places] == [1, 1]
    assert not places[0].lead


def test_without_an_operator_there_is_one_process_and_a_free_port() -> None:
    nodes = nodes_of({}, 1)
    assert (nodes.count, nodes.rank, nodes.per_node, nodes.address) == (1, 0, 1, "127.0.0.1")
    assert nodes.port > 1023


@pytest.mark.parametrize(
    ("visible", "variables", "count"),
    [
        (8, {}, 8),
        (8, {"PET_NPROC_PER_NODE": "gpu"}, 8),
        (8, {"PET_NPROC_PER_NODE": "3"}, 3),
        (8, {"DAIL_DEVICE": "cpu"}, 1),
        (8, {"DAIL_DEVICE": "cpu", "PET_NPROC_PER_NODE": "2"}, 2),
        (0, {"PET_NPROC_PER_NODE": "cpu"}, 1),
        (0, {"PET_NPROC_PER_NODE": "2"}, 2),
    ],
)
def test_a_process_per_gpu_unless_told_otherwise(visible: int, variables: dict[str, str], count: int, gpus: dict[str, int]) -> None:
    gpus["count"] = visible
    assert processes(variables) == count


@pytest.mark.parametrize(
    ("variables", "kind", "says"),
    [
        ({"PET_NNODES": "1:4"}, UsageError, "PET_RDZV_ENDPOINT does not say where the machines meet"),
        ({"PET_NNODES": "4:1", "PET_RDZV_ENDPOINT": "a:1"}, UsageError, "PET_NNODES is 4:1: the first number must not be above"),
        ({"PET_NNODES": "1:x", "PET_RDZV_ENDPOINT": "a:1"}, UsageError, "PET_NNODES is 1:x .*; give numbers"),
        ({"PET_NNODES": "two"}, UsageError, "PET_NNODES is 'two', which is no number"),
        ({"PET_NNODES": "0"}, UsageError, "PET_NNODES is '0'"),
        ({"PET_NNODES": "2", "PET_NODE_RANK": "2", "MASTER_ADDR": "a"}, UsageError, "PET_NODE_RANK is 2, but there are 2 machines"),
        ({"PET_NNODES": "2"}, UsageError, "MASTER_ADDR does not say where machine 0 is"),
        ({"PET_NNODES": "2", "MASTER_ADDR": "a", "MASTER_PORT": "x"}, UsageError, "MASTER_PORT is 'x'"),
        ({"DAIL_DEVICE": "cuda"}, SetupError, "GPUs were asked for, but PyTorch sees none"),
        ({"PET_NPROC_PER_NODE": "gpu"}, SetupError, "GPUs were asked for, but PyTorch sees none"),
    ],
    ids=str,
)
def test_what_cannot_be_is_said(variables: dict[str, str], kind: type[Exception], says: str) -> None:
    def read() -> object:
        per_node = processes(variables)
        return elastic_of(variables, per_node) or nodes_of(variables, per_node)

    with pytest.raises(kind, match=says):
        read()


def test_more_processes_than_gpus_are_refused(gpus: dict[str, int]) -> None:
    gpus["count"] = 4
    with pytest.raises(SetupError, match=r"8 processes were asked for \(PET_NPROC_PER_NODE\), but PyTorch sees 4 GPUs"):
        processes({"PET_NPROC_PER_NODE": "8"})


@pytest.mark.parametrize(
    ("visible", "variables", "several"),
    [
        (8, {}, True),
        (1, {}, False),
        (0, {}, False),
        (8, {"DAIL_DEVICE": "cpu"}, False),
        (0, {"PET_NPROC_PER_NODE": "2"}, True),
        # One of the ranks already.
        (8, {"RANK": "0", "WORLD_SIZE": "8"}, False),
        # What is wrong there, the launcher says.
        (0, {"DAIL_DEVICE": "cuda"}, True),
    ],
)
def test_training_on_one_machine_takes_every_visible_gpu(
    visible: int, variables: dict[str, str], several: bool, gpus: dict[str, int]
) -> None:
    gpus["count"] = visible
    assert takes_ranks(variables) is several


def test_an_elastic_range_of_one_is_a_number() -> None:
    variables = {"PET_NNODES": "2:2", "MASTER_ADDR": "a"}
    assert elastic_of(variables, 1) is None
    assert nodes_of(variables, 1).count == 2


def test_the_operators_elastic_policy_is_an_elastic_training() -> None:
    policy = {"PET_NNODES": "1:4", "PET_RDZV_BACKEND": "c10d", "PET_RDZV_ENDPOINT": "r-train-worker-0:23456", "PET_MAX_RESTARTS": "5"}
    assert elastic_of(policy, 8) == Elastic(1, 4, 8, "r-train-worker-0:23456", "dail", 5)
    # Workers without a master have no ranks but those they agree on, also where their number may not change.
    assert elastic_of({**policy, "PET_NNODES": "4:4"}, 8) == Elastic(4, 4, 8, "r-train-worker-0:23456", "dail", 5)


@pytest.mark.parametrize(
    "variables",
    [
        {"RANK": "2", "WORLD_SIZE": "2"},
        {"RANK": "-1", "WORLD_SIZE": "2"},
        {"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "1"},
        {"RANK": "x", "WORLD_SIZE": "2"},
    ],
    ids=str,
)
def test_ranks_that_contradict_each_other_are_refused(variables: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=r"start it with python -m dail_runtime\.train\.launch"):
        place(variables)
    assert place({}) == Place()
