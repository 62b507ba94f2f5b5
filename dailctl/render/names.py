"""What a run and its objects are called on a cluster, and by which labels they are found (charts/dail-run/templates/_labels.tpl).

Names carry the job's digest: the same job, the same names.
"""

from __future__ import annotations

import hashlib

TASK_NAME = 51
"""Most characters of a task's object name. An operator's pod is called after it with a suffix as long as `-worker-1023`, and pods
and their Services may have 63 (a DNS label, RFC 1123)."""
RUN_DIGEST = 8
JOB_LABEL, RUN_LABEL, TASK_LABEL = "dail.dev/job", "dail.dev/run", "dail.dev/task"
COMPONENT_LABEL, STAGE_LABEL = "app.kubernetes.io/component", "dail.dev/stage"
_LEAST_RUN = 12
_HASH = 6


def run_name(job_name: str, job_digest: str) -> str:
    """Name of a run: the job's name (at most 40 characters) and the first 8 digits of the saved job's digest."""
    return f"{_lettered(job_name)}-{job_digest[:RUN_DIGEST]}"


def conductor_job(run: str) -> str:
    """Name of the Job in which a run's conductor works."""
    return f"{run}-conductor"


def conductor_of(run: str) -> str:
    """Selects the Job and the pods of a run's conductor."""
    return f"{RUN_LABEL}={run},{COMPONENT_LABEL}=conductor"


def tasks_of(run: str, slug: str | None = None) -> str:
    """Selects objects and pods of a run's tasks, or of the one task with this slug."""
    return f"{RUN_LABEL}={run},{TASK_LABEL}" + (f"={slug}" if slug is not None else "")


def task_slug(task: str) -> str:
    """A task's name as a label: `train/nll` becomes `train-nll`."""
    return task.replace("/", "-")


def task_object(job_name: str, job_digest: str, task: str) -> str:
    """Name of the objects of one task: `<run>-<slug>` where that has at most TASK_NAME characters.

    Longer ones lose characters of the job's name first (its digest keeps them apart), then the end of the slug, for which a
    digest of the whole slug stands.
    """
    job_name, digest, slug = _lettered(job_name), job_digest[:RUN_DIGEST], task_slug(task)
    room = TASK_NAME - len(digest) - 2
    if len(job_name) + len(slug) <= room:
        return f"{job_name}-{digest}-{slug}"
    least = min(len(job_name), _LEAST_RUN)
    if len(slug) > room - least:
        mark = hashlib.sha256(slug.encode()).hexdigest()[:_HASH]
        slug = f"{slug[: room - least - _HASH - 1].rstrip('-')}-{mark}"
    return f"{job_name[: room - len(slug)].rstrip('-')}-{digest}-{slug}"


def shortened(job_name: str, task: str) -> bool:
    """Whether `task_object` has to leave something out."""
    return len(_lettered(job_name)) + RUN_DIGEST + len(task_slug(task)) + 2 > TASK_NAME


def _lettered(job_name: str) -> str:
    """Services and PyTorchJobs must be called something that begins with a letter (a DNS label, RFC 1035)."""
    return f"run-{job_name}" if job_name[0].isdigit() else job_name
