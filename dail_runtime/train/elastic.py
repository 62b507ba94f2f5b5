"""Training on a number of machines that may change: torchrun's own agent starts and restarts the ranks, which go on from a checkpoint."""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from dail_runtime.errors import Interrupted, TransientError, UsageError

PORT = 29400
"""Where machines meet, unless the endpoint says otherwise (torchrun's default)."""


@dataclass(frozen=True)
class Elastic:
    """What Kubeflow's elasticPolicy sets: PET_NNODES=least:most, PET_RDZV_ENDPOINT and the like."""

    least: int
    """Machines without which the ranks wait."""
    most: int
    """Machines that take part at most."""
    per_node: int
    """Processes on each."""
    endpoint: str
    """host:port of the machine that the others meet at."""
    run_id: str
    """Name of the meeting."""
    restarts: int
    """How often ranks are started again after a failure."""


def elastic_of(environment: Mapping[str, str], per_node: int) -> Elastic | None:
    """The elastic training that the environment describes; None where the number of machines is fixed.

    Raises:
        UsageError: a variable makes no sense, or the place to meet is missing.
    """
    least, _, most = environment.get("PET_NNODES", "1").partition(":")
    endpoint = environment.get("PET_RDZV_ENDPOINT", "")
    # Equal numbers with a place to meet are workers without a master: nobody has told them their ranks.
    if not most or (least == most and not endpoint):
        return None
    if not endpoint:
        raise UsageError(f"PET_NNODES is {least}:{most}, but PET_RDZV_ENDPOINT does not say where the machines meet; set it to HOST:PORT")
    try:
        low, high, restarts = int(least), int(most), int(environment.get("PET_MAX_RESTARTS") or 3)
    except ValueError:
        raise UsageError(
            f"PET_NNODES is {least}:{most} and PET_MAX_RESTARTS {environment.get('PET_MAX_RESTARTS')!r}; give numbers"
        ) from None
    if not 1 <= low <= high or restarts < 0:
        raise UsageError(f"PET_NNODES is {least}:{most}: the first number must not be above the second, and both at least 1")
    return Elastic(low, high, per_node, endpoint, environment.get("PET_RDZV_ID") or "dail", restarts)


def run_elastic(command: Sequence[str], elastic: Elastic, *, grace: float) -> int:
    """Run `command` in the ranks of this machine, started anew whenever machines come or go; returns the exit code.

    That of the rank that failed first once no restart is left, 128 + N where it was killed by signal N; 143 after SIGTERM.
    """
    # Every meeting gets a store of its own, served by its rank 0: what an earlier one left there must not be taken for news.
    os.environ["TORCH_DISABLE_SHARE_RDZV_TCP_STORE"] = "1"
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.elastic.rendezvous.api import RendezvousError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    with tempfile.TemporaryDirectory(prefix="dail-elastic-") as folder:
        config = LaunchConfig(
            min_nodes=elastic.least,
            max_nodes=elastic.most,
            nproc_per_node=elastic.per_node,
            run_id=elastic.run_id,
            rdzv_backend="c10d",
            rdzv_endpoint=elastic.endpoint if ":" in elastic.endpoint else f"{elastic.endpoint}:{PORT}",
            max_restarts=elastic.restarts,
            shutdown_timeout=int(grace),
            logs_specs=DefaultLogsSpecs(log_dir=folder),
        )
        try:
            elastic_launch(config, command[0])(*command[1:])
        except ChildFailedError as err:
            code = err.get_first_failure()[1].exitcode
            return code if code >= 0 else 128 - code
        except SignalException:
            return Interrupted.exit_code
        except RendezvousError as err:
            _say(TransientError(f"the machines did not meet at {elastic.endpoint} ({err})"))
            return TransientError.exit_code
    return 0


def _say(error: TransientError) -> None:
    print(
        json.dumps({"event": "error", "kind": type(error).__name__, "message": str(error), "exit": error.exit_code}),
        file=sys.stdout,
        flush=True,
    )
