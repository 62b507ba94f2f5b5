"""The cluster that a verb talks to: from --kubeconfig, --context and -n, else from what the job file says."""

from __future__ import annotations

from pathlib import Path

from dailctl.kube import Client, load_access
from dailctl.observe.runs import Held, find_run


def reach(kubeconfig: Path | None, context: str | None, namespace: str | None, file: Path | None = None) -> Client:
    """A client for the cluster; its namespace is -n, else that of the job `file`, else the context's.

    Raises:
        ClusterError: there is no usable kubeconfig.
        SpecError: the job file is wrong.
    """
    if namespace is None and file is not None:
        from dail_runtime.spec.load import load_job

        namespace = load_job(file).spec.cluster.namespace
    return Client(load_access(kubeconfig, context, namespace))


def run_meant(
    name: str | None, file: Path | None, kubeconfig: Path | None, context: str | None, namespace: str | None, *, acting: bool = False
) -> tuple[Client, Held]:
    """The cluster, and the run on it that a verb is about. `acting`: see find_run.

    Raises:
        DailError: what `reach` and `find_run` raise.
    """
    client = reach(kubeconfig, context, namespace, file_meant(name, file))
    return client, find_run(client, name, file, acting=acting)


def file_meant(name: str | None, file: Path | None) -> Path | None:
    """The job file that says which run is meant: -f, else ./job.yaml where no run is named; None where one is."""
    from dailctl.runs import DEFAULT_JOB

    return file if file is not None or name is not None or not DEFAULT_JOB.is_file() else DEFAULT_JOB
