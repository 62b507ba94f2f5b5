"""The `dailctl` program: its verbs, and the one exit handler for all of them."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Sequence
from typing import Annotated, Any

import typer
from typer.core import TyperGroup
from typer.main import get_command

from dail_runtime.errors import DailError, Interrupted, UsageError
from dailctl import output
from dailctl.cli.cancel import cancel
from dailctl.cli.delete import delete
from dailctl.cli.describe import describe
from dailctl.cli.diff import diff
from dailctl.cli.doctor import doctor
from dailctl.cli.events import events
from dailctl.cli.fetch import fetch
from dailctl.cli.gc import gc
from dailctl.cli.get import get
from dailctl.cli.init import init
from dailctl.cli.logs import logs
from dailctl.cli.plan import plan
from dailctl.cli.render import render
from dailctl.cli.report import report
from dailctl.cli.resume import resume
from dailctl.cli.run import run
from dailctl.cli.schema import schema
from dailctl.cli.status import status
from dailctl.cli.submit import submit
from dailctl.cli.suspend import suspend
from dailctl.cli.validate import validate
from dailctl.cli.version import version
from dailctl.cli.watch import watch
from dailctl.exits import OUTPUT_CLOSED, as_text

UNEXPECTED = 1
STOPPED = 130


class _OutputClosed(Exception):
    """Standard output was closed by whoever read it."""


class _Verbs(TyperGroup):
    """Typer would end the process on EPIPE by itself; the exit handler below is to be the only one."""

    def make_context(self, *arguments: Any, **options: Any) -> Any:
        try:
            # It prints help.
            return super().make_context(*arguments, **options)
        except BrokenPipeError:
            raise _OutputClosed from None

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            raise _OutputClosed from None


app = typer.Typer(
    cls=_Verbs,
    name="dailctl",
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog=f"Results go to standard output, everything else to standard error.\n\n\b\nExit codes:\n{as_text()}",
)


@app.callback(invoke_without_command=True)
def dailctl(
    ctx: typer.Context,
    debug: Annotated[
        bool, typer.Option("--debug", help="Show the traceback of an error. May stand anywhere; DAIL_DEBUG=1 does the same.")
    ] = False,
) -> None:
    """Turns expert solutions into training that makes a model solve such problems."""
    del debug  # main() has taken it out of the arguments already; it stands here for --help.
    if ctx.invoked_subcommand is None:
        typer.echo(ctx.get_help())


_VERBS = (
    *(init, validate, plan, render, run, submit, diff),
    *(get, describe, watch, logs, events),
    *(cancel, suspend, resume, delete, gc, doctor),
    *(status, report, fetch, schema, version),
)
for _verb in _VERBS:
    app.command()(_verb)


def main(argv: Sequence[str] | None = None) -> int:
    """Run dailctl; returns the exit code (dailctl/exits.py)."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    own = arguments[: arguments.index("--")] if "--" in arguments else arguments
    debug = "--debug" in own or os.environ.get("DAIL_DEBUG", "") not in ("", "0")
    arguments = [word for word in own if word != "--debug"] + arguments[len(own) :]
    output.tolerant_streams()
    try:
        code = get_command(app).main(args=arguments, prog_name="dailctl", standalone_mode=False)
        sys.stdout.flush()
    except (_OutputClosed, BrokenPipeError):
        # Python would complain once more when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return OUTPUT_CLOSED
    except (KeyboardInterrupt, typer.Abort):
        output.talk("stopped")
        return STOPPED
    except Exception as err:
        if debug:
            traceback.print_exc()
        return _explain(err)
    finally:
        output.let_go()
    return code if isinstance(code, int) else 0


def _explain(err: Exception) -> int:
    if isinstance(err, Interrupted):
        output.talk(str(err))
        return err.exit_code
    if isinstance(err, FileNotFoundError) and not _stands_somewhere():
        output.error("the folder that this shell is in was removed; change into one that exists")
        return UsageError.exit_code
    if isinstance(err, DailError):
        output.error(str(err))
        return err.exit_code
    if isinstance(err, typer.TyperException):
        context = getattr(err, "ctx", None)
        verb = context.command_path if context is not None else "dailctl"
        message = err.format_message().replace("Value error, ", "").rstrip(".")
        output.error(f"{message}; see {verb} --help")
        return err.exit_code
    first = (str(err).splitlines() or [""])[0]
    output.error(f"unexpected {type(err).__name__}{': ' + first if first else ''}; run the same command with --debug to see where")
    return UNEXPECTED


def _stands_somewhere() -> bool:
    """Whether relative paths lead anywhere."""
    try:
        os.getcwd()  # noqa: PTH109
    except FileNotFoundError:
        return False
    return True
