"""Runs a command and starts it again at once when it was killed: what a kubelet does with a container, without its back-off.

`python -m tests.support.restarting FILE COMMAND...`: FILE gets the process id of each start, one a line, so that tests know whom to kill.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys


def main() -> int:
    """Run it to its own end; returns its exit code."""
    marks, command = sys.argv[1], sys.argv[2:]
    while True:
        process = subprocess.Popen(command, process_group=0)
        signal.signal(signal.SIGTERM, lambda *_, child=process: child.terminate())
        with open(marks, "a") as file:  # noqa: PTH123
            file.write(f"{process.pid}\n")
        code = waited(process)
        if code != -signal.SIGKILL:
            return 128 - code if code < 0 else code


def waited(process: subprocess.Popen[bytes]) -> int:
    """Its exit code. A signal that comes just before a wait begins is heard by Python only when it wakes."""
    while True:
        with contextlib.suppress(subprocess.TimeoutExpired):
            return process.wait(0.5)


if __name__ == "__main__":
    if os.getpgrp() != os.getpid():
        os.setpgrp()
    sys.exit(main())
