"""`dailctl gc`: what runs left behind on a cluster."""

from __future__ import annotations

import re
import sys
from datetime import timedelta
from typing import Annotated

import typer

from dailctl import output
from dailctl.cli.options import Context, DocumentOutput, Everywhere, Kubeconfig, Namespace

_DAYS = re.compile(r"(\d{1,5})([dhm])")


def gc(
    everywhere: Everywhere = False,
    older: Annotated[
        str | None, typer.Option("--older-than", metavar="AGE", help="Also records of runs that ended so long ago: 7d, 12h. Results stay.")
    ] = None,
    yes: Annotated[bool, typer.Option("-y", "--yes", help="Remove them. Without it they are only listed.")] = False,
    form: DocumentOutput = None,
    namespace: Namespace = None,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """List what runs left behind on a cluster: objects whose run is gone or has ended. --yes removes it.

    A run cleans up behind itself; something is left where its conductor was killed for good, or a record was removed without its
    objects. Nothing in a store is touched.
    """
    from dailctl.kube.client import ALL
    from dailctl.observe.leftovers import find_leftovers, remove
    from dailctl.observe.model import LeftoverList
    from dailctl.observe.reach import reach
    from dailctl.observe.tables import leftover_table

    age = _age(older) if older is not None else None
    client = reach(kubeconfig, context, namespace)
    found, hidden = find_leftovers(client, namespace=ALL if everywhere else None, older=age)
    if hidden:
        output.warn(f"you may not list {', '.join(hidden)} here; what is left of those is not known")
    views = [one.view for one in found]
    if form is not None:
        output.document(LeftoverList(items=tuple(views)).document(), form)
    elif views:
        output.data(leftover_table(views, namespaces=everywhere, width=output.width_of(sys.stdout)))
    else:
        output.talk("nothing is left behind")
    if views and not yes:
        output.talk(f"dailctl gc --yes{' -A' if everywhere else ''}{f' --older-than {older}' if older else ''} removes them")
        return
    for one in remove(client, found):
        output.talk(f"{one.name} deleted")


def _age(text: str) -> timedelta:
    from dail_runtime.errors import UsageError

    found = _DAYS.fullmatch(text)
    if found is None:
        raise UsageError(f"--older-than {text}: write a number and d, h or m, as 7d")
    return timedelta(**{{"d": "days", "h": "hours", "m": "minutes"}[found.group(2)]: int(found.group(1))})
