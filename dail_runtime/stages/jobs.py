"""What a run's root says about itself: saved jobs and the state of each task. Needs no torch."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from dail_runtime.errors import IntegrityError, UsageError
from dail_runtime.spec.job import DailJob
from dail_runtime.spec.plan import Task
from dail_runtime.store import Store, digest_of, read_manifest

ATTEMPTS = "_attempts/"
"""Below a task's prefix; keys that start with '_' are about the task and never part of its result."""

LATEST = "latest.json"
JOBS = "jobs/"


class ProgressNow(BaseModel):
    """How far a task is."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    done: float = 0
    total: float = 0
    unit: str = ""
    figures: dict[str, float] = Field(default_factory=dict)


class Attempt(BaseModel):
    """One start of a task. Attempts are numbered from 1 and never overwritten by later ones."""

    model_config = ConfigDict(extra="forbid")

    number: int
    started: datetime
    seconds: float = 0.0
    """Wall time until the last update; a killed attempt keeps what it last wrote."""
    state: Literal["running", "done", "interrupted", "failed"] = "running"
    progress: ProgressNow = ProgressNow()
    notes: list[str] = Field(default_factory=list)
    """Sentences the stage said."""
    error: str | None = None
    """Why it failed."""
    exit_code: int | None = None


class TaskState(BaseModel):
    """A task as its prefix in the store tells it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    task: str
    state: Literal["done", "running", "interrupted", "failed", "absent"]
    """`running` is the last word of an attempt that was killed, too: look at `updated`."""
    attempts: int
    seconds: float
    started: datetime | None = None
    updated: datetime | None = None
    progress: ProgressNow = ProgressNow()
    error: str | None = None
    counts: dict[str, Any] = Field(default_factory=dict)


def job_record(job: DailJob, content: Mapping[str, str]) -> tuple[str, str]:
    """The digest of a saved job (16 hex), and its text."""
    record = {"job": job.model_dump(mode="json"), "content": dict(content)}
    return digest_of(record)[:16], json.dumps(record, indent=1, ensure_ascii=False)


def save_job(run: Store, job: DailJob, content: Mapping[str, str]) -> str:
    """Keep the resolved job and the digests of its outside inputs; returns the digest (16 hex) a stage process is given."""
    digest, text = job_record(job, content)
    run.create(f"{JOBS}{digest}.json", text.encode())
    run.put(LATEST, json.dumps({"job": digest, "saved": datetime.now(UTC).isoformat()}).encode())
    return digest


def load_saved_job(run: Store, digest: str | None = None) -> tuple[DailJob, dict[str, str]]:
    """The job that `save_job` kept; None asks for the latest.

    Raises:
        UsageError: no such job was saved here.
        IntegrityError: what is stored is not a job, or was written by another version of dail.
    """
    try:
        if digest is None:
            digest = str(json.loads(run.get(LATEST))["job"])
        record = json.loads(run.get(f"{JOBS}{digest}.json"))
        return DailJob.model_validate(record["job"]), record["content"]
    except KeyError:
        raise UsageError(
            f"no run was started at {run.uri}; check the name and the storage, or start it with dailctl run -f JOB.yaml"
        ) from None
    except (ValidationError, ValueError) as err:
        what = f"{run.uri}/{JOBS}{digest}.json is not a job of this version of dail ({str(err).splitlines()[0]})"
        raise IntegrityError(f"{what}; start the run again from its job file") from None


def saved_jobs(run: Store) -> list[str]:
    """Digests of all jobs that were saved at the run's root."""
    return [info.key.removeprefix(JOBS).removesuffix(".json") for info in run.list(JOBS) if info.key.endswith(".json")]


def attempts_of(out: Store) -> list[Attempt]:
    """The attempts recorded below a task's prefix, oldest first.

    Raises:
        IntegrityError: one cannot be read.
    """
    return sorted((_attempt(out, info.key) for info in out.list(ATTEMPTS)), key=lambda attempt: attempt.number)


def _attempt(out: Store, key: str) -> Attempt:
    try:
        return Attempt.model_validate_json(out.get(key))
    except ValidationError as err:
        first = err.errors()[0]
        what = f"{'.'.join(map(str, first['loc'])) or 'the whole'}: {first['msg']}"
        raise IntegrityError(f"{out.uri}/{key} is no attempt that this version of dail can read ({what}); remove that object") from None


def task_state(run: Store, task: Task) -> TaskState:
    """What the store knows of `task`."""
    out = run.at(task.prefix)
    attempts = attempts_of(out)
    last = attempts[-1] if attempts else None
    common: dict[str, Any] = {
        "task": task.name,
        "attempts": len(attempts),
        "started": attempts[0].started if attempts else None,
        "progress": last.progress if last else ProgressNow(),
    }
    manifest = read_manifest(out)
    if manifest is not None:
        return TaskState(**common, state="done", seconds=manifest.seconds, updated=manifest.finished, counts=manifest.counts)
    if last is None:
        return TaskState(**common, state="absent", seconds=0.0)
    updated = datetime.fromtimestamp(last.started.timestamp() + last.seconds, UTC)
    state = "failed" if last.state == "failed" else "interrupted" if last.state == "interrupted" else "running"
    return TaskState(**common, state=state, seconds=sum(a.seconds for a in attempts), updated=updated, error=last.error)
