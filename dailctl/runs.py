"""A run as dailctl sees it: a resolved job, its plan and the root of its store; found by job file or by name."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from dail_runtime.errors import UsageError
from dail_runtime.spec import DailJob, Task, plan
from dail_runtime.spec.content import content_of
from dail_runtime.spec.job import NAME
from dail_runtime.spec.load import load_job, resolve_paths
from dail_runtime.stages.jobs import LATEST, TaskState, load_saved_job, task_state
from dail_runtime.store import Store, open_store

DEFAULT_JOB = Path("job.yaml")
DEFAULT_STORE = "./runs"


@dataclass(frozen=True)
class Run:
    """What is to be done, and where."""

    job: DailJob
    """The resolved job."""
    content: Mapping[str, str]
    """Digests of its outside inputs."""
    tasks: tuple[Task, ...]
    """The plan, in order."""
    root: Store
    """The run's root: `<storage.uri>/<metadata.name>`."""

    @property
    def name(self) -> str:
        """The job's name."""
        return self.job.metadata.name

    def task(self, stage: str) -> Task:
        """The plan's one task of a stage that has one (`prepare`, `report`)."""
        return next(task for task in self.tasks if task.stage == stage)

    def states(self) -> list[TaskState]:
        """The state of every task, in the plan's order; asked for in parallel, because a distant store answers slowly."""
        with ThreadPoolExecutor(8) as pool:
            return list(pool.map(lambda task: task_state(self.root, task), self.tasks))


def run_of_file(path: Path, overrides: Sequence[str] = ()) -> Run:
    """The run that a job file describes. Nothing is written.

    Raises:
        SpecError, DataError, ModelError, StoreError: the file, or what it names, is wrong.
    """
    job = resolve_paths(load_job(path, overrides), path.absolute().parent)
    return _assemble(job, content_of(job), _root(job))


def run_of_name(name: str, storage: str) -> Run:
    """The run called `name` below `storage`, as its last `dailctl run` resolved it.

    Raises:
        UsageError: no such run.
    """
    if not re.fullmatch(NAME, name):
        raise UsageError(f"{name!r} is no name of a run; names hold lower-case letters, digits and '-' (a job file is given with -f)")
    root = open_store(storage).at(name)
    job, content = load_saved_job(root)
    return _assemble(job, content, root)


def find_run(name: str | None, file: Path | None, storage: str) -> Run:
    """The run that a verb's NAME or -f names; with neither, that of ./job.yaml.

    It is shown as it was last started: the job file may have been edited since, and `--set` is not in it.

    Raises:
        UsageError: both or none of them.
    """
    if name is not None and file is not None:
        raise UsageError(f"both the run {name!r} and the job file {file} are given; give one of them")
    if name is not None:
        return run_of_name(name, storage)
    path = file if file is not None else the_job_file()
    job = resolve_paths(load_job(path), path.absolute().parent)
    root = _root(job)
    if root.head(LATEST) is None:
        return _assemble(job, content_of(job), root)
    return _assemble(*load_saved_job(root), root)


def the_job_file() -> Path:
    """./job.yaml, where it exists."""
    if not DEFAULT_JOB.is_file():
        raise UsageError(f"no job is named and there is no {DEFAULT_JOB} here; name one with -f, or write one with dailctl init")
    return DEFAULT_JOB


def run_names(storage: str) -> list[str]:
    """Names of the runs below `storage`, sorted."""
    store = open_store(storage)
    folder = local_path(store)
    if folder is not None:
        return sorted(entry.parent.name for entry in folder.glob(f"*/{LATEST}"))
    return sorted(info.key.split("/")[0] for info in store.list() if info.key.count("/") == 1 and info.key.endswith(f"/{LATEST}"))


def local_path(store: Store) -> Path | None:
    """The folder of a file store; None for any other."""
    parts = urlsplit(store.uri)
    return Path(unquote(parts.path)) if parts.scheme == "file" else None


def store_environment(job: DailJob) -> dict[str, str]:
    """What a stage process needs in its environment to open the same store (it is given the address alone)."""
    found = {"AWS_ENDPOINT_URL_S3": job.spec.storage.endpoint, "AWS_REGION": job.spec.storage.region}
    return {name: value for name, value in found.items() if value is not None}


def _root(job: DailJob) -> Store:
    storage = job.spec.storage
    return open_store(storage.uri, endpoint=storage.endpoint, region=storage.region).at(job.metadata.name)


def _assemble(job: DailJob, content: Mapping[str, str], root: Store) -> Run:
    return Run(job, content, plan(job, content), root)
