"""What all benchmarks share: interleaved repetitions, facts about the machine, and the last line."""

from __future__ import annotations

import json
import os
import platform
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch

Case = Callable[[], float]
"""Runs once and returns the figure measured, for example tokens per second."""


def interleaved(cases: Mapping[str, Case], repeats: int) -> dict[str, float]:
    """The median figure of each case. The cases take turns, so that a slow minute of the machine hits all of them."""
    return {name: statistics.median(figures) for name, figures in turns(cases, repeats).items()}


def ratio(found: Mapping[str, Sequence[float]], one: str, two: str) -> float:
    """The median over the turns of what `one` is to `two`: figures of one turn met the same machine."""
    return statistics.median(a / b for a, b in zip(found[one], found[two], strict=True))


def turns(cases: Mapping[str, Case], repeats: int) -> dict[str, list[float]]:
    """The figures of each case, which take turns."""
    found: dict[str, list[float]] = {name: [] for name in cases}
    for name, case in cases.items():
        case()  # Warm-up: memory, threads and kernels are set up by the first call.
        print(f"{name}: warm", file=sys.stderr)
    for turn in range(repeats):
        for name, case in cases.items():
            found[name].append(case())
            print(f"{turn + 1}/{repeats} {name}: {found[name][-1]:,.6g}", file=sys.stderr)
    return found


def machine() -> dict[str, str | int | float]:
    """Facts that figures depend on."""
    facts: dict[str, str | int | float] = {
        "cpu": _cpu(),
        "cores": os.cpu_count() or 0,
        "threads": torch.get_num_threads(),
        "load": round(os.getloadavg()[0], 1),
        "torch": torch.__version__,
        "python": platform.python_version(),
    }
    if torch.cuda.is_available():
        facts["gpu"] = torch.cuda.get_device_name()
    return facts


def last_line(bench: str, ratios: Mapping[str, float]) -> None:
    """Print the result: the last line of every benchmark."""
    print(json.dumps({"bench": bench, "ratios": {name: round(value, 4) for name, value in ratios.items()}, "machine": machine()}))


def _cpu() -> str:
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()
