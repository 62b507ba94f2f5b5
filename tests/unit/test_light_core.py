"""The core stays light: what a laptop needs to write, check and watch a job starts at once and pulls in nothing heavy."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time

import pytest

from tests.support.machine import slowness

HEAVY = ("torch", "transformers", "peft", "numpy", "vllm", "boto3", "botocore", "kubernetes", "math_verify", "pyarrow", "sympy")
LIMIT = 0.3


def loaded_after(code: str) -> list[str]:
    """Top-level modules that `code` leaves in sys.modules, in a fresh Python."""
    script = f"import json, sys\n{code}\nprint(json.dumps(sorted({{name.split('.')[0] for name in sys.modules}})))"
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    loaded: list[str] = json.loads(run.stdout.splitlines()[-1])
    return loaded


@pytest.mark.parametrize(
    "code",
    [
        "import dailctl",
        "import dailctl.cli.main",
        "import dailctl.runs, dailctl.backends.local, dailctl.backends.lock, dailctl.checks, dailctl.download, dailctl.summary",
        "import dail_runtime.spec.load, dail_runtime.spec.content, dail_runtime.store, dail_runtime.records, dail_runtime.data",
        "import dail_runtime.stages.base, dail_runtime.stages.jobs, dail_runtime.stages.run, dail_runtime.stages.__main__",
    ],
)
def test_the_core_imports_nothing_heavy(code: str) -> None:
    assert sorted(set(HEAVY) & set(loaded_after(code))) == []


@pytest.mark.parametrize("verb", [["version"], ["--help"], ["run", "--help"], ["schema"]])
def test_light_verbs_import_nothing_heavy(verb: list[str]) -> None:
    code = f"import contextlib, io\nfrom dailctl.cli.main import main\nwith contextlib.redirect_stdout(io.StringIO()): main({verb!r})"
    loaded = set(loaded_after(code))
    assert sorted(set(HEAVY) & loaded) == []
    if verb == ["version"]:
        assert "yaml" not in loaded


def test_ctrl_c_is_honoured_while_dailctl_itself_is_still_being_read() -> None:
    code = """import builtins, sys
from dailctl.__main__ import run
real = builtins.__import__
def stopped(name, *rest):
    if name == "typer":
        raise KeyboardInterrupt
    return real(name, *rest)
builtins.__import__ = stopped
sys.exit(run())"""
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (said.returncode, said.stdout, said.stderr) == (130, "", "")


def best_of(times: int, command: list[str]) -> float:
    """Shortest wall time: what the code costs, not what else the machine does. Processor time of the child, where less."""
    best = float("inf")
    for _ in range(times):
        before, start = os.times(), time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        wall, after = time.perf_counter() - start, os.times()
        used = after.children_user + after.children_system - before.children_user - before.children_system
        best = min(best, wall, used)
    return best


def test_import_dailctl_takes_less_than_300_ms() -> None:
    assert best_of(5, [sys.executable, "-c", "import dailctl"]) < LIMIT * slowness(time.process_time)


def test_the_programs_own_imports_take_less_than_300_ms_beyond_an_empty_python() -> None:
    program = best_of(5, [sys.executable, "-c", "import dailctl.cli.main"])
    empty = best_of(5, [sys.executable, "-c", "pass"])
    assert program - empty < LIMIT * slowness(time.process_time)
