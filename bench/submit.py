"""`make bench-submit`: a submit next to kubectl applying the same objects, and a conductor that has nothing to do.

Yardstick: `kubectl apply --server-side` of the objects that submit applies, as a process, in the same run and on the same API server.
Submit does more (it reads and checks the job and its data, renders the chart, asks for rights, APIs, secrets and nodes, looks into
the store, saves the job there); its data is in the store already, as the bar is for what comes beyond the upload.
"""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import boto3

from bench.common import interleaved, last_line
from tests.lab import control_plane, versitygw
from tests.lab.binaries import program
from tests.support.cluster_run import ClusterRun, cluster_run, scripted
from tests.support.s3 import Bucket

REPEATS = 5
IDLE_SECONDS = 60.0
USER = "system:serviceaccount:{}:{}"
NUMBERS = itertools.count(1)


def main() -> None:
    """Measure and print."""
    with (
        tempfile.TemporaryDirectory(prefix="dail-bench-") as name,
        versitygw.running(Path(name)) as server,
        control_plane.running() as lab,
        lab.namespace("bench") as namespace,
    ):
        os.environ |= server.environment()
        boto3.session.Session().client("s3", endpoint_url=server.endpoint).create_bucket(Bucket="bench")
        with cluster_run(lab, namespace, Bucket(server, "bench"), Path(name), scripted) as run:
            idle = idle_conductor(run)
            seconds = interleaved({"submit": lambda: submit(run), "kubectl": lambda: kubectl(run)}, REPEATS)
    figures = {"submit_s": seconds["submit"], "kubectl_s": seconds["kubectl"], "submit_vs_kubectl": seconds["submit"] / seconds["kubectl"]}
    last_line("submit", {**figures, **idle})


def submit(run: ClusterRun) -> float:
    """Seconds of `dailctl submit --yes` of a job that was never submitted, as a process."""
    fresh(run)
    command = [sys.executable, "-m", "dailctl", "submit", "-f", str(run.file), "--kubeconfig", str(run.kubeconfig), "--yes"]
    began = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - began


def kubectl(run: ClusterRun) -> float:
    """Seconds of kubectl applying the same kinds of objects."""
    fresh(run)
    objects = json.dumps({"apiVersion": "v1", "kind": "List", "items": list(run.submission().objects)})
    command = [str(program("kubectl")), f"--kubeconfig={run.kubeconfig}", "apply", "--server-side", "--filename=-"]
    began = time.perf_counter()
    subprocess.run(command, input=objects, text=True, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - began


def fresh(run: ClusterRun) -> None:
    """Another job over the same data, whose pods find no image: nothing else runs meanwhile."""
    run.kubelet.images = set()
    run.write(select={"keep": 1 + next(NUMBERS)})


def idle_conductor(run: ClusterRun) -> dict[str, float]:
    """Megabytes and API requests a second of a conductor whose stage is at work and changes nothing."""
    run.script(rewrite__tuned=["wait"])
    assert run.submit().code == 0
    run.until(lambda status: status.task("rewrite/tuned").state == "running")
    time.sleep(15)  # The last watches of the start are counted as idle otherwise.
    user = USER.format(run.namespace, run.name)
    before, began = len(run.lab.requests(user)), time.monotonic()
    time.sleep(IDLE_SECONDS)
    calls = (len(run.lab.requests(user)) - before) / (time.monotonic() - began)
    pid = run.kubelet.process_of(run.conductor())
    peak = next(line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmHWM"))
    return {"conductor_mb": int(peak.split()[1]) / 1024, "idle_calls_per_s": calls}


if __name__ == "__main__":
    main()
