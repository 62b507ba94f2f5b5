"""`make bench-cluster`: a crowded cluster: 1000 simulated GPU nodes, 500 runs with their objects, 50 runs at once.

On a real API server; the yardstick of `get` and `describe` is kubectl fetching the same objects, as a process, in the same run.
`runs_lost` counts those of the 50 that did not end as done. Everything runs on this one machine: the API server, etcd, the
controllers, the nodes, 50 conductors and every stage process share its cores.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import boto3
import yaml

from bench.common import last_line
from bench.submit import fresh, idle_conductor, submit
from dailctl.conductor.decide import Live
from dailctl.conductor.hands import Hands, manifests_of
from dailctl.conductor.status import RunStatus, fresh_status, read_status
from dailctl.kube.resources import CONFIG_MAP
from dailctl.render.record import run_of_record
from dailctl.submit.apply import apply_run
from tests.lab import control_plane, versitygw
from tests.lab.binaries import program
from tests.support.cluster_run import ClusterRun, cluster_run, scripted
from tests.support.s3 import Bucket

AT_WORK = 0.1
"""Share of the crowd's runs that have a stage at work."""
END_SECONDS = 1500


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m bench.cluster", description="A crowded cluster.")
    parser.add_argument("--nodes", type=int, default=1000, help="simulated GPU nodes (default: %(default)s)")
    parser.add_argument("--runs", type=int, default=500, help="runs with their objects, a tenth of them at work (default: %(default)s)")
    parser.add_argument("--at-once", type=int, default=50, help="runs submitted together (default: %(default)s)")
    parser.add_argument("--repeats", type=int, default=20, help="of every command that is timed (default: %(default)s)")
    asked = parser.parse_args()
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
            told(f"idle conductor: {idle}")
            run.lab.kubectl("delete", "configmap", run.name, f"--namespace={namespace}")
            lost = lost_of(run, asked.at_once)
            told(f"{asked.at_once} runs at once: {lost} lost")
            # What the crowd's pods do is simulated: the node whose pods are processes takes no more.
            run.kubelet.images = set()
            run.lab.kubectl("cordon", f"--selector=test={namespace}")
            with lab.nodes(asked.nodes, labels={"test": namespace}):
                one = crowd(run, asked.runs)
                figures = {**waits(run, one, max(2, asked.repeats)), **idle, "runs_lost": float(lost)}
    last_line("cluster", figures)


def lost_of(run: ClusterRun, at_once: int) -> int:
    """How many of so many runs, all submitted together, did not end as done."""
    submissions = []
    for _ in named(run, "together", at_once):
        run.script()
        submissions.append(run.submission())
    for submission in submissions:
        for _ in apply_run(run.client(), submission, None):
            pass
    end, client = time.monotonic() + END_SECONDS, run.client()
    names = {submission.name for submission in submissions}
    states: dict[str, RunStatus | None] = {}
    while time.monotonic() < end:
        records = {name: client.find(CONFIG_MAP, name) for name in names}
        states = {name: read_status((record or {}).get("data") or {}) for name, record in records.items()}
        if all(status is not None and status.ended for status in states.values()):
            break
        time.sleep(2)
    lost = {name: status and (status.state, status.message) for name, status in states.items() if status is None or status.state != "done"}
    for name, why in lost.items():
        told(f"{name}: {why}")
    return len(lost)


def crowd(run: ClusterRun, runs: int) -> str:
    """So many runs, of which AT_WORK have a stage whose pods run; the name of one of those."""
    client, last = run.client(), ""
    began = datetime.now(UTC) - timedelta(hours=3)
    for number, _ in enumerate(named(run, "crowd", runs)):
        submission = run.submission()
        record, *others = submission.objects
        held = client.apply(record, "dailctl")
        for one in others[:-1]:
            client.apply(one, "dailctl")
        tasks = run_of_record(held["data"]).tasks
        hands = Hands(client, submission.record, held, manifests_of(submission.record, held["data"]), None, lambda: None)
        status = fresh_status((task.name, task.slug, task.stage) for task in tasks)
        at_work = number < AT_WORK * runs
        for place, task in enumerate(status.tasks):
            if at_work and place == 1:
                hands.apply(task.name, 1, Live((), ()), lambda _: None)
            state = "done" if not at_work or place < 1 else "running" if place == 1 else "waiting"
            status = status.with_task(task.model_copy(update={"state": state, "attempts": int(state != "waiting"), "started": began}))
        update = {"state": "running" if at_work else "done", "started": began, "updated": datetime.now(UTC)}
        update |= {} if at_work else {"exit_code": 0, "finished": datetime.now(UTC)}
        hands.write_status(status.model_copy(update=update), held["metadata"]["resourceVersion"])
        last = submission.name if at_work else last
        if number % 50 == 49:
            told(f"{number + 1} runs")
    return last


def waits(run: ClusterRun, one: str, repeats: int) -> dict[str, float]:
    """How long people wait in the crowd."""
    kubectl = [str(program("kubectl")), f"--kubeconfig={run.kubeconfig}", f"--namespace={run.namespace}"]
    dailctl = [sys.executable, "-m", "dailctl"]
    where = ["--kubeconfig", str(run.kubeconfig), "--namespace", run.namespace]
    commands = {
        "get": [*dailctl, "get", *where],
        "kubectl_get": [*kubectl, "get", "configmaps", "--selector=app.kubernetes.io/name=dail", "--output=json"],
        "describe": [*dailctl, "describe", one, *where],
        "kubectl_describe": [*kubectl, "get", "configmaps,pods,jobs,events", f"--selector=dail.dev/run={one}", "--output=json"],
    }
    cases: dict[str, Callable[[], float]] = {name: lambda command=command: seconds_of(command) for name, command in commands.items()}  # type: ignore[misc]
    found: dict[str, list[float]] = {name: [] for name in cases}
    for turn in range(repeats + 1):
        for name, case in cases.items():
            figure = case()
            if turn:
                found[name].append(figure)
    p95 = {name: statistics.quantiles(figures, n=20)[-1] for name, figures in found.items()}
    told(", ".join(f"{name} {figure:.2f} s" for name, figure in p95.items()))
    submits = []
    for _ in range(3):
        fresh(run)
        submits.append(submit(run))
    return {
        "get_p95_s": p95["get"],
        "describe_p95_s": p95["describe"],
        "get_vs_kubectl": p95["get"] / p95["kubectl_get"],
        "describe_vs_kubectl": p95["describe"] / p95["kubectl_describe"],
        "submit_s": statistics.median(submits),
    }


def named(run: ClusterRun, prefix: str, count: int) -> Iterator[str]:
    """The run's job file under this many names, one after the other."""
    job = yaml.safe_load(run.file.read_text())
    for number in range(count):
        job["metadata"]["name"] = f"{prefix}-{number:03}"
        run.file.write_text(yaml.safe_dump(job))
        yield job["metadata"]["name"]


def seconds_of(command: list[str]) -> float:
    """How long a command takes, as a process."""
    began = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - began


def told(sentence: str) -> None:
    """Say how far it is."""
    print(sentence, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
