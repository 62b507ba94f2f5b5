"""What finished tasks measured: the source of every rate and length an estimate uses. Reads a run's store, nothing else."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from dail_runtime.errors import IntegrityError
from dail_runtime.spec import Task, plan
from dail_runtime.stages.jobs import load_saved_job, saved_jobs
from dail_runtime.stages.usage import Usage, read_usage
from dail_runtime.store import Manifest, Store, read_manifest

READERS = 16


@dataclass(frozen=True)
class Fact:
    """One finished task."""

    run: str
    """Name of the run it belongs to."""
    model: str
    """The job's model.id."""
    task: Task
    """The task with the settings it ran under."""
    manifest: Manifest
    """Its counts and times."""
    usage: Usage | None
    """What it held of a cluster; None: it ran on one machine."""

    @property
    def where(self) -> str:
        """`NAME rewrite/base`, for people."""
        return f"{self.run} {self.task.name}"

    @property
    def tokens(self) -> int:
        """Tokens generated, or response tokens learned from in all epochs; 0 where it did neither."""
        count: int = self.manifest.counts.get("tokens", 0)
        return round(count * self.task.settings.train.total_epochs()) if self.task.stage == "train" else count

    @property
    def stored(self) -> int:
        """Bytes of its result."""
        return sum(one.size for one in self.manifest.objects)


def facts_of(run: Store, name: str) -> list[Fact]:
    """Every finished task of every job that was saved at the run's root, newest first.

    Costs two small reads a task and never lists results: a rewrite of 10,000 problems is as fast as one of ten. A job of
    another version of dail is passed over: it can still be resumed there, but means nothing here.
    """
    found: dict[str, tuple[str, Task]] = {}
    for digest in saved_jobs(run):
        try:
            job, content = load_saved_job(run, digest)
        except IntegrityError:
            continue
        for task in plan(job, content):
            found.setdefault(task.prefix, (job.spec.model.id, task))

    def read(one: tuple[str, Task]) -> Fact | None:
        out = run.at(one[1].prefix)
        manifest = read_manifest(out)
        return None if manifest is None else Fact(name, *one, manifest, read_usage(out))

    with ThreadPoolExecutor(READERS) as pool:
        facts = [fact for fact in pool.map(read, found.values()) if fact is not None]
    return sorted(facts, key=lambda fact: fact.manifest.finished, reverse=True)


def finished_tasks(facts: Iterable[Fact]) -> dict[str, Fact]:
    """Prefix -> fact: a task of a new plan under one of these is done already."""
    return {fact.task.prefix: fact for fact in facts}
