"""A run on the control-plane lab: its job file, its bucket and secret, a node whose pods are processes, and what became of it."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from dailctl.conductor.status import RunStatus, read_status
from dailctl.kube import Client, load_access
from dailctl.kube.resources import CONFIG_MAP, Object, name_of
from dailctl.runs import run_of_file
from dailctl.submit.compose import Submission, compose
from tests.lab.control_plane import ControlPlane
from tests.support.cli import Said, dailctl
from tests.support.process_kubelet import REPOSITORY, ProcessKubelet, as_here, kubelet_on
from tests.support.s3 import Bucket
from tests.support.waiting import SILENCE, wait_for

KINDS = "all,configmaps,serviceaccounts,roles,rolebindings,networkpolicies,leases,poddisruptionbudgets,pvc"
"""Every kind that a run may leave behind."""
REPORT = {"report.json": json.dumps({"sets": {}, "verdict": {"sentence": "It is better.", "gain": True}}), "report.html": "<p>better</p>"}


def scripted(command: Sequence[str]) -> Sequence[str]:
    """Stages play a script (tests/support/scripted_stage.py), servers and all but the first training pod only wait; conductors are real."""
    words = list(command)
    if words[:2] == ["python", "-m"] and words[2] in ("dail_runtime.stages", "dail_runtime.train.launch"):
        return [sys.executable, "-m", "tests.support.scripted_stage", *words[3:]]
    if words[:2] == ["python", "-m"] and words[2] == "dail_runtime.serve":
        return [sys.executable, "-c", "import signal; signal.pause()"]
    return as_here(command)


@dataclass
class ClusterRun:
    """One job on the lab."""

    lab: ControlPlane
    namespace: str
    bucket: Bucket
    kubelet: ProcessKubelet
    folder: Path
    kubeconfig: Path
    """Whose user submits."""
    said: list[Said]

    @property
    def file(self) -> Path:
        """The job file."""
        return self.folder / "job.yaml"

    def write(self, *, gpus: int = 1, **spec: Any) -> None:
        """The job file, with these sections replaced; servers and workers ask for so many GPUs, which are simulated."""
        pool = {"cpu": "100m", "memory": "64Mi", "nodeSelector": {"test": self.namespace}}
        body: dict[str, Any] = {
            "model": {"id": str(REPOSITORY / "examples/tinymath/model"), "dtype": "float32"},
            "data": {
                "solutions": str(REPOSITORY / "examples/tinymath/expert.jsonl"),
                "limit": 8,
                "evaluation": [{"name": "test", "path": str(REPOSITORY / "examples/tinymath/test.jsonl")}],
            },
            "storage": {"uri": self.bucket.uri, "endpoint": self.bucket.server.endpoint, "credentialsSecret": "s3"},
            "evaluate": {"teacherCheck": False},
            "cluster": {
                "namespace": self.namespace,
                "image": "localhost/dail:1",
                "pools": {"control": pool, "rewrite": {**pool, "gpus": gpus}, "train": {**pool, "gpus": gpus}},
            },
        }
        for name, section in spec.items():
            body[name] = {**body.get(name, {}), **section}
        job = {"apiVersion": "dail/v1alpha1", "kind": "DailJob", "metadata": {"name": "job"}, "spec": body}
        self.file.write_text(yaml.safe_dump(job))

    def script(self, **says: Sequence[str]) -> None:
        """What the stages' successive attempts do, by task (`train__tuned` is train/tuned): see scripted_stage. Submit afterwards."""
        submission = self.submission()
        plan = {task.name: {"prefix": task.prefix, "digest": task.digest, "inputs": dict(task.inputs)} for task in submission.run.tasks}
        files = {name: (REPORT if name == "report" else {"result.txt": f"of {name}"}) for name in plan}
        scripts = self.folder / "scripts"
        scripts.mkdir(exist_ok=True)
        (scripts / f"{submission.record.job_digest}.json").write_text(
            json.dumps({"plan": plan, "files": files, "says": {name.replace("__", "/"): list(w) for name, w in says.items()}})
        )
        self.kubelet.environment |= {"SCRIPT": str(scripts), "BUCKETS": str(self.bucket.server.folder)}

    def submission(self) -> Submission:
        """What the job file composes to."""
        return _composed(self.file, self.file.read_text(), self.namespace)

    @property
    def name(self) -> str:
        """The run's name."""
        return self.submission().name

    def submit(self, *words: str) -> Said:
        """`dailctl submit -f JOB --yes WORDS` in this process."""
        said = dailctl("submit", "-f", self.file, "--kubeconfig", self.kubeconfig, "--yes", *words)
        self.said.append(said)
        return said

    def submitting(self, *words: str) -> subprocess.Popen[str]:
        """The same in a process of its own."""
        command = [sys.executable, "-m", "dailctl", "submit", "-f", str(self.file), "--kubeconfig", str(self.kubeconfig), "--yes", *words]
        environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
        return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def started(
        self, *words: object, kubeconfig: Path | None = None, stdin: int | None = None, stdout: int = subprocess.PIPE, **variables: str
    ) -> subprocess.Popen[str]:
        """`dailctl WORDS` in the run's namespace, in a process of its own."""
        command = [sys.executable, "-m", "dailctl", *words, "--kubeconfig", kubeconfig or self.kubeconfig, "-n", self.namespace]
        environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "PYTHONUNBUFFERED": "1", **self.credentials(), **variables}
        arguments = list(map(str, command))
        return subprocess.Popen(arguments, env=environment, stdin=stdin, stdout=stdout, stderr=subprocess.PIPE, text=True)

    def credentials(self) -> dict[str, str]:
        """Variables for whoever reads the bucket."""
        return {name: value for name, value in self.bucket.server.environment().items() if name.startswith("AWS_")}

    def client(self) -> Client:
        """An administrator's."""
        return Client(load_access(self.lab.kubeconfig, namespace=self.namespace), patience=60)

    def status(self) -> RunStatus | None:
        """As the record has it now."""
        found = self.client().find(CONFIG_MAP, self.name)
        return read_status(found.get("data") or {}) if found is not None else None

    def until(self, reached: Callable[[RunStatus], bool], seconds: float = SILENCE) -> RunStatus:
        """Wait for a status; `seconds`: how long nothing at all may happen to the run."""
        found = wait_for(
            self.status,
            lambda status: status is not None and reached(status),
            moves=lambda status: (status, len(self.kubelet.started), self.kubelet.pods()),
            told=lambda status: f"{status}\n{self.kubelet.log_of(self.name + '-conductor-*')[-3000:]}",
            seconds=seconds,
        )
        assert found is not None, "that is what was waited for"
        return found

    def until_at_work(self, task: str) -> str:
        """Wait until a process of the task has said how far it is, as scripts do before anything else; returns its pod's name."""
        self.until(lambda status: status.task(task).state == "running")
        prefix = self.submission().record.task(task).object

        def speak() -> list[str]:
            return [pod for pod in self.kubelet.pods(prefix) if '"progress"' in self.kubelet.log_of(pod)]

        return wait_for(speak, bool, moves=lambda _: self.kubelet.pods(), told=lambda _: f"{task} of {self.kubelet.pods()} is silent")[0]

    def left(self) -> set[str]:
        """What is in the namespace, besides what every namespace has: `configmap/x`."""
        known = {one["kind"] for one in self.client().resources("kubeflow.org/v1") or ()}
        kinds = f"{KINDS},pytorchjobs" if "PyTorchJob" in known else KINDS
        found = json.loads(self.lab.kubectl("get", kinds, "--namespace", self.namespace, "--output=json"))["items"]
        names = {f"{one['kind'].lower()}/{name_of(one)}" for one in found}
        return {one for one in names if one not in ("configmap/kube-root-ca.crt", "serviceaccount/default")}

    def until_only_the_record_is_left(self) -> None:
        """Wait for it."""
        wait_for(self.left, lambda left: left == {f"configmap/{self.name}"})

    def results(self) -> dict[str, str]:
        """Every result object of every task -> its sha256, as the manifests list them."""
        found = {}
        for task in self.submission().run.tasks:
            manifest = json.loads(self.submission().run.root.get(f"{task.prefix}/_manifest.json"))
            found |= {f"{task.prefix}/{one['key']}": one["sha256"] for one in manifest["objects"]}
        return found

    def conductor(self) -> str:
        """The pod of the conductor at work."""
        return next(iter(self.kubelet.pods(f"{self.name}-conductor")))

    def objects(self, kind: str) -> list[Object]:
        """The run's objects of a kind."""
        return list(self.lab.get(kind, namespace=self.namespace, selector=f"dail.dev/run={self.name}")["items"])


@functools.cache
def _composed(file: Path, text: str, namespace: str) -> Submission:
    """Composing reads data and renders a chart, and tests ask for the run's name all the time."""
    assert text, "the text is what makes a changed file another one"
    return compose(run_of_file(file), namespace)


@contextlib.contextmanager
def cluster_run(lab: ControlPlane, namespace: str, bucket: Bucket, folder: Path, command: Any = scripted) -> Iterator[ClusterRun]:
    """A job file, a secret with the bucket's credentials, and a node; nothing is submitted yet."""
    credentials = {name: bucket.server.environment()[name] for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")}
    lab.apply({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s3"}, "stringData": credentials}, namespace=namespace)
    (folder / "pods").mkdir()
    with kubelet_on(lab, namespace, folder / "pods", command) as kubelet:
        run = ClusterRun(lab, namespace, bucket, kubelet, folder, lab.kubeconfig, [])
        run.write()
        yield run
