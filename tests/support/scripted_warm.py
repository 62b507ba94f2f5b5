"""The real warm process (dail_runtime.stages.warm), whose children play scripted_stage.py."""

from __future__ import annotations

import socket
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from dail_runtime.stages.warm import serve
from tests.support.scripted_stage import main

if __name__ == "__main__":
    with socket.socket(fileno=int(sys.argv[1])) as inherited:
        serve(inherited, main, lambda _: None)
