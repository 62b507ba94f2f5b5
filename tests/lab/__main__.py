"""A lab for people: `python -m tests.lab up [--node]` prints the kubeconfig of a new one, `down KUBECONFIG|--node` removes it."""

from __future__ import annotations

import argparse
import signal
import sys
from pathlib import Path

from tests.lab import control_plane, folders, node
from tests.lab.cluster import Cluster
from tests.lab.components import LabError


def main(words: list[str]) -> int:
    """Runs one verb; 1, after a sentence, where the lab refuses."""
    parser = argparse.ArgumentParser(prog="python -m tests.lab", description=__doc__)
    verbs = parser.add_subparsers(dest="verb", required=True)
    up = verbs.add_parser("up", help="start a control plane that lives until `down`; prints its kubeconfig")
    up.add_argument("--node", action="store_true", help="this machine's whole node instead, as root; what is there is used again")
    down = verbs.add_parser("down", help="remove it")
    which = down.add_mutually_exclusive_group(required=True)
    which.add_argument("kubeconfig", type=Path, nargs="?", help="as `up` printed it")
    which.add_argument("--node", action="store_true", help="this machine's node, whoever started it")
    arguments = parser.parse_args(words)
    # As with Ctrl-C, what was begun is removed again.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        if arguments.verb == "up":
            print((_node() if arguments.node else _control_plane()).kubeconfig)
        elif arguments.node or arguments.kubeconfig.parent == node.FOLDER:
            with node.locked():
                node.down()
        else:
            _down(arguments.kubeconfig)
    except RuntimeError as err:
        print(f"error: {err}", file=sys.stderr)
        return 1
    return 0


def _control_plane() -> Cluster:
    folder = folders.new_folder(owned=False)
    try:
        return control_plane.up(folder, owned=False)
    except BaseException:
        folders.dismantle(folder)
        raise


def _node() -> Cluster:
    if reason := node.missing():
        raise LabError(reason)
    with node.locked():
        if node.is_up():
            return node.Node.attach(node.FOLDER)
        try:
            return node.up(owned=False)
        except BaseException:
            node.down()
            raise


def _down(kubeconfig: Path) -> None:
    if not (kubeconfig.parent / "owner").is_file():
        raise LabError(f"{kubeconfig} is not the kubeconfig of a lab; name the path that up printed")
    folders.dismantle(kubeconfig.parent)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
