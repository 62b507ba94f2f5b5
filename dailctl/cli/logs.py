"""`dailctl logs`: what the processes of a run say."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated

import typer

from dailctl import output
from dailctl.cli.options import Context, Kubeconfig, Namespace, RunName

_SPAN = re.compile(r"(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?")


def logs(
    name: RunName = None,
    file: Annotated[Path | None, typer.Option("--file", metavar="JOB", help="The run of this job file.")] = None,
    follow: Annotated[bool, typer.Option("-f", "--follow", help="Go on as the run does, to its end (or that of --stage).")] = False,
    stage: Annotated[
        str | None,
        typer.Option("--stage", metavar="STAGE", help="This stage or task (train, train/nll), or conductor; else the one at work."),
    ] = None,
    replica: Annotated[
        str | None,
        typer.Option("--replica", metavar="N|POD|all", help="This model server or rank, pod, or all; else the stage's own process."),
    ] = None,
    previous: Annotated[bool, typer.Option("-p", "--previous", help="Of the container or attempt before.")] = False,
    attempt: Annotated[int | None, typer.Option("--attempt", metavar="N", min=1, help="Of this attempt, from the archive.")] = None,
    since: Annotated[
        str | None, typer.Option("--since", metavar="TIME", help="From 5m, 1h30m, 2d ago on, or from an RFC 3339 time on.")
    ] = None,
    tail: Annotated[int | None, typer.Option("--tail", metavar="N", min=0, help="Only so many last lines.")] = None,
    raw: Annotated[bool, typer.Option("--raw", help="Every line as the process wrote it, events as JSON, control characters too.")] = False,
    namespace: Namespace = None,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """Print the log of a run's task: of its pod while it is there, else from the archive in the run's store.

    With -f it waits until there is one (and says why there is none), and goes on over restarts, attempts and broken connections.
    """
    from dail_runtime.errors import UsageError
    from dailctl.observe.logs.choose import EVERY, Wanted
    from dailctl.observe.logs.follow import Follower
    from dailctl.observe.logs.now import log_once
    from dailctl.observe.reach import run_meant

    if since is not None:
        # A wrong one is told before the cluster is asked what time it is there.
        since_time(since)
    if follow and (previous or attempt is not None):
        raise UsageError("-f follows what is written now, and --previous and --attempt show what was; leave one of them out")
    client, held = run_meant(name, file, kubeconfig, context, namespace)
    began = since_time(since, client.now()) if since is not None else None
    wanted = Wanted(stage, replica, attempt, previous, began, tail, raw)

    def show(pod: str, line: str) -> None:
        output.data(f"[{pod}] {line}" if replica == EVERY else line)

    if follow:
        held = Follower(client, held, wanted, show, output.talk).run()
        output.talk(f"run {held.name} is {held.status.state}{f': {held.status.message}' if held.status.message else ''}")
        return
    for pod, line in log_once(client, held, wanted, output.talk):
        show(pod, line)


def since_time(text: str, now: datetime | None = None) -> str:
    """The RFC 3339 time that --since means.

    Raises:
        UsageError: it is neither a span nor a time.
    """
    from dail_runtime.errors import UsageError

    span = _SPAN.fullmatch(text)
    if span is not None and any(span.groups()):
        days, hours, minutes, seconds = (int(one or 0) for one in span.groups())
        try:
            moment = (now or datetime.now(UTC)) - timedelta(days=days, hours=hours, minutes=minutes, seconds=seconds)
        except OverflowError:
            moment = datetime(1970, 1, 1, tzinfo=UTC)
        return moment.strftime("%Y-%m-%dT%H:%M:%SZ")
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise UsageError(f"--since {text}: write a span such as 5m or 1h30m, or a time such as 2026-01-31T08:00:00Z") from None
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
