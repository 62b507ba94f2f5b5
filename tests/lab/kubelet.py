"""What makes a machine a node of the lab: kubelet, kube-proxy and CoreDNS, and the settings of its containerd."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from tests.lab import cgroups, kubeconfig, network
from tests.lab.components import Launch
from tests.lab.pki import Authority

if TYPE_CHECKING:
    from tests.lab.node import Node

NAME = "lab-node"
CNI_NAME = "dail-lab"
READY_SECONDS = 900
CONTAINERD = """version = 3
root = "{images}"
state = "{folder}/containerd"

[grpc]
address = "{folder}/containerd.sock"

[plugins.'io.containerd.cri.v1.images'.pinned_images]
sandbox = "{sandbox}"

[plugins.'io.containerd.cri.v1.runtime']
# The machine may be a container itself, which may not be better placed than it is.
restrict_oom_score_adj = true
netns_mounts_under_state_dir = true

[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"

[plugins.'io.containerd.cri.v1.runtime'.cni]
bin_dirs = ["/usr/lib/cni"]
conf_dir = "{folder}/cni"
"""
COREFILE = """cluster.local:53 in-addr.arpa:53 {{
    bind {address}
    errors
    kubernetes cluster.local in-addr.arpa {{
        kubeconfig {kubeconfig} lab
        ttl 2
    }}
}}
# There is no way to the outside.
.:53 {{
    bind {address}
    template ANY ANY {{
        rcode NXDOMAIN
    }}
}}
"""
DNS_RULES = [
    {"apiGroups": [""], "resources": ["endpoints", "services", "pods", "namespaces"], "verbs": ["list", "watch"]},
    {"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": ["list", "watch"]},
]


def containerd_config(folder: Path, images: Path, sandbox: str) -> Path:
    """Writes containerd's settings and the network of its pods; the path of the former."""
    ranges = [[{"subnet": network.PODS, "rangeStart": "10.88.0.10", "gateway": network.POD_GATEWAY}]]
    bridge = {
        "type": "bridge",
        "bridge": network.POD_BRIDGE,
        "isGateway": True,
        "hairpinMode": True,
        "ipam": {"type": "host-local", "dataDir": f"{folder}/addresses", "ranges": ranges, "routes": [{"dst": "0.0.0.0/0"}]},
    }
    (folder / "cni").mkdir()
    (folder / "cni" / "10-lab.conflist").write_text(json.dumps({"cniVersion": "1.0.0", "name": CNI_NAME, "plugins": [bridge]}))
    path = folder / "containerd.toml"
    path.write_text(CONTAINERD.format(folder=folder, images=images, sandbox=sandbox))
    return path


def start(node: Node, launch: Launch) -> None:
    """Starts the node's programs and returns when the scheduler may use the node and names resolve."""
    folder, authority = node.folder, Authority.read(node.folder / "pki", "ca")
    server, trusted = kubeconfig.server_of(node.kubeconfig)
    users = {"kubelet": (f"system:node:{NAME}", ["system:nodes"]), "kube-proxy": ("system:kube-proxy", [])}
    paths = {
        program_name: kubeconfig.with_certificate(
            folder / f"kubeconfig-{program_name}", server, trusted, user, authority.user(user, groups)
        )
        for program_name, (user, groups) in users.items()
    }
    launch(
        "kube-proxy",
        f"--kubeconfig={paths['kube-proxy']}",
        "--proxy-mode=iptables",
        f"--hostname-override={NAME}",
        f"--bind-address={network.NODE_ADDRESS}",
        f"--cluster-cidr={network.PODS}",
        "--conntrack-max-per-core=0",
    )
    dns = node.user("coredns", "kube-system", [], DNS_RULES)
    corefile = folder / "Corefile"
    corefile.write_text(COREFILE.format(address=network.NODE_ADDRESS, kubeconfig=dns))
    launch("coredns", f"-conf={corefile}")
    kubelet = launch(
        "kubelet",
        f"--config={_kubelet_config(folder, authority)}",
        f"--kubeconfig={paths['kubelet']}",
        f"--hostname-override={NAME}",
        f"--node-ip={network.NODE_ADDRESS}",
        f"--root-dir={folder}/kubelet",
    )
    kubelet.wait(lambda: _ready(node), READY_SECONDS)


def remove_traces(folder: Path) -> None:
    """Removes what kubelet and network plugins write at fixed places outside the lab's folder."""
    for link in Path("/var/log/containers").glob("*.log"):
        if link.is_symlink() and link.readlink().is_relative_to(folder):
            link.unlink()
    for result in Path("/var/lib/cni/results").glob(f"{CNI_NAME}-*"):
        result.unlink()
    for path in (Path("/var/log/containers"), Path("/var/lib/cni/results"), Path("/var/lib/cni")):
        with contextlib.suppress(OSError):
            path.rmdir()


def _kubelet_config(folder: Path, authority: Authority) -> Path:
    certificate, key = authority.server(NAME, [network.NODE_ADDRESS]).write(folder / "pki", "kubelet")
    config = {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "address": network.NODE_ADDRESS,
        "authentication": {"anonymous": {"enabled": False}, "x509": {"clientCAFile": f"{folder}/pki/ca.crt"}, "webhook": {"enabled": True}},
        "authorization": {"mode": "Webhook"},
        "tlsCertFile": str(certificate),
        "tlsPrivateKeyFile": str(key),
        "clusterDNS": [network.NODE_ADDRESS],
        "clusterDomain": "cluster.local",
        "containerRuntimeEndpoint": f"unix://{folder}/containerd.sock",
        "podLogsDir": f"{folder}/pod-logs",
        "volumePluginDir": f"{folder}/volume-plugins",
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": f"/{cgroups.NAME}",
        "enforceNodeAllocatable": [],
        "failCgroupV1": False,
        "failSwapOn": False,
        # The machine may be a container itself, which may not be better placed than it is.
        "oomScoreAdj": 0,
        # The disk is the whole machine's, and the store of images is to stay.
        "evictionHard": {"memory.available": "100Mi"},
        "imageGCHighThresholdPercent": 100,
        # A test is not to wait for a pod that is slow to be seen.
        "syncFrequency": "5s",
        "nodeStatusUpdateFrequency": "5s",
    }
    path = folder / "kubelet.yaml"
    path.write_text(yaml.safe_dump(config, sort_keys=False))
    return path


def _ready(node: Node) -> bool:
    nodes = node.get("nodes")["items"]
    found = [one for one in nodes if one["metadata"]["name"] == NAME]
    conditions = {one["type"]: one["status"] for one in found[0]["status"].get("conditions", [])} if found else {}
    return conditions.get("Ready") == "True" and not found[0]["spec"].get("taints")
