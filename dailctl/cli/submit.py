"""`dailctl submit`: the job as a run on a Kubernetes cluster."""

from __future__ import annotations

import sys
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from dailctl import output
from dailctl.cli.options import Context, Job, Kubeconfig, Namespace, Overrides

if TYPE_CHECKING:
    from dailctl.conductor.status import RunStatus
    from dailctl.kube import Client
    from dailctl.submit.compose import Submission


class DryRun(StrEnum):
    """Values of --dry-run."""

    CLIENT = "client"
    SERVER = "server"


def submit(
    file: Job = None,
    overrides: Overrides = None,
    dry: Annotated[
        DryRun | None,
        typer.Option("--dry-run", help="client: only say what would be applied; server: have the API server check it. Nothing is changed."),
    ] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Follow the run to its end, and end with its exit code.")] = False,
    yes: Annotated[bool, typer.Option("-y", "--yes", help="Do not ask.")] = False,
    any_nodes: Annotated[
        bool, typer.Option("--any-nodes", help="Submit even though no node fits now: for clusters that add nodes on demand.")
    ] = False,
    namespace: Namespace = None,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """Run a job on a Kubernetes cluster.

    The job is checked, the cluster is looked at, and the plan is told before anything is written. Submitting the same job again
    changes nothing (with --wait it follows the run); one that failed or was cancelled goes on where it was.
    """
    from dail_runtime.errors import UsageError
    from dailctl.checks import check_data
    from dailctl.cli.plan import told
    from dailctl.estimate.of_run import estimate_of
    from dailctl.kube import Client, load_access
    from dailctl.runs import run_of_file, the_job_file
    from dailctl.submit.apply import apply_run, dry_run, status_of
    from dailctl.submit.compose import compose

    run = run_of_file(file if file is not None else the_job_file(), overrides or ())
    namespace = namespace or run.job.spec.cluster.namespace
    if dry is DryRun.CLIENT:
        check_data(run)
        _tell_client(compose(run, namespace or "default"))
        return
    client = Client(load_access(kubeconfig, context, namespace))
    submission = compose(run, client.namespace)
    status = status_of(client, submission)
    if status is None or dry is not None:
        check_data(run)
        _preflight(client, submission, any_nodes=any_nodes)
    if dry is DryRun.SERVER:
        output.data("".join(f"{one}\n" for one in dry_run(client, submission)))
        return
    if status is None or (status.ended and status.state != "done"):
        output.talk(f"run {submission.name} in namespace {client.namespace}, {len(submission.objects)} objects and those of its tasks:")
        output.talk(told(estimate_of(run, {}, {}, cluster=True)).rstrip("\n"))
        if not yes and not _confirmed():
            raise UsageError("nothing was submitted")
    _upload(submission)
    for one in apply_run(client, submission, status):
        output.data(str(one))
    if wait:
        generation = 0 if status is None or not status.ended or status.state == "done" else status.generation + 1
        _follow(client, submission, generation)
    else:
        _tell_next(submission, status)


def _preflight(client: Client, submission: Submission, *, any_nodes: bool) -> None:
    """Warn of what may go wrong; raise, with a line for each reason, where something surely would."""
    from dail_runtime.errors import ClusterError
    from dailctl.errors import Refused
    from dailctl.preflight import check_cluster, check_storage

    findings = check_cluster(client, submission.objects, submission.stages, nodes=not any_nodes)
    findings += check_storage(submission.run.root, submission.run.job.spec.storage)
    for finding in findings:
        if not finding.final:
            output.warn(finding.sentence)
    against = [finding for finding in findings if finding.final]
    if against:
        codes = {finding.exit_code for finding in against}
        lines = dict.fromkeys(finding.sentence for finding in against)
        raise Refused("\n".join(lines), codes.pop() if len(codes) == 1 else ClusterError.exit_code)


def _confirmed() -> bool:
    from dail_runtime.errors import UsageError

    if not sys.stdin.isatty():
        raise UsageError("submit asks before it starts a run, and there is no terminal to ask on; say --yes")
    return typer.confirm("Submit?", default=True, err=True)


def _upload(submission: Submission) -> None:
    from dailctl.staging import missing, upload

    root = submission.run.root
    upload(root, missing(root, submission.uploads), lambda one: output.talk(f"uploading {one.path} ({output.size(one.size)})"))


def _tell_client(submission: Submission) -> None:
    from dailctl.kube.resources import shown

    output.data("".join(f"{shown(one)} created (dry run)\n" for one in submission.objects))
    output.talk("dailctl render writes the objects themselves; dailctl plan says what the run would take")


def _tell_next(submission: Submission, status: RunStatus | None) -> None:
    if status is not None and status.state == "done":
        output.talk(f"run {submission.name} is done; {_report_command(submission)}")
        return
    output.talk(f"run {submission.name} goes on by itself; see it with dailctl get {submission.name}, or submit again with --wait")


def _report_command(submission: Submission) -> str:
    return f"its report: dailctl report {submission.run.name} --store {submission.run.job.spec.storage.uri}"


def _follow(client: Client, submission: Submission, generation: int) -> None:
    from dailctl.errors import StageFailed, Stopped
    from dailctl.progress import view_for_stderr
    from dailctl.submit.follow import follow
    from dailctl.summary import local_report, read_report, summary

    try:
        with view_for_stderr() as view:
            status = follow(client, submission.record, view, generation=generation)
    except KeyboardInterrupt:
        raise Stopped(
            f"no longer followed; run {submission.name} goes on by itself: see it with dailctl get {submission.name}", 2
        ) from None
    if status.state == "done":
        output.data(summary(read_report(submission.run), local_report(submission.run)))
        output.talk(_report_command(submission))
        return
    raise StageFailed(str(status.message or status.state), status.exit_code or 1)
