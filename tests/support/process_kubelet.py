"""A kubelet for the control-plane lab whose pods are processes of this machine: their commands really run, with the environment that the
pod gives them, and end with the exit code that the pod then shows. No root, no images, no network of their own.

It plays what Kubernetes and dail rely on: phases, restarts with their back-off, termination messages, graceful deletion, logs over the
kubelet's own HTTPS endpoint (so that `pods/log` works), image pulls that fail, secrets that are missing. Node objects are the lab's
(`nodes(played=False)`).
"""

from __future__ import annotations

import contextlib
import http.server
import os
import shutil
import signal
import ssl
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from dail_runtime.errors import DailError
from dailctl.kube import Client, load_access
from dailctl.kube.cache import Cache
from dailctl.kube.resources import NODE, POD, SECRET, Object, name_of, uid_of
from dailctl.kube.transport import Request, Transport
from tests.lab.control_plane import ControlPlane
from tests.lab.folders import ports
from tests.lab.pki import Authority

REPOSITORY = Path(__file__).parents[2]
RESTART_PAUSE = 0.5
"""Seconds before a container is started again (a real kubelet begins with 10)."""
PATIENCE = 300.0
"""Seconds for which a request is tried again: a kubelet tells its news when the API server is back."""
PLACES = {"HOME": "home", "TMPDIR": "tmp", "HF_HOME": "cache", "DAIL_CACHE": "cache"}
"""Variables that name a folder of the container: here one of the pod's own."""

Command = Callable[[Sequence[str]], Sequence[str]]
"""From the command that a container names to the one that is run."""


def as_here(command: Sequence[str]) -> Sequence[str]:
    """The command with this test run's Python."""
    return [sys.executable, *command[1:]] if command[0] == "python" else command


class ProcessKubelet:
    """The pods of one namespace on one node."""

    def __init__(self, lab: ControlPlane, node: str, namespace: str, folder: Path, command: Command = as_here) -> None:
        access = load_access(lab.kubeconfig, namespace=namespace)
        self.images = {"localhost/dail:1"}
        """What can be pulled."""
        self.environment: dict[str, str] = {}
        """What every container gets besides its own."""
        self.started: list[tuple[str, tuple[str, ...]]] = []
        """(pod, command) of every container that was started."""
        self._lab, self._node, self._namespace, self._folder = lab, node, namespace, folder
        self._command = command
        self._client = Client(access, patience=PATIENCE)
        self._transport = Transport(access, PATIENCE)
        self._changed = threading.Event()
        self._end = threading.Event()
        self._pods: dict[str, _Pod] = {}
        self._cache = Cache(self._client, POD, self._changed.set, fields=f"spec.nodeName={node}")
        self._server = _log_server(lab, self)
        (self.port,) = ports(1)
        self._thread = threading.Thread(target=self._run, name="kubelet", daemon=True)

    def start(self) -> None:
        """Take up the node's pods, now and from now on."""
        port = self._server.server_address[1]
        status = {"addresses": [{"type": "InternalIP", "address": "127.0.0.1"}], "daemonEndpoints": {"kubeletEndpoint": {"Port": port}}}
        path = NODE.path(None, self._node, "status")
        merge = "application/merge-patch+json"
        self._transport.json(Request("PATCH", path, "set the node's address", body={"status": status}, content_type=merge))
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        self._cache.start()
        self._thread.start()

    def stop(self) -> None:
        """Kill everything."""
        self._end.set()
        self._changed.set()
        self._cache.stop()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(120)
        for pod in list(self._pods.values()):
            pod.kill()

    def pods(self, prefix: str = "") -> list[str]:
        """Names of pods whose process runs."""
        return [pod.name for pod in list(self._pods.values()) if pod.running() and pod.name.startswith(prefix)]

    def kill(self, name: str, number: int = signal.SIGKILL) -> None:
        """A signal to the pod's process alone, as from the kernel's out-of-memory killer."""
        next(pod for pod in list(self._pods.values()) if pod.name == name and pod.running()).signal(number)

    def process_of(self, name: str) -> int:
        """Process id of a pod that runs."""
        return next(pod.pid for pod in list(self._pods.values()) if pod.name == name and pod.running())

    def log_of(self, name: str) -> str:
        """What a pod wrote, also one that is gone."""
        return "".join(path.read_text(errors="replace") for path in sorted(self._folder.glob(f"{name}/log*")))

    def set_status(self, pod: Object, status: Object) -> None:
        """Write a pod's status; nothing where it is gone."""
        body = {"metadata": {"uid": uid_of(pod)}, "status": status}
        path, merge = POD.path(self._namespace, name_of(pod), "status"), "application/merge-patch+json"
        with contextlib.suppress(DailError):
            self._transport.json(Request("PATCH", path, "write a pod's status", body=body, content_type=merge))

    def remove(self, pod: Object) -> None:
        """Confirm that a pod has ended."""
        options = {"gracePeriodSeconds": 0, "preconditions": {"uid": uid_of(pod)}}
        path = POD.path(self._namespace, name_of(pod))
        with contextlib.suppress(DailError):
            self._transport.json(Request("DELETE", path, "confirm a pod's end", body=options))

    def environment_of(self, pod: Object, container: Object, folder: Path) -> dict[str, str] | str:
        """What the container's process gets; a text where the kubelet could not make it up."""
        found = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "DAIL_", "KUBE"))}
        found |= {"PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1", **self.environment}
        for variable in container.get("env") or ():
            name, source = variable["name"], variable.get("valueFrom") or {}
            if "fieldRef" in source:
                found[name] = {"metadata.name": name_of(pod), "metadata.namespace": self._namespace}[source["fieldRef"]["fieldPath"]]
            elif "secretKeyRef" in source:
                reference = source["secretKeyRef"]
                secret = self._client.find(SECRET, reference["name"])
                value = ((secret or {}).get("data") or {}).get(reference["key"])
                if value is not None:
                    import base64

                    found[name] = base64.b64decode(value).decode()
                elif not reference.get("optional"):
                    return f'secret "{reference["name"]}" not found'
            else:
                found[name] = variable.get("value", "")
        for name, place in PLACES.items():
            if name in found:
                (folder / place).mkdir(exist_ok=True)
                found[name] = str(folder / place)
        for name in ("MASTER_ADDR", "PET_MASTER_ADDR"):
            if name in found:
                found[name] = "127.0.0.1"
        for name in ("MASTER_PORT", "PET_MASTER_PORT"):
            if name in found:
                found[name] = str(self.port)
        if pod["spec"].get("automountServiceAccountToken"):
            found["KUBECONFIG"] = str(self._lab.service_account(pod["spec"]["serviceAccountName"], self._namespace))
        return found

    def command_of(self, command: Sequence[str]) -> Sequence[str]:
        """What is run for it."""
        return self._command(command)

    def _run(self) -> None:
        while not self._end.is_set():
            self._changed.wait(1.0)
            self._changed.clear()
            there = {uid_of(one): one for one in self._cache.objects()}
            for uid, obj in there.items():
                if uid not in self._pods:
                    if obj["metadata"].get("deletionTimestamp"):
                        self.remove(obj)
                        continue
                    if (obj.get("status") or {}).get("phase") in ("Succeeded", "Failed"):
                        continue
                    self._pods[uid] = _Pod(self, obj, self._folder / name_of(obj))
                    self._pods[uid].start()
                elif obj["metadata"].get("deletionTimestamp"):
                    self._pods[uid].delete(int(obj["metadata"].get("deletionGracePeriodSeconds", 30)))
            for uid in [uid for uid in self._pods if uid not in there]:
                self._pods.pop(uid).kill()


class _Pod:
    """One pod: its thread starts its container, and again where the pod says so."""

    def __init__(self, kubelet: ProcessKubelet, obj: Object, folder: Path) -> None:
        self.name = name_of(obj)
        self._kubelet, self._obj = kubelet, obj
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        self._deleted: threading.Event = threading.Event()
        self._last: Object | None = None
        self._restarts = 0
        self._began = _now()
        self._thread = threading.Thread(target=self._live, name=self.name, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        assert self._process is not None, "it was started"
        return self._process.pid

    def signal(self, number: int) -> None:
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(number)

    def kill(self) -> None:
        self._deleted.set()
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, signal.SIGKILL)

    def delete(self, grace: int) -> None:
        if self._deleted.is_set():
            return
        self._deleted.set()
        threading.Thread(target=self._end, args=(grace,), daemon=True).start()

    def log(self, previous: bool) -> bytes:
        path = self._folder / f"log-{self._restarts - 1 if previous else self._restarts}"
        return path.read_bytes() if path.exists() else b""

    def lines(self, life: int) -> list[tuple[str, bytes]]:
        """(time, line) of what the container wrote in one of its lives."""
        log, times = self._folder / f"log-{life}", self._folder / f"times-{life}"
        return list(zip(times.read_text().split(), log.read_bytes().splitlines(keepends=True), strict=False)) if times.exists() else []

    def life(self) -> int:
        """How often the container was started again."""
        return self._restarts

    def _end(self, grace: int) -> None:
        self.signal(signal.SIGTERM)
        if self._process is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(grace)
        self.kill()
        self._thread.join(30)
        self._kubelet.remove(self._obj)

    def _live(self) -> None:
        container = self._obj["spec"]["containers"][0]
        if container["image"] not in self._kubelet.images:
            image = container["image"]
            said = f'failed to pull and unpack image "{image}": failed to resolve reference "{image}": {image}: not found'
            self._wait("ErrImagePull", said)
            return
        policy = self._obj["spec"].get("restartPolicy", "Always")
        while not self._deleted.is_set():
            environment = self._kubelet.environment_of(self._obj, container, self._folder)
            if isinstance(environment, str):
                self._wait("CreateContainerConfigError", environment)
                if self._deleted.wait(1.0):
                    return
                continue
            code = self._once(container, environment)
            again = not self._deleted.is_set() and (policy == "Always" or (policy == "OnFailure" and code != 0))
            if not again:
                self._status("Succeeded" if code == 0 else "Failed", {"terminated": self._last})
                return
            self._restarts += 1
            self._wait("CrashLoopBackOff", "back-off restarting failed container", phase="Running")
            self._deleted.wait(RESTART_PAUSE)

    def _once(self, container: Object, environment: dict[str, str]) -> int:
        command = self._kubelet.command_of([*container["command"], *(container.get("args") or ())])
        started = _now()
        self._process = subprocess.Popen(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd=self._folder,
            start_new_session=True,
        )
        writer = threading.Thread(target=self._write_log, args=(self._process, self._restarts), daemon=True)
        writer.start()
        self._kubelet.started.append((self.name, tuple(container["command"])))
        if self._deleted.is_set():
            # It was deleted while its process was being made, which the signals have missed.
            self.kill()
        self._status("Running", {"running": {"startedAt": started}}, ready=True)
        code = self._process.wait()
        # Workers that a killed process leaves behind end with their container.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        writer.join(10)
        code = 128 - code if code < 0 else code
        tail = b"\n".join(self.log(False).splitlines()[-80:])[-2048:] if code else b""
        self._last = {
            **{"exitCode": code, "reason": "Completed" if code == 0 else "Error", "startedAt": started, "finishedAt": _now()},
            "message": tail.decode(errors="replace"),
        }
        return code

    def _write_log(self, process: subprocess.Popen[bytes], life: int) -> None:
        """As a container runtime does: each line with the time at which it came."""
        assert process.stdout is not None
        log, times = (self._folder / f"log-{life}").open("ab"), (self._folder / f"times-{life}").open("a")
        with log, times, process.stdout as lines:
            for line in lines:
                # The time first: a line that is in the log is one that `lines` knows.
                times.write(datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ") + "\n")
                times.flush()
                log.write(line)
                log.flush()

    def _wait(self, reason: str, message: str, phase: str = "Pending") -> None:
        self._status(phase, {"waiting": {"reason": reason, "message": message}})

    def _status(self, phase: str, state: Object, ready: bool = False) -> None:
        spec = self._obj["spec"]
        container = spec["containers"][0]
        word = "True" if ready else "False"
        stamp = _now()
        shown: Object = {"name": container["name"], "image": container["image"], "imageID": "", "ready": ready, "state": state}
        shown |= {"restartCount": self._restarts}
        if self._last is not None and "terminated" not in state:
            shown["lastState"] = {"terminated": self._last}
        inits = [
            {
                **{"name": one["name"], "image": one["image"], "imageID": "", "ready": True, "restartCount": 0},
                "state": {"terminated": {"exitCode": 0, "reason": "Completed", "startedAt": self._began, "finishedAt": self._began}},
            }
            for one in spec.get("initContainers") or ()
        ]
        conditions = [{"type": "PodScheduled", "status": "True", "lastTransitionTime": self._began}]
        conditions += [{"type": kind, "status": word, "lastTransitionTime": stamp} for kind in ("Ready", "ContainersReady")]
        kept = [one for one in self._obj.get("status", {}).get("conditions", []) if one["type"] == "DisruptionTarget"]
        status: Object = {"phase": phase, "startTime": self._began, "conditions": [*conditions, *kept], "containerStatuses": [shown]}
        self._kubelet.set_status(self._obj, {**status, "initContainerStatuses": inits} if inits else status)


def _log_server(lab: ControlPlane, kubelet: ProcessKubelet) -> http.server.ThreadingHTTPServer:
    """The kubelet's endpoint for logs, which the API server asks for `pods/log`."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            parts = urlsplit(self.path)
            words = parts.path.strip("/").split("/")
            pod = next((one for one in list(kubelet._pods.values()) if len(words) > 2 and one.name == words[2]), None)
            if words[0] != "containerLogs" or pod is None:
                self.send_error(404)
                return
            query = parse_qs(parts.query)
            if "follow" in query or "timestamps" in query or "sinceTime" in query:
                self._lines(pod, query)
                return
            text = pod.log("previous" in query)
            if "tailLines" in query:
                text = b"".join(text.splitlines(keepends=True)[-int(query["tailLines"][0]) :])
            self.send_response(200)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def _lines(self, pod: _Pod, query: dict[str, list[str]]) -> None:
            """With times, from a time on, or as they come until the container ends."""
            life = pod.life() - ("previous" in query)
            since = query.get("sinceTime", [""])[0].rstrip("Z")
            self.send_response(200)
            self.end_headers()
            sent = max(0, len(pod.lines(life)) - int(query["tailLines"][0])) if "tailLines" in query else 0
            while True:
                over = pod.life() > life or not pod.running() or "follow" not in query
                new = pod.lines(life)[sent:]
                sent += len(new)
                for stamp, line in new:
                    if stamp >= since:
                        self.wfile.write(f"{stamp} ".encode() + line if "timestamps" in query else line)
                self.wfile.flush()
                if over and not new:
                    return
                time.sleep(0.05)

        def log_message(self, *_: Any) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    pair = Authority.read(lab.folder / "pki", "ca").server("node", ["127.0.0.1"])
    folder = Path(tempfile.mkdtemp(prefix="kubelet-", dir=lab.folder))
    certificate, key = pair.write(folder, "kubelet")
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate, key)
    server.socket = tls.wrap_socket(server.socket, server_side=True)
    return server


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


@contextlib.contextmanager
def kubelet_on(lab: ControlPlane, namespace: str, folder: Path, command: Command = as_here, *, gpus: int = 8) -> Iterator[ProcessKubelet]:
    """A node for the namespace's pods, until the block ends."""
    with lab.nodes(1, gpus=gpus, played=False, labels={"test": namespace}) as names:
        kubelet = ProcessKubelet(lab, names[0], namespace, folder, command)
        kubelet.start()
        try:
            yield kubelet
        finally:
            kubelet.stop()
