"""A real Kubernetes control plane with the Kubeflow training operator and simulated nodes; needs no root."""

from __future__ import annotations

import contextlib
import json
import ssl
import urllib.request
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from tests.lab import folders, kubeconfig, operator, simulated
from tests.lab.binaries import program
from tests.lab.cluster import Cluster, Object
from tests.lab.components import Component
from tests.lab.pki import Authority, signing_key

SERVICES = "10.96.0.0/16"
API_SERVICE = "10.96.0.1"
ISSUER = "https://kubernetes.default.svc"
AUDIT = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "omitStages": ["RequestReceived"],
    # Leases and events of the control plane itself would be most of the log.
    "rules": [
        {"level": "None", "userGroups": ["system:masters", "system:nodes"]},
        {"level": "None", "users": ["system:*"]},
        {"level": "Metadata"},
    ],
}


@dataclass(frozen=True)
class Place:
    """Where a control plane listens."""

    address: str = "127.0.0.1"
    """Of the API server; the others listen on the loopback interface."""
    enter: tuple[str, ...] = ()
    """The command that starts programs there: none, or one that enters a network namespace."""
    ports: Mapping[str, int] | None = None
    """api, etcd, etcd-peer, webhook; chosen freely where None."""


@dataclass(frozen=True)
class ControlPlane(Cluster):
    """A control plane of the lab."""

    folder: Path

    @classmethod
    def attach(cls, folder: Path) -> Self:
        """The control plane that was started in `folder`, by whichever process."""
        return cls(folder / "kubeconfig", folder)

    def component(self, name: str) -> Component:
        """One of etcd, kube-apiserver, kube-controller-manager, kube-scheduler, kwok, training-operator; on a node also its own."""
        return Component(name, self.folder / "components")

    def start(self, name: str) -> None:
        self.component(name).start()
        api_server = self.component("kube-apiserver")
        if name in ("etcd", "kube-apiserver") and api_server.process:
            api_server.wait(self.ready)
        if name == operator.NAME:
            self.component(name).wait(lambda: operator.serves(self))

    def ready(self) -> bool:
        """Whether the API server and its etcd say that they are ready."""
        server, authority = kubeconfig.server_of(self.kubeconfig)
        context = ssl.create_default_context(cadata=authority.decode())
        with contextlib.suppress(OSError), urllib.request.urlopen(f"{server}/readyz", context=context, timeout=60) as answer:
            return bool(answer.status == 200)
        return False

    def person(self, name: str, groups: Sequence[str] = ()) -> Path:
        server, authority = kubeconfig.server_of(self.kubeconfig)
        pair = Authority.read(self.folder / "pki", "ca").user(name, groups)
        return kubeconfig.with_certificate(self.folder / f"kubeconfig-{uuid.uuid4().hex[:8]}", server, authority, name, pair)

    def requests(self, user: str = "") -> list[Object]:
        lines = (self.folder / "audit.jsonl").read_text().splitlines()
        events = [json.loads(line) for line in lines]
        return [event for event in events if not user or event["user"].get("username") == user]

    @contextlib.contextmanager
    def nodes(self, count: int = 1, **shape: Any) -> Iterator[list[str]]:
        group, objects = simulated.nodes(count, simulated.Shape(**shape))
        self.kubectl("create", "--filename=-", stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": objects}))
        try:
            self.kubectl(
                "wait", "node", "--for=condition=Ready", f"--timeout={600 + count}s", f"--selector={simulated.GROUP_LABEL}={group}"
            )
            yield [one["metadata"]["name"] for one in objects]
        finally:
            self.kubectl("delete", "node", f"--selector={simulated.GROUP_LABEL}={group}", "--wait=false")


@contextlib.contextmanager
def running() -> Iterator[ControlPlane]:
    """A control plane, until the block ends."""
    folder = folders.new_folder(owned=True)
    try:
        yield up(folder, owned=True)
    finally:
        folders.dismantle(folder)


def up(folder: Path, *, owned: bool, place: Place | None = None) -> ControlPlane:
    """Starts everything in an empty folder and returns when it is ready."""
    place = place or Place()
    ports = place.ports or dict(
        zip(("api", "etcd", "etcd-peer", "webhook", "operator-metrics", "operator-health"), folders.ports(6), strict=True)
    )
    keys = _keys(folder, place.address, ports["api"])
    lab = ControlPlane.attach(folder)

    def launch(name: str, *options: object, **environment: str) -> Component:
        command = [*place.enter, program(name), *options]
        return Component.launch(folder / "components", name, command, environment, owned=owned)

    client, peer = f"http://127.0.0.1:{ports['etcd']}", f"http://127.0.0.1:{ports['etcd-peer']}"
    launch(
        "etcd",
        f"--data-dir={folder}/etcd",
        f"--listen-client-urls={client}",
        f"--advertise-client-urls={client}",
        f"--listen-peer-urls={peer}",
        f"--initial-advertise-peer-urls={peer}",
        f"--initial-cluster=default={peer}",
        "--unsafe-no-fsync",
        "--log-level=warn",
    )
    api_server = launch("kube-apiserver", f"--etcd-servers={client}", *_api_server(folder, place.address, ports["api"], keys))
    api_server.wait(lab.ready)
    launch(
        "kube-controller-manager",
        f"--kubeconfig={folder}/kubeconfig-controller-manager",
        f"--service-account-private-key-file={keys}/accounts.key",
        f"--root-ca-file={keys}/ca.crt",
        "--use-service-account-credentials",
        "--leader-elect=false",
        "--secure-port=0",
    )
    launch("kube-scheduler", f"--kubeconfig={folder}/kubeconfig-scheduler", "--leader-elect=false", "--secure-port=0")
    launch(
        "kwok",
        f"--kubeconfig={folder}/kubeconfig-kwok",
        f"--config={simulated.STAGES}",
        "--manage-nodes-with-annotation-selector=kwok.x-k8s.io/node=fake",
        "--cidr=10.200.0.0/16",
        HOME=str(folder),
    )
    operator.start(lab, launch, ports)
    return lab


def _keys(folder: Path, address: str, port: int) -> Path:
    """Every key, certificate and kubeconfig of the control plane."""
    keys = folder / "pki"
    keys.mkdir()
    authority = Authority.new("dail-lab")
    authority.pair.write(keys, "ca")
    hosts = [
        address,
        "127.0.0.1",
        API_SERVICE,
        "localhost",
        *("kubernetes.default.svc.cluster.local".rsplit(".", cut)[0] for cut in (0, 2, 3, 4)),
    ]
    authority.server("kube-apiserver", hosts).write(keys, "kube-apiserver")
    authority.user("kube-apiserver-kubelet-client", ["system:masters"]).write(keys, "kubelet-client")
    private, public = signing_key()
    (keys / "accounts.key").write_bytes(private)
    (keys / "accounts.pub").write_bytes(public)
    users = {
        "kubeconfig": ("admin", ["system:masters"]),
        "kubeconfig-kwok": ("kwok", ["system:masters"]),
        "kubeconfig-controller-manager": ("system:kube-controller-manager", []),
        "kubeconfig-scheduler": ("system:kube-scheduler", []),
    }
    for name, (user, groups) in users.items():
        pair = authority.user(user, groups)
        kubeconfig.with_certificate(folder / name, f"https://{address}:{port}", authority.pair.certificate, user, pair)
    return keys


def _api_server(folder: Path, address: str, port: int, keys: Path) -> list[str]:
    policy = folder / "audit-policy.json"
    policy.write_text(json.dumps(AUDIT))
    local = address.startswith("127.")
    return [
        f"--bind-address={address}",
        f"--advertise-address={address}",
        f"--secure-port={port}",
        f"--tls-cert-file={keys}/kube-apiserver.crt",
        f"--tls-private-key-file={keys}/kube-apiserver.key",
        f"--client-ca-file={keys}/ca.crt",
        f"--kubelet-certificate-authority={keys}/ca.crt",
        f"--kubelet-client-certificate={keys}/kubelet-client.crt",
        f"--kubelet-client-key={keys}/kubelet-client.key",
        "--kubelet-preferred-address-types=InternalIP",
        f"--service-account-issuer={ISSUER}",
        f"--service-account-key-file={keys}/accounts.pub",
        f"--service-account-signing-key-file={keys}/accounts.key",
        f"--service-cluster-ip-range={SERVICES}",
        "--authorization-mode=Node,RBAC",
        "--enable-admission-plugins=NodeRestriction",
        "--allow-privileged",
        # A Service cannot lead to a loopback address; without a node nobody would follow it.
        f"--endpoint-reconciler-type={'none' if local else 'lease'}",
        f"--audit-policy-file={policy}",
        f"--audit-log-path={folder}/audit.jsonl",
        "--profiling=false",
    ]
