"""The server of a task's model: `python -m dail_runtime.serve --run URI --job DIGEST --task NAME --port 8000`.

Brings the model, and the adapter where the task measures a trained one, to this machine, and then becomes an unmodified OpenAI
server of vLLM with dail's plugin (exec: same process, same id). GET /health answers once the model is loaded. SIGTERM lets it
finish what it is drawing, for as long as --drain says. By hand: `python -m dail_runtime.serve -f job.yaml` serves the model of a
job file. Exit codes: dail_runtime/errors.py.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from dail_runtime.errors import DailError, UsageError
from dail_runtime.spec.content import content_of
from dail_runtime.spec.job import BASE, DailJob
from dail_runtime.spec.load import load_job, resolve_paths
from dail_runtime.spec.plan import Task, plan
from dail_runtime.spec.rewrite import MixedPolicy, VllmHttpEngine
from dail_runtime.stages.jobs import load_saved_job
from dail_runtime.stages.run import versions_line
from dail_runtime.store import Store, open_store, read_manifest

SERVED = ("rewrite", "check", "evaluate")
"""Stages that run a model."""
_MODULE = "vllm.entrypoints.openai.api_server"


@dataclass(frozen=True)
class _Served:
    """What is to be served."""

    job: DailJob
    task: Task | None
    """None: the base model, for whatever comes."""
    trained: Store | None
    """Where the training whose adapter is applied keeps its results."""


def main(argv: list[str] | None = None) -> int:
    """Become the server; returns an exit code only where that fails."""
    arguments, vllm = _parse(argv)
    # As the first process of a container, where the kernel ignores signals that nobody handles.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    print(versions_line(), flush=True)
    try:
        command = _command(_find(arguments), arguments)
    except DailError as err:
        print(f"error: {err}", file=sys.stderr)
        return err.exit_code
    from dail_runtime.rewrite.vllm_settings import environment

    sys.stderr.flush()
    return os.execve(sys.executable, [sys.executable, "-m", _MODULE, *command, *vllm], {**os.environ, **environment()})


def _parse(argv: list[str] | None) -> tuple[argparse.Namespace, list[str]]:
    words = sys.argv[1:] if argv is None else argv
    own, _, vllm = (words, "", []) if "--" not in words else (words[: (cut := words.index("--"))], "--", words[cut + 1 :])
    parser = argparse.ArgumentParser(
        prog="python -m dail_runtime.serve",
        description="Serve the model of a task with vLLM and dail's plugin. What follows -- goes to vLLM as it is.",
    )
    parser.add_argument("--run", metavar="URI", help="the run's root: a folder, file:// or s3://")
    parser.add_argument("--job", metavar="DIGEST", help="name of the saved job below the root's jobs/; default: the latest")
    parser.add_argument("-f", "--file", metavar="JOB.yaml", type=Path, help="a job file, instead of --run and --job")
    parser.add_argument("--task", metavar="NAME", help="for example rewrite/tuned or evaluate/tuned; default: the base model")
    parser.add_argument("--host", default="0.0.0.0", help="address to listen on (default: every one; 127.0.0.1 for this machine alone)")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--drain", type=int, default=25, metavar="SECONDS", help="how long SIGTERM waits for responses under way")
    arguments = parser.parse_args(own)
    if (arguments.run is None) == (arguments.file is None):
        parser.error("give either --run or -f")
    if arguments.file is not None and arguments.job is not None:
        parser.error("--job goes with --run")
    return arguments, vllm


def _find(arguments: argparse.Namespace) -> _Served:
    if arguments.file is not None:
        job = resolve_paths(load_job(arguments.file), arguments.file.absolute().parent)
        storage = job.spec.storage
        run = open_store(storage.uri, endpoint=storage.endpoint, region=storage.region).at(job.metadata.name)
        content = content_of(job) if arguments.task is not None else {}
    else:
        run = open_store(arguments.run)
        job, content = load_saved_job(run, arguments.job)
    if arguments.task is None:
        return _Served(job, None, None)
    tasks = {task.name: task for task in plan(job, content)}
    task = tasks.get(arguments.task)
    if task is None or task.stage not in SERVED:
        served = ", ".join(name for name, one in tasks.items() if one.stage in SERVED)
        what = "this job has no such task" if task is None else "this stage runs no model on a server"
        raise UsageError(f"--task {arguments.task}: {what}; give one of {served}")
    if task.stage != "evaluate" or task.variant == BASE:
        return _Served(job, task, None)
    training = tasks[f"train/{task.variant}"]
    trained = run.at(training.prefix)
    if read_manifest(trained) is None:
        raise UsageError(f"--task {task.name} needs the adapter of {training.name}, which has not finished; run {training.name} first")
    return _Served(job, task, trained)


def _command(served: _Served, arguments: argparse.Namespace) -> list[str]:
    """The words of vLLM's command line. Imports torch."""
    from transformers import AutoConfig

    from dail_runtime.models import max_length, model_folder, pick_device, pick_dtype
    from dail_runtime.models.adapter import fetch_adapter
    from dail_runtime.models.merged import merged_folder
    from dail_runtime.rewrite.vllm_http.naming import served_name
    from dail_runtime.rewrite.vllm_plugin.check import check_version
    from dail_runtime.rewrite.vllm_settings import arguments as settings_of
    from dail_runtime.rewrite.vllm_settings import as_options, sequences

    check_version()
    model = served.job.spec.model
    folder, name = model_folder(model), served_name(model)
    length = max_length(model, AutoConfig.from_pretrained(folder, trust_remote_code=False, local_files_only=True).get_text_config())
    dtype = pick_dtype(model, pick_device())
    if served.trained is not None:
        with tempfile.TemporaryDirectory(prefix="dail-adapter-") as scratch:
            adapter = fetch_adapter(served.trained, Path(scratch))
            name, folder = served_name(model, adapter), merged_folder(model, adapter, dtype)
    print(f"serving {name} at {arguments.host}:{arguments.port}", flush=True)
    server = {
        "served_model_name": name,
        "host": arguments.host,
        "port": arguments.port,
        "shutdown_timeout": arguments.drain,
        **sequences(_sequences(served)),
        "tensor_parallel_size": max(1, _gpus()),
        "disable_uvicorn_access_log": True,
    }
    return as_options({**settings_of(folder, length=length, dtype=dtype), **server})


def _sequences(served: _Served) -> int:
    """How many sequences the server decodes at once: all that the driver sends it."""
    task = served.task
    rewrite = served.job.spec.rewrite if task is None else task.settings.rewrite
    in_flight = rewrite.engine.in_flight if isinstance(rewrite.engine, VllmHttpEngine) else VllmHttpEngine(kind="vllm-http").in_flight
    pairs = isinstance(rewrite.policy, MixedPolicy) and (task is None or task.stage == "rewrite")
    return in_flight * (2 if pairs else 1)


def _gpus() -> int:
    import torch

    return torch.cuda.device_count() if torch.cuda.is_available() else 0


if __name__ == "__main__":
    sys.exit(main())
