"""Options that several verbs share, so that they read the same everywhere."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dailctl import output

STORE = "./runs"


def complete_names(incomplete: str) -> list[str]:
    """Names of the runs below ./runs that begin with `incomplete`, for the shell."""
    from dailctl.runs import run_names

    try:
        return [name for name in run_names(STORE) if name.startswith(incomplete)]
    except Exception:
        # A completion that fails must not write into the line the user is typing.
        return []


Name = Annotated[
    str | None,
    typer.Argument(metavar="[NAME]", help="Name of a run below --store, or of a run or job on the cluster.", autocompletion=complete_names),
]
Job = Annotated[Path | None, typer.Option("-f", "--file", metavar="JOB", help="The job file; ./job.yaml where left out.")]
Overrides = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override a field of spec, as train.epochs=3. May be repeated.")
]
JobFile = Annotated[
    Path | None, typer.Option("-f", "--file", metavar="JOB", help="The run of this job file; ./job.yaml where no run is named.")
]
Storage = Annotated[
    str,
    typer.Option("--store", metavar="URI", envvar="DAIL_STORE", help="Where runs given by NAME are kept: a folder or s3://bucket/prefix."),
]
Output = Annotated[output.Form | None, typer.Option("-o", "--output", help="Another form of output.")]
DocumentOutput = Annotated[output.Document | None, typer.Option("-o", "--output", help="Machine-readable output.")]
Namespace = Annotated[
    str | None, typer.Option("-n", "--namespace", metavar="NAMESPACE", help="Namespace; else the job's, else the context's.")
]
Context = Annotated[str | None, typer.Option("--context", metavar="NAME", help="Context of the kubeconfig; else the current one.")]
Kubeconfig = Annotated[
    Path | None, typer.Option("--kubeconfig", metavar="FILE", help="The kubeconfig; else KUBECONFIG, else ~/.kube/config.")
]
RunName = Annotated[str | None, typer.Argument(metavar="[NAME]", help="The run, or its job; else the run of -f.")]
RunFile = Annotated[
    Path | None, typer.Option("-f", "--file", metavar="JOB", help="The run of this job file; ./job.yaml where no run is named.")
]
Everywhere = Annotated[bool, typer.Option("-A", "--all-namespaces", help="In all namespaces.")]
Selector = Annotated[str, typer.Option("-l", "--selector", metavar="LABELS", help="Only runs with these labels: team=nlp,dail.dev/job=x.")]
Wait = Annotated[bool, typer.Option("--wait/--no-wait", help="Wait until no pod of the run's tasks is left.")]
Timeout = Annotated[float, typer.Option("--timeout", metavar="SECONDS", min=0.0, help="How long to wait.")]
