"""The process of one task: `python -m dail_runtime.stages TASK --run URI --job DIGEST`.

Standard output carries events, one JSON object a line; everything else, also what libraries print, goes to standard
error. SIGTERM and SIGINT ask the stage to save and end with 143. Exit codes: dail_runtime/errors.py.

Where torchrun's environment (RANK, WORLD_SIZE, ...) says that this is one of several ranks, rank 0 runs the task and the others follow.
Where it says nothing, training on a machine with several GPUs becomes the launcher of its ranks (dail_runtime.train.launch).
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import threading
import traceback
from typing import Any, TextIO

from dail_runtime.errors import DailError, Interrupted
from dail_runtime.metrics import serve_metrics
from dail_runtime.stages.base import end_process
from dail_runtime.stages.follow import DISTRIBUTED, follow_task
from dail_runtime.stages.jobs import load_saved_job
from dail_runtime.stages.metrics import StageMetrics
from dail_runtime.stages.run import LIVE, LOGGED, run_task, versions_line
from dail_runtime.store import open_store
from dail_runtime.train import launch
from dail_runtime.train.ranks import place

# How long threads of the CPU's matrix library spin before they sleep. By default that is milliseconds: fast alone, ten times slower
# as soon as anyone else uses a core, because each half-step spins for a thread that is not running. Sleeping at once costs twice the
# time alone. A short spin has most of both. It is read when torch is loaded, which only a stage does.
os.environ.setdefault("GOMP_SPINCOUNT", "2000")


def main(argv: list[str] | None = None) -> int:
    """Run the task; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m dail_runtime.stages", description="Run one task of a saved job.")
    parser.add_argument("task", help="for example prepare, rewrite/tuned, train/nll")
    parser.add_argument("--run", required=True, metavar="URI", help="the run's root: a folder, file:// or s3://")
    parser.add_argument("--job", required=True, metavar="DIGEST", help="name of the saved job below the root's jobs/")
    parser.add_argument("--live", action="store_true", help=f"tell of progress every {LIVE:g} s, not every {LOGGED:g} s: someone watches")
    arguments = parser.parse_args(argv)
    if arguments.task.split("/")[0] in DISTRIBUTED and launch.takes_ranks(os.environ):
        return launch.main([arguments.task, "--run", arguments.run, "--job", arguments.job])
    events = _claim_stdout()
    if os.environ.get("LOCAL_RANK", "0") == "0":
        print(versions_line(), file=sys.stderr, flush=True)
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    signal.signal(signal.SIGINT, lambda *_: stop.set())

    metrics = StageMetrics(os.environ.get("DAIL_RUN", ""), arguments.task)

    def emit(event: dict[str, Any]) -> None:
        metrics.hear(event)
        try:
            print(json.dumps(event, ensure_ascii=False), file=events, flush=True)
        except BrokenPipeError:
            # Whoever started this process is gone: save and end, or two processes would soon do the same work.
            stop.set()

    def abandon(error: DailError) -> None:
        emit(_error(error))
        end_process(error)

    try:
        run = open_store(arguments.run)
        job, content = load_saved_job(run, arguments.job)
        if place().lead:
            serve_metrics(metrics)
            run_task(run, job, content, arguments.task, emit, stop, LIVE if arguments.live else LOGGED)
        else:
            follow_task(run, job, content, arguments.task, stop, abandon)
    except Interrupted as err:
        emit(_error(err))
        return err.exit_code
    except DailError as err:
        emit(_error(err))
        return err.exit_code
    except Exception as err:
        traceback.print_exc()
        emit({"event": "error", "kind": type(err).__name__, "message": f"{type(err).__name__}: {err}", "exit": 1})
        return 1
    return 0


def _error(err: DailError) -> dict[str, Any]:
    return {"event": "error", "kind": type(err).__name__, "message": str(err), "exit": err.exit_code}


def _claim_stdout() -> TextIO:
    """Keep the real standard output for events; whatever libraries print goes to standard error from now on."""
    events = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    sys.stdout = sys.stderr
    return events


if __name__ == "__main__":
    # Not sys.exit alone: a library's lingering thread must not keep a finished stage alive.
    code = main()
    sys.stderr.flush()
    os._exit(code)
