"""`dailctl doctor`: whether a cluster is ready for runs."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from dailctl import output
from dailctl.cli.options import Context, DocumentOutput, Job, Kubeconfig, Namespace

if TYPE_CHECKING:
    from pathlib import Path

    from dailctl.submit.compose import Submission


def doctor(
    file: Job = None, form: DocumentOutput = None, namespace: Namespace = None, context: Context = None, kubeconfig: Kubeconfig = None
) -> None:
    """Check a cluster before the first submit, and say what is missing.

    With a job (-f, or ./job.yaml): also nodes for its pools, its queue, secrets and storage. Nothing is created; only storage is
    written to, and cleaned, to see whether it can be. Ends with 9 where something is missing.
    """
    from dail_runtime.errors import ClusterError
    from dailctl.observe.doctor import diagnose
    from dailctl.observe.model import CheckList
    from dailctl.observe.reach import file_meant, reach
    from dailctl.observe.tables import check_table

    path = file_meant(None, file)
    client = reach(kubeconfig, context, namespace, path)
    views = diagnose(client, _submission(path, client.namespace), real=path is not None)
    if form is not None:
        output.document(CheckList(items=tuple(views)).document(), form)
    else:
        output.data(check_table(views, width=output.width_of(sys.stdout)))
    if path is None:
        output.talk("give a job with -f to check its nodes, queue, secrets and storage, too")
    for view in views:
        if view.result in ("warning", "unknown"):
            output.warn(f"{view.name}: {view.detail}")
    failed = [view for view in views if view.result == "failed"]
    if failed:
        raise ClusterError("\n".join(f"{view.name}: {view.detail}" for view in failed))


def _submission(path: Path | None, namespace: str) -> Submission:
    from dailctl.observe.any_job import any_submission
    from dailctl.runs import run_of_file
    from dailctl.submit.compose import compose

    return compose(run_of_file(path), namespace) if path is not None else any_submission(namespace)
