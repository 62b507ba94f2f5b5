"""A run of this machine's store or of a cluster, for verbs that read results: report and fetch."""

from __future__ import annotations

from pathlib import Path

from dail_runtime.errors import ClusterError, TransientError, UsageError
from dail_runtime.spec import plan
from dail_runtime.stages.jobs import load_saved_job
from dail_runtime.store import open_store
from dailctl.observe.reach import reach
from dailctl.observe.runs import find_run as find_on_cluster
from dailctl.render.record import RunRecord
from dailctl.runs import Run, find_run


def find_anywhere(
    name: str | None, file: Path | None, storage: str, *, namespace: str | None, context: str | None, kubeconfig: Path | None
) -> Run:
    """The run that NAME or -f means: below --store; a NAME that is not there, or any of the cluster's options: on the cluster.

    A cluster's run is read as it was submitted, also when another job of its name was submitted since.

    Raises:
        UsageError: it is in neither.
        ClusterError, TransientError: the cluster that was asked for cannot be.
    """
    asked = namespace is not None or context is not None or kubeconfig is not None
    if name is None:
        return find_run(name, file, storage)
    if not asked:
        try:
            return find_run(name, file, storage)
        except UsageError as missing:
            if file is not None:
                raise
            try:
                return run_of(find_on_cluster(reach(None, None, None), name, None).record)
            except (ClusterError, TransientError):
                # No kubeconfig, no such rights, no answer: nothing was said about a cluster, so nothing is said of it.
                raise missing from None
            except UsageError as err:
                raise UsageError(f"{missing}; on the cluster, {err}") from None
    if file is not None:
        raise UsageError(f"both the run {name!r} and the job file {file} are given; give one of them")
    return run_of(find_on_cluster(reach(kubeconfig, context, namespace), name, None).record)


def run_of(record: RunRecord) -> Run:
    """The run whose record this is, with the job that was submitted then.

    Raises:
        StoreError, TransientError: this machine cannot read its store.
    """
    root = open_store(record.run_uri, endpoint=record.endpoint, region=record.region)
    job, content = load_saved_job(root, record.job_digest)
    return Run(job, content, plan(job, content), root)
