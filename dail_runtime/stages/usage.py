"""What a task held of a cluster, kept beside its results: the actuals of reports, and the measured rates of later plans."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from dail_runtime.errors import IntegrityError
from dail_runtime.store import Store

USAGE = "_usage.json"
"""Below a task's prefix. The conductor writes it: a stage does not see the pods it runs in."""


class Usage(BaseModel):
    """Pods and GPUs of one task, over all its attempts."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    pods: int = Field(ge=0)
    """Most pods at once."""
    gpus: dict[str, int] = Field(default_factory=dict)
    """Extended resource (`nvidia.com/gpu`) -> most of it at once."""
    seconds: float = Field(default=0.0, ge=0)
    """Wall time in which the task had pods."""
    gpu_seconds: dict[str, float] = Field(default_factory=dict)
    """Extended resource -> number times seconds, from the pods' scheduling to their end."""


def read_usage(task: Store) -> Usage | None:
    """What the task whose prefix `task` is has held so far; None where it never ran on a cluster.

    Raises:
        IntegrityError: what is stored is no such record.
    """
    try:
        return Usage.model_validate_json(task.get(USAGE))
    except KeyError:
        return None
    except ValidationError as err:
        raise IntegrityError(f"{task.uri}/{USAGE} is not a record of usage ({err.error_count()} errors); delete it") from None


def add_usage(task: Store, more: Usage) -> Usage:
    """Add one attempt's usage to the task's; returns the sum. One writer at a time: the conductor that holds the run's Lease."""
    before = read_usage(task) or Usage(pods=0)
    total = Usage(
        pods=max(before.pods, more.pods),
        gpus={name: max(before.gpus.get(name, 0), more.gpus.get(name, 0)) for name in {**before.gpus, **more.gpus}},
        seconds=before.seconds + more.seconds,
        gpu_seconds={
            name: before.gpu_seconds.get(name, 0.0) + more.gpu_seconds.get(name, 0.0) for name in {**before.gpu_seconds, **more.gpu_seconds}
        },
    )
    task.put(USAGE, total.model_dump_json(indent=1).encode())
    return total
