"""Nothing of a node is left on the machine, however the test that used it ended."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.lab import cgroups, network
from tests.lab import node as nodes
from tests.lab.components import components, wait_until
from tests.support.require import require

pytestmark = [pytest.mark.node, pytest.mark.slow]

SCRIPT = """
import time
from tests.lab import node
from tests.lab.test_node import template
with node.running() as lab, lab.namespace() as name:
    lab.apply({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "pod"}, "spec": template("pause")}, namespace=name)
    lab.kubectl("wait", "pod/pod", "--for=condition=Ready", "--timeout=600s", f"--namespace={name}")
    print("up", flush=True)
    input()
"""


def leftovers() -> list[str]:
    """What a node leaves on this machine while it is up, and must not leave behind."""
    mounts = [line.split()[1] for line in Path("/proc/self/mounts").read_text().splitlines()]
    commands = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        # Processes of others come and go meanwhile.
        with contextlib.suppress(OSError):
            commands.append(path.read_bytes())
    return [
        *(f"mount {one}" for one in mounts if one.startswith(str(nodes.HOME))),
        *(f"process {one!r}" for one in commands if str(nodes.FOLDER).encode() in one or b"/podtool" in one.split(b"\0")[0]),
        *(f"cgroup {one}" for one in cgroups.roots() if one.exists()),
        *(["namespace"] if network.exists() else []),
        *([f"folder {nodes.FOLDER}"] if nodes.FOLDER.exists() else []),
        *(f"link {one}" for one in Path("/var/log/containers").glob("*") if one.is_symlink() and not one.exists()),
    ]


@pytest.mark.parametrize("killed", [False, True], ids=["ended", "killed"])
def test_nothing_is_left_of_a_node_that(killed: bool, tmp_path: Path) -> None:
    reason = nodes.missing()
    require(not reason, reason)
    if nodes.is_up():
        pytest.skip("the machine's node was started with `python -m tests.lab up --node`, and stays")
    log, command = tmp_path / "log", [sys.executable, "-c", SCRIPT]
    with (
        log.open("w") as errors,
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True) as process,
    ):
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n", log.read_text()
        found = components(nodes.FOLDER / "components")
        assert {one.name for one in found} >= {"kubelet", "containerd", "kube-proxy", "coredns", "versitygw"}
        assert len(leftovers()) > 10
        if killed:
            process.send_signal(signal.SIGKILL)
        else:
            process.communicate("\n")
    if killed:
        # The programs die with the test; pods do not, on purpose: the next lab removes them.
        assert wait_until(lambda: not any(one.process for one in found), 120)
        assert any(one.startswith("process") for one in leftovers())
        with nodes.locked():
            nodes.down()
    assert leftovers() == []
