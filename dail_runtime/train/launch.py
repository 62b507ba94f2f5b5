"""Starts the training processes of this machine: `python -m dail_runtime.train.launch TASK --run URI --job DIGEST`.

One stage process per GPU (one in all on a CPU), each with the environment that torchrun gives. Unlike torchrun it ends with the exit
code of the rank that failed first, so that a wrong setting is not retried and a lost node is, and it hands SIGTERM on to the ranks,
which save together and end with 143. Standard output carries the events of rank 0, and one error event of whichever rank failed.

How many machines and which one this is come from the options, or from the environment of Kubeflow's training operator (PET_NNODES,
PET_NODE_RANK, PET_NPROC_PER_NODE, PET_MASTER_ADDR, PET_MASTER_PORT, or MASTER_ADDR and MASTER_PORT): the same names as torchrun's. Where
their number may change (its elasticPolicy), torchrun's agent does the work.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import socket
import sys
from collections.abc import Mapping
from dataclasses import dataclass

from dail_runtime.errors import DailError, SetupError, UsageError
from dail_runtime.train.elastic import elastic_of, run_elastic
from dail_runtime.train.processes import run_ranks

GRACE = 110.0
"""Seconds that ranks get between SIGTERM and SIGKILL: less than a training pod gets, so that this process can still say what happened."""
PORT = 29500
"""Where ranks of several machines meet, unless MASTER_PORT says otherwise (torchrun's default)."""


@dataclass(frozen=True)
class Nodes:
    """The machines of a training, and this one among them."""

    count: int
    """Machines in all."""
    rank: int
    """Number of this one; rank 0 runs on machine 0."""
    per_node: int
    """Processes on each."""
    address: str
    """Name or address of machine 0."""
    port: int
    """Port that rank 0 listens on there."""

    def environment(self, local_rank: int) -> dict[str, str]:
        """What process number `local_rank` of this machine is told: torchrun's variables."""
        return {
            "RANK": str(self.rank * self.per_node + local_rank),
            "WORLD_SIZE": str(self.count * self.per_node),
            "LOCAL_RANK": str(local_rank),
            "LOCAL_WORLD_SIZE": str(self.per_node),
            "GROUP_RANK": str(self.rank),
            "GROUP_WORLD_SIZE": str(self.count),
            "MASTER_ADDR": self.address,
            "MASTER_PORT": str(self.port),
        }


def main(argv: list[str] | None = None) -> int:
    """Run the ranks of this machine to their end; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m dail_runtime.train.launch", description="Run the training processes of this machine.")
    parser.add_argument("task", help="for example train/nll")
    parser.add_argument("--run", required=True, metavar="URI", help="the run's root: a folder, file:// or s3://")
    parser.add_argument("--job", required=True, metavar="DIGEST", help="name of the saved job below the root's jobs/")
    parser.add_argument("--nnodes", help="machines (PET_NNODES), or LEAST:MOST where they may come and go; default: 1")
    parser.add_argument("--rdzv-endpoint", help="with LEAST:MOST: HOST:PORT where machines meet (PET_RDZV_ENDPOINT)")
    parser.add_argument("--rdzv-id", help="with LEAST:MOST: name of the meeting (PET_RDZV_ID)")
    parser.add_argument("--max-restarts", help="with LEAST:MOST: restarts after failures (PET_MAX_RESTARTS)")
    parser.add_argument("--node-rank", help="number of this machine (PET_NODE_RANK); default: 0")
    parser.add_argument("--nproc-per-node", help="processes here (PET_NPROC_PER_NODE): a number, or auto: one per visible GPU, 1 without")
    parser.add_argument("--master-addr", help="machine 0 (PET_MASTER_ADDR, MASTER_ADDR)")
    parser.add_argument("--master-port", help=f"port of rank 0 (PET_MASTER_PORT, MASTER_PORT); default: {PORT}")
    parser.add_argument("--grace", type=float, default=GRACE, help="seconds between SIGTERM and SIGKILL (default: %(default)g)")
    arguments = parser.parse_args(argv)
    options = {"PET_" + name.upper(): value for name, value in vars(arguments).items() if value is not None}
    try:
        environment = {**os.environ, **options}
        per_node = processes(environment)
        elastic = elastic_of(environment, per_node)
        nodes = nodes_of(environment, per_node) if elastic is None else None
    except DailError as err:
        print(json.dumps({"event": "error", "kind": type(err).__name__, "message": str(err), "exit": err.exit_code}), flush=True)
        return err.exit_code
    command = [sys.executable, "-P", "-m", "dail_runtime.stages", arguments.task, "--run", arguments.run, "--job", arguments.job]
    if elastic is not None:
        return run_elastic(command, elastic, grace=arguments.grace)
    assert nodes is not None
    return run_ranks(command, [nodes.environment(rank) for rank in range(nodes.per_node)], grace=arguments.grace)


def takes_ranks(environment: Mapping[str, str]) -> bool:
    """Whether training here, in a process that is no rank yet, is for several processes: where several GPUs are visible, say."""
    if environment.get("RANK"):
        return False
    try:
        return processes(environment) > 1
    except DailError:
        # Said where it is certain that someone listens: by `main`.
        return True


def nodes_of(environment: Mapping[str, str], per_node: int) -> Nodes:
    """The machines that the environment describes, each with `per_node` processes.

    Raises:
        UsageError: a variable makes no sense, or the address of machine 0 is missing.
    """
    count = _number(environment, "PET_NNODES", 1)
    rank = _number(environment, "PET_NODE_RANK", 0)
    if not 0 <= rank < count:
        raise UsageError(f"PET_NODE_RANK is {rank}, but there are {count} machines (PET_NNODES); it counts from 0")
    address = environment.get("PET_MASTER_ADDR") or environment.get("MASTER_ADDR")
    if count == 1:
        # A port that is free: several runs may train on one machine.
        return Nodes(1, 0, per_node, "127.0.0.1", _free_port())
    if not address:
        raise UsageError(f"{count} machines train together (PET_NNODES), but MASTER_ADDR does not say where machine 0 is; set it")
    name = "PET_MASTER_PORT" if environment.get("PET_MASTER_PORT") else "MASTER_PORT"
    return Nodes(count, rank, per_node, address, _number(environment, name, PORT))


def processes(environment: Mapping[str, str]) -> int:
    """How many processes run on this machine.

    Raises:
        UsageError: the variable makes no sense.
        SetupError: a GPU was asked for and is not there, or fewer than processes were asked for.
    """
    wanted = (environment.get("PET_NPROC_PER_NODE") or "auto").strip().lower()
    if wanted == "cpu" or environment.get("DAIL_DEVICE", "").strip().lower() == "cpu":
        return 1 if wanted in ("auto", "cpu") else _number(environment, "PET_NPROC_PER_NODE", 1)
    gpus = _visible_gpus()
    if gpus == 0 and (wanted == "gpu" or environment.get("DAIL_DEVICE", "").strip().lower() == "cuda"):
        raise SetupError("GPUs were asked for, but PyTorch sees none; check the driver, the image and CUDA_VISIBLE_DEVICES")
    if wanted in ("auto", "gpu"):
        return max(1, gpus)
    number = _number(environment, "PET_NPROC_PER_NODE", 1)
    if gpus and number > gpus:
        raise SetupError(f"{number} processes were asked for (PET_NPROC_PER_NODE), but PyTorch sees {gpus} GPUs; each needs one of its own")
    return number


def _visible_gpus() -> int:
    # Takes seconds: not at the top of the module.
    import torch

    return torch.cuda.device_count()


def _number(environment: Mapping[str, str], name: str, default: int) -> int:
    value = (environment.get(name) or str(default)).strip()
    if name == "PET_NNODES":
        # least:most, of equal numbers here: others are an elastic training.
        value = value.partition(":")[0]
    with contextlib.suppress(ValueError):
        if int(value) >= (1 if name != "PET_NODE_RANK" else 0):
            return int(value)
    raise UsageError(f"{name} is {value!r}, which is no number that makes sense there; correct it")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


if __name__ == "__main__":
    sys.exit(main())
