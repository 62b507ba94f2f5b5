"""`dailctl report`: the result of a run."""

from __future__ import annotations

from typing import Annotated

import typer

from dailctl import output
from dailctl.cli.options import STORE, Context, JobFile, Kubeconfig, Name, Namespace, Output, Storage


def report(
    name: Name = None,
    file: JobFile = None,
    store: Storage = STORE,
    show: Annotated[bool, typer.Option("--open", help="Open report.html in the browser.")] = False,
    form: Output = None,
    namespace: Namespace = None,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """Print the tables, the verdict and where the report is.

    A report in a bucket is fetched first. -o json|yaml prints report.json, -o wide all k of pass@k, -o name the path alone.
    """
    from dailctl.observe.anywhere import find_anywhere
    from dailctl.summary import local_report, read_report, summary

    run = find_anywhere(name, file, store, namespace=namespace, context=context, kubeconfig=kubeconfig)
    found = read_report(run)
    path = local_report(run)
    match form:
        case output.Form.JSON | output.Form.YAML:
            output.document(found, form)
        case output.Form.NAME:
            output.data(str(path))
        case _:
            output.data(summary(found, path, every_k=form is output.Form.WIDE))
    if show:
        import webbrowser

        if not webbrowser.open(path.as_uri()):
            output.warn(f"no browser could be started; open {path} yourself")
