"""The run record's `run.json`: what the conductor and every verb know of a run without its store."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic.alias_generators import to_camel

from dail_runtime.errors import ClusterError
from dail_runtime.spec import DailJob
from dailctl.render.names import COMPONENT_LABEL

RUN = "run.json"
SAVED_JOB = "job.json"
JOB = "job.yaml"

Component = Literal["job", "servers", "pytorchjob"]
"""What a task's manifests hold. `job`: one batch/v1 Job; `servers`: a Deployment of model servers, their Service and
PodDisruptionBudget, and the Job that drives them; `pytorchjob`: a kubeflow.org/v1 PyTorchJob."""
PoolName = Literal["rewrite", "train", "control"]


class _Record(BaseModel):
    # Unknown fields are kept out of a record's meaning, not refused: an older dailctl reads the record of a newer one.
    model_config = ConfigDict(
        frozen=True,
        extra="ignore",
        alias_generator=to_camel,
        validate_by_name=True,
        validate_by_alias=True,
        serialize_by_alias=True,
        use_attribute_docstrings=True,
    )


class TaskRecord(_Record):
    """One task of the plan, and where its objects are described."""

    name: str
    """Name in the plan: `train/nll`."""
    slug: str
    """Value of the label dail.dev/task: `train-nll`."""
    stage: str
    """One of dail_runtime.spec.STAGES."""
    component: Component
    """What its manifests hold."""
    object: str
    """Name of all its objects; the same in every attempt."""
    manifests: str
    """Key of the record with its objects as multi-document YAML."""
    pool: PoolName
    """Pool of the workload (of the Job or PyTorchJob; servers are always on `rewrite`)."""
    replicas: int = 0
    """Model servers."""
    workers: int = 0
    """Training pods, master included."""
    attempts: int = 4
    """How often its workload may start, faults that may pass included."""
    reason: str | None = None
    """Why `object` is not simply `<run>-<slug>`."""


class RunRecord(_Record):
    """A run."""

    name: str
    """The run: name of the record and value of the label dail.dev/run."""
    job: str
    """`metadata.name` of the job."""
    run_uri: str
    """Root of its store."""
    endpoint: str | None = None
    """S3 endpoint; null: AWS."""
    region: str | None = None
    """S3 region; null: what the environment says."""
    job_digest: str
    """Name of the saved job below the root's jobs/."""
    dail_version: str
    """Version that rendered it."""
    tasks: tuple[TaskRecord, ...]
    """The plan, in order."""

    def task(self, name: str) -> TaskRecord:
        """The task of that name; KeyError where there is none."""
        for task in self.tasks:
            if task.name == name:
                return task
        raise KeyError(name)


def is_record(obj: Mapping[str, Any]) -> bool:
    """Whether a ConfigMap is a run's record, even one that somebody has spoiled."""
    return RUN in (obj.get("data") or {}) or (obj["metadata"].get("labels") or {}).get(COMPONENT_LABEL) == "record"


def run_of_record(data: dict[str, str]) -> RunRecord:
    """The run that a record's `data` describes.

    Raises:
        ClusterError: it is no record, or of another version of dail.
    """
    try:
        return RunRecord.model_validate_json(data[RUN])
    except KeyError:
        raise ClusterError(f"the ConfigMap has no {RUN}, so it is no record of a run; submit the job again, or check the name") from None
    except ValidationError as err:
        first = err.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the whole"
        what = f"{RUN} of the record cannot be read ({where}: {first['msg']})"
        raise ClusterError(f"{what}; use the version of dail that wrote it, or submit the job again") from None


def saved_job(data: Mapping[str, str]) -> tuple[DailJob, dict[str, str]]:
    """`job.json` of a record: the job and the digests of its outside inputs, as the store's jobs/<digest>.json holds them.

    Raises:
        ClusterError: it is not there, or no job of this version of dail.
    """
    try:
        found = json.loads(data[SAVED_JOB])
        return DailJob.model_validate(found["job"]), dict(found["content"])
    except (KeyError, TypeError, ValueError) as err:
        what = f"{SAVED_JOB} of the record is no job of this version of dail ({str(err).splitlines()[0]})"
        raise ClusterError(f"{what}; submit the job again") from None
