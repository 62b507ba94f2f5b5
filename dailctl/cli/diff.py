"""`dailctl diff`: what submitting a job would change on the cluster."""

from __future__ import annotations

from typing import Annotated

import typer

from dailctl import output
from dailctl.cli.options import Context, Job, Kubeconfig, Namespace, Overrides

DIFFERENT = 1
"""As git diff --exit-code and kubectl diff have it."""


def diff(
    file: Job = None,
    overrides: Overrides = None,
    code: Annotated[bool, typer.Option("--exit-code", help="End with 1 where something would change, as git diff does.")] = False,
    namespace: Namespace = None,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
) -> int:
    """Show what submitting a job would change on the cluster.

    A run that is there is compared object by object, by a dry run of the API server. A changed job is a new run: its settings are compared
    with those of the last run of its name.
    """
    from dailctl.kube import Client, load_access
    from dailctl.runs import run_of_file, the_job_file
    from dailctl.submit.compose import compose
    from dailctl.submit.differ import diff_run

    run = run_of_file(file if file is not None else the_job_file(), overrides or ())
    client = Client(load_access(kubeconfig, context, namespace or run.job.spec.cluster.namespace))
    found = diff_run(client, compose(run, client.namespace))
    if found.text:
        output.data(output.printable(found.text))
    output.talk(found.sentence)
    return DIFFERENT if code and found.text else 0
