"""What a real kubelet, Job controller and training operator make of a task's own objects when its pods end: what the conductor relies on.

The objects are those that the chart makes; in their pods a small program takes the stage's place.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from dailctl.backends.kinds import workload_among
from dailctl.backends.workload import Reading
from dailctl.conductor.failures import Failure, classify, taken_from
from dailctl.render.chart import task_objects
from dailctl.render.of_job import render_job
from tests.lab.binaries import program
from tests.lab.cluster import Object
from tests.lab.components import wait_until
from tests.lab.node import TOOL_IMAGE, Node
from tests.support.jobs import CONTENT, a_job

pytestmark = [pytest.mark.node, pytest.mark.slow, pytest.mark.faults]

SERVE = ("serve", "8000")
"""Until a signal ends it."""


class Task:
    """One task of a rendered job on the node."""

    def __init__(self, node: Node, namespace: str, name: str, *act: str, memory: str = "64Mi") -> None:
        found = render_job(a_job(), CONTENT, namespace)
        (workload,) = task_objects(found.objects[0], found.run.task(name))
        self._node, self._namespace = node, namespace
        self._kind, self._name = str(workload["kind"]), str(workload["metadata"]["name"])
        replicas = workload["spec"].get("pytorchReplicaSpecs", {"": workload["spec"]})
        for pod in (one["template"]["spec"] for one in replicas.values()):
            (container,) = pod["containers"]
            for field in ("command", "env"):
                del container[field]
            container |= {"image": TOOL_IMAGE, "args": list(act), "resources": {"limits": {"memory": memory}}}
            pod["serviceAccountName"] = "default"
        node.apply(workload, namespace=namespace)

    def pods(self) -> list[Object]:
        return list(self._node.get("pods", namespace=self._namespace)["items"])

    def running(self) -> str:
        """The pod whose container runs; '' while there is none."""
        return next((str(one["metadata"]["name"]) for one in self.pods() if container_of(one).get("state", {}).get("running")), "")

    def kill(self) -> None:
        """SIGKILL to the container's process, on the node."""
        pod = next(one for one in self.pods() if one["metadata"]["name"] == self.running())
        self._node.ctr("tasks", "kill", "--signal=SIGKILL", container_of(pod)["containerID"].removeprefix("containerd://"))

    def reading(self) -> tuple[Object, Reading]:
        workload = self._node.get(self._kind, self._name, self._namespace)
        _, backend = workload_among([workload]) or pytest.fail(f"{self._kind} is no workload")
        return workload, backend.read(workload)

    def failure(self, seconds: float = 60) -> Failure:
        """What the conductor makes of the end."""
        assert wait_until(lambda: self.reading()[1].state == "failed", seconds), self.reading()
        workload, reading = self.reading()
        return classify(workload, reading, self.pods(), None, None)


def container_of(pod: Object) -> Object:
    return dict((pod["status"].get("containerStatuses") or [{}])[0])


@contextmanager
def watched(node: Node, namespace: str, path: Path) -> Iterator[None]:
    """Every state of every pod goes into the file, one JSON document after the other."""
    command = [program("kubectl"), f"--kubeconfig={node.kubeconfig}", "get", "pods", f"--namespace={namespace}", "--watch", "--output=json"]
    with path.open("wb") as out, subprocess.Popen(command, stdout=out) as process:
        try:
            yield
        finally:
            process.terminate()


def documents(path: Path) -> Iterator[Object]:
    text = path.read_text().strip()
    while text:
        try:
            found, end = json.JSONDecoder().raw_decode(text)
        except ValueError:
            return
        yield found
        text = text[end:].lstrip()


@pytest.mark.parametrize("name", ["select/tuned", "train/tuned"])
def test_a_killed_process_ends_its_attempt_and_says_how(node: Node, node_namespace: str, name: str) -> None:
    task = Task(node, node_namespace, name, *SERVE)
    assert wait_until(lambda: bool(task.running()), 60), task.pods()
    task.kill()
    failure = task.failure()
    assert (failure.kind, failure.exit_code) == ("passing", 137)
    assert "was killed by SIGKILL" in failure.sentence
    assert len(task.pods()) == 1, "the next attempt is the conductor's to make"


@pytest.mark.parametrize("name", ["select/tuned", "train/tuned"])
def test_a_pod_over_its_memory_limit_is_known_by_it(node: Node, node_namespace: str, name: str) -> None:
    failure = Task(node, node_namespace, name, "fill", "200").failure()
    assert (failure.kind, failure.exit_code) == ("memory", 137)
    assert "took more memory than its limit of 64Mi" in failure.sentence


def test_a_drained_pod_of_a_job_is_replaced_and_costs_nothing(node: Node, node_namespace: str, tmp_path: Path) -> None:
    task = Task(node, node_namespace, "select/tuned", *SERVE)
    assert wait_until(lambda: bool(task.running()), 60), task.pods()
    first, name = task.running(), node.get("nodes")["items"][0]["metadata"]["name"]
    with watched(node, node_namespace, tmp_path / "pods"):
        node.kubectl("drain", name, f"--pod-selector=job-name={task.pods()[0]['metadata']['labels']['job-name']}", "--delete-emptydir-data")
        node.kubectl("uncordon", name)
        assert wait_until(lambda: task.running() not in ("", first), 90), task.pods()
    # The program ends with a code that says "final" when it gets a signal; that it was taken away weighs more.
    assert task.reading()[1].state != "failed"
    told = {taken_from([one]) for one in documents(tmp_path / "pods")} - {None}
    assert [one for one in told if one and one.startswith(f"pod {first} was moved off node {name}")], told
