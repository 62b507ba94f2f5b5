"""A cluster as tests use it: any that a kubeconfig of an administrator leads to."""

from __future__ import annotations

import contextlib
import json
import subprocess
import tempfile
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.lab import kubeconfig
from tests.lab.binaries import program
from tests.lab.components import Component
from tests.support.require import require

Object = dict[str, Any]
FIELD_MANAGER = "dail-lab"
TOKEN_HOURS = 8760
COMMAND_SECONDS = 600


class KubectlError(RuntimeError):
    """kubectl failed; the message is what it said."""


@dataclass(frozen=True)
class Cluster:
    """An administrator's view of a cluster."""

    kubeconfig: Path
    """The administrator's; `user` makes others."""

    def kubectl(self, *words: object, stdin: str | None = None, kubeconfig: Path | None = None) -> str:
        """Standard output of `kubectl WORDS`; KubectlError with what it said where it fails."""
        command = [str(program("kubectl")), f"--kubeconfig={kubeconfig or self.kubeconfig}", *map(str, words)]
        end = time.monotonic() + COMMAND_SECONDS
        while True:
            result = subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=COMMAND_SECONDS)
            # `kubectl wait` takes an object whose status nobody has written yet for an error, not for one to wait for.
            if "conditions accessor error" not in result.stderr or time.monotonic() > end:
                break
            time.sleep(0.2)
        if result.returncode:
            raise KubectlError(result.stderr.strip() or f"kubectl ended with {result.returncode}")
        return result.stdout

    def get(self, kind: str, name: str = "", namespace: str = "", selector: str = "") -> Object:
        """One object, or a list of them where no name is given."""
        words = [kind, *([name] if name else []), *([f"--namespace={namespace}"] if namespace else [])]
        return dict(json.loads(self.kubectl("get", *words, *([f"--selector={selector}"] if selector else []), "--output=json")))

    def apply(self, *objects: Mapping[str, Any], namespace: str = "") -> None:
        """Server-side apply, unknown fields refused."""
        listed = json.dumps({"apiVersion": "v1", "kind": "List", "items": objects})
        words = ["--server-side", "--validate=strict", f"--field-manager={FIELD_MANAGER}", "--force-conflicts", "--filename=-"]
        self.kubectl("apply", *([f"--namespace={namespace}"] if namespace else []), *words, stdin=listed)

    @contextlib.contextmanager
    def namespace(self, prefix: str = "test", pod_security: str = "restricted") -> Iterator[str]:
        """A namespace of its own with this Pod Security level enforced; it and its pods go when the block ends."""
        name = f"{prefix}-{uuid.uuid4().hex[:8]}"
        labels = {"pod-security.kubernetes.io/enforce": pod_security, "pod-security.kubernetes.io/enforce-version": "latest"}
        self.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}})
        try:
            yield name
        finally:
            # No kubelet may be there to confirm the end of a pod. What fails because the test broke the cluster is no second failure.
            with contextlib.suppress(KubectlError, subprocess.TimeoutExpired):
                self.kubectl("delete", "namespace", name, "--wait=false")
                self.kubectl("delete", "pods", "--all", f"--namespace={name}", "--grace-period=0", "--force", "--wait=false")

    def user(self, name: str, namespace: str, rules: Sequence[Mapping[str, Any]], cluster_rules: Sequence[Mapping[str, Any]] = ()) -> Path:
        """A kubeconfig whose user may do what the RBAC rules say, in `namespace` (and `cluster_rules` cluster-wide), and nothing else.

        The user is a service account with a token, so that it exists on every cluster.
        """
        subject = {"kind": "ServiceAccount", "name": name, "namespace": namespace}
        objects: list[Object] = [{"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name, "namespace": namespace}}]
        for kind, granted in (("Role", rules), ("ClusterRole", cluster_rules)):
            where = {"name": name, "namespace": namespace} if kind == "Role" else {"name": f"{namespace}-{name}"}
            role = {"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": where["name"]}
            if granted:
                version = {"apiVersion": "rbac.authorization.k8s.io/v1"}
                objects.append({**version, "kind": kind, "metadata": where, "rules": list(granted)})
                objects.append({**version, "kind": f"{kind}Binding", "metadata": where, "roleRef": role, "subjects": [subject]})
        self.apply(*objects)
        return self.service_account(name, namespace)

    def service_account(self, name: str, namespace: str) -> Path:
        """A kubeconfig of a service account that exists."""
        token = self.kubectl("create", "token", name, f"--namespace={namespace}", f"--duration={TOKEN_HOURS}h").strip()
        server, authority = kubeconfig.server_of(self.kubeconfig)
        path = Path(tempfile.mkdtemp(prefix="dail-user-")) / "kubeconfig"
        return kubeconfig.with_token(path, server, authority, name, token, namespace)

    # What only a lab can do. On another cluster, the test that asks for it is skipped with the reason.

    def component(self, name: str) -> Component:
        """A process of the control plane, to stop, kill or look at."""
        raise _only_in_a_lab(f"{name} as a process")

    def start(self, name: str) -> None:
        """Starts a component that was stopped or killed, on the data it had, and returns when it is of use again."""
        raise _only_in_a_lab(f"to start {name}")

    def person(self, name: str, groups: Sequence[str] = ()) -> Path:
        """A kubeconfig for a user known by a certificate; RBAC decides what that user may do."""
        raise _only_in_a_lab(f"a certificate for {name} of {groups}")

    def requests(self, user: str = "") -> list[Object]:
        """What was asked of the API server so far, by all but the control plane itself: audit events (audit.k8s.io/v1, level Metadata).

        `user` is a whole name such as `system:serviceaccount:NAMESPACE:NAME`.
        """
        raise _only_in_a_lab(f"the audit log of {user or 'everyone'}")

    @contextlib.contextmanager
    def nodes(self, count: int = 1, **shape: Any) -> Iterator[list[str]]:
        """This many simulated nodes, until the block ends: their names. Keywords are the fields of `simulated.Shape`."""
        raise _only_in_a_lab(f"{count} simulated nodes with {shape}")
        yield []


def _only_in_a_lab(what: str) -> AssertionError:
    require(False, f"the test needs {what}, and DAIL_TEST_KUBECONFIG leads to a cluster that is not the lab's")
    return AssertionError(what)
