"""What a submit consists of, worked out before anything is asked of a cluster."""

from __future__ import annotations

from dataclasses import dataclass

from dail_runtime.errors import ClusterError
from dail_runtime.spec import plan
from dailctl.kube.resources import Object
from dailctl.render.chart import task_objects
from dailctl.render.of_job import render_job
from dailctl.render.record import RunRecord, run_of_record, saved_job
from dailctl.runs import Run
from dailctl.staging import Upload, uploads_of


@dataclass(frozen=True)
class Submission:
    """One run, ready to go."""

    run: Run
    """As pods see it: every path in its job is an s3:// address."""
    record: RunRecord
    namespace: str
    objects: tuple[Object, ...]
    """What is applied, in this order; the record is the first, the conductor's Job the last."""
    stages: tuple[Object, ...]
    """What the conductor will create, task by task."""
    uploads: tuple[Upload, ...]
    """What has to be in the store before."""

    @property
    def name(self) -> str:
        """The run's name on the cluster."""
        return self.record.name


def compose(run: Run, namespace: str) -> Submission:
    """The submission of `run` (a job file's) to `namespace`. Reads local files, asks nobody, writes nothing.

    Raises:
        SpecError: the job cannot run on a cluster; the sentence says why.
        DataError, ModelError: a file it names is gone.
    """
    rendered = render_job(run.job, run.content, namespace)
    return Submission(
        run=Run(rendered.job, rendered.content, plan(rendered.job, rendered.content), run.root),
        record=rendered.run,
        namespace=namespace,
        objects=rendered.objects,
        stages=tuple(one for task in rendered.run.tasks for one in task_objects(rendered.objects[0], task)),
        uploads=tuple(uploads_of(rendered.inputs, run.content)),
    )


def compose_again(record: Object, namespace: str) -> tuple[Object, ...]:
    """What the run of a record has beside it (its conductor's Job last), made from the job that the record holds.

    Raises:
        ClusterError: the record holds no job, or this version of dail would call the run otherwise.
    """
    run = run_of_record(record["data"])
    made, *others = render_job(*saved_job(record["data"]), namespace).objects
    if made["metadata"]["name"] != run.name:
        raise ClusterError(
            f"run {run.name} was made by dail {run.dail_version}, which this version cannot go on with; submit its job again"
        )
    return tuple(others)
