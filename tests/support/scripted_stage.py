"""A stage process that behaves as told, for tests of whatever supervises stages: `python -m tests.support.scripted_stage TASK ...`.

It speaks the real protocol and leaves real manifests, but does no work and imports nothing of dail for a run in a
folder: it starts at once.
The file named by SCRIPT, or JOB.json in the folder of that name, holds `plan` (task -> prefix, digest, inputs), `files` (task -> name ->
text to write) and `says`: task -> what its successive attempts do, one word each (the last is repeated; `ok` where nothing is said): ok,
slow[:SECONDS], until:FILE (goes on once that file is there), kill (SIGKILL itself), exit:CODE, error:CODE:MESSAGE, crash (a traceback),
wait (until SIGTERM, then saves), stubborn (ignores it), flood:MEGABYTES (of talk, then ok).
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import signal
import sys
import threading
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit


def emit(**event: Any) -> None:
    """Write one event."""
    print(json.dumps(event), flush=True)


def until_set(stop: threading.Event) -> None:
    """Wait for a signal; one that comes just before the wait begins is heard by Python only when it wakes."""
    while not stop.wait(0.1):
        pass


def main(argv: list[str] | None = None) -> int:
    """Play the next attempt of the script."""
    parser = argparse.ArgumentParser()
    parser.add_argument("task")
    parser.add_argument("--run", required=True)
    parser.add_argument("--job", required=True)
    parser.add_argument("--live", action="store_true")
    parser.add_argument("--grace")
    arguments = parser.parse_args(argv)
    # Before anything is heard of this process: whoever knows that it is there may signal it.
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    if os.environ.get("RANK", "0") != "0":
        # A worker of a training: the first pod alone plays, the others are there until they are told to go.
        until_set(stop)
        return 143
    path = Path(os.environ["SCRIPT"])
    path = path / f"{arguments.job}.json" if path.is_dir() else path
    script = json.loads(path.read_text())
    marks = path.with_name(f"{path.name}.marks")
    with marks.open("a") as file:
        file.write(f"{arguments.task} {os.getpid()}\n")
    attempt = sum(line.split()[0] == arguments.task for line in marks.read_text().splitlines())
    words = script["says"].get(arguments.task, ["ok"])
    return play(words[min(attempt, len(words)) - 1], attempt, arguments, script, stop)


def play(word: str, attempt: int, arguments: argparse.Namespace, script: dict[str, Any], stop: threading.Event) -> int:
    """Do what the word says; returns the exit code. `stop`: set by SIGTERM."""
    emit(event="start", task=arguments.task, attempt=attempt)
    print(f"talk of {arguments.task}, attempt {attempt}", file=sys.stderr, flush=True)
    emit(event="progress", done=1, total=4, unit="problems", figures={"tokens_per_s": 1234.5})
    kind, _, rest = word.partition(":")
    match kind:
        case "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        case "exit":
            return int(rest)
        case "error":
            code, _, message = rest.partition(":")
            emit(event="error", kind="DataError", message=message, exit=int(code))
            return int(code)
        case "crash":
            raise RuntimeError("the sky fell")
        case "wait":
            until_set(stop)
            emit(event="error", kind="Interrupted", message="saved", exit=143)
            return 143
        case "flood":
            for number in range(int(rest) * 100):
                print(f"{number:05} {'x' * 10_000}", file=sys.stderr)
        case "slow":
            for done in (2, 3, 4):
                time.sleep(float(rest or 0.9) / 3)
                emit(event="progress", done=done, total=4, unit="problems", figures={"tokens_per_s": 1234.0})
        case "until":
            emit(event="progress", done=2, total=4, unit="problems", figures={"tokens_per_s": 1234.0})
            while not Path(rest).exists():
                time.sleep(0.02)
        case "stubborn":
            while True:
                time.sleep(60)
    task = script["plan"][arguments.task]
    files = script["files"].get(arguments.task, {"result.txt": f"attempt {attempt}"})
    manifest = {
        "task": arguments.task,
        "digest": task["digest"],
        "inputs": task["inputs"],
        "objects": [
            {"key": key, "size": len(text.encode()), "sha256": hashlib.sha256(text.encode()).hexdigest()} for key, text in files.items()
        ],
        "counts": {"problems": 4, **({"evaluation": {"test": {"problems": 4}}} if arguments.task == "prepare" else {})},
        "started": datetime.now(UTC).isoformat(),
        "finished": datetime.now(UTC).isoformat(),
        "seconds": 0.1,
        "attempts": attempt,
        "versions": {},
    }
    write(arguments.run, task["prefix"], {**files, "_manifest.json": json.dumps(manifest)})
    emit(event="say", sentence="all is well")
    emit(event="done", seconds=0.1, counts={"problems": 4, "dropped": {"wrong": 1}})
    return 0


def write(run: str, prefix: str, files: dict[str, str]) -> None:
    """Put the files below the task's prefix, in this order."""
    if run.startswith("s3://") and "BUCKETS" in os.environ:
        # The folder in which the S3 server keeps its buckets: loading a client would take longer than all the rest.
        run = f"file://{os.environ['BUCKETS']}/{run.removeprefix('s3://')}"
    elif run.startswith("s3://"):
        from dail_runtime.store import open_store

        for key, text in files.items():
            open_store(run).put(f"{prefix}/{key}", text.encode())
        return
    for key, text in files.items():
        path = Path(unquote(urlsplit(run).path)) / prefix / key
        path.parent.mkdir(parents=True, exist_ok=True)
        half = path.with_name(f"{path.name}.{os.getpid()}")
        half.write_text(text)
        half.rename(path)


if __name__ == "__main__":
    sys.exit(main())
