"""`dailctl fetch`: the results of a run as files."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from dailctl import output
from dailctl.cli.options import STORE, Context, JobFile, Kubeconfig, Name, Namespace, Storage


class What(StrEnum):
    """What can be fetched."""

    ADAPTER = "adapter"
    MODEL = "model"
    REPORT = "report"
    TRACES = "traces"
    ALL = "all"


def fetch(
    name: Name = None,
    file: JobFile = None,
    store: Storage = STORE,
    what: Annotated[list[What] | None, typer.Option("--what", help="May be repeated; adapter and report where left out.")] = None,
    variant: Annotated[list[str] | None, typer.Option("--variant", metavar="NAME", help="Only this variant; may be repeated.")] = None,
    to: Annotated[Path | None, typer.Option("--to", metavar="FOLDER", help="Where to; ./NAME where left out.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace files that have other content.")] = False,
    namespace: Namespace = None,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """Download adapters, models, traces, the report.

    Every file is checked against its sha256 and appears whole or not at all; run it again to go on after a stop.
    """
    from dailctl.download import download, wanted_files
    from dailctl.observe.anywhere import find_anywhere

    run = find_anywhere(name, file, store, namespace=namespace, context=context, kubeconfig=kubeconfig)
    chosen = {one.value for one in what or (What.ADAPTER, What.REPORT)}
    if What.ALL in chosen:
        chosen = {one.value for one in What if one is not What.ALL}
    files = wanted_files(run, chosen, variant or [])
    folder = to if to is not None else Path(run.name)
    fetched, kept = download(files, folder, force=force)
    output.data("".join(f"{folder / one.path}\n" for one in files))
    output.talk(f"fetched {fetched} files ({output.size(sum(one.size for one in files))} in all), {kept} were there already")
