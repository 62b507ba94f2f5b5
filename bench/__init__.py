"""Benchmarks. `python -m bench.NAME` measures in one run and ends with one line of JSON: {"bench", "ratios", "machine"}."""

import os

# As in every stage process (dail_runtime.stages.__main__), and before torch is loaded: on a machine that is not idle, threads that spin
# for each other would decide the figures.
os.environ.setdefault("GOMP_SPINCOUNT", "2000")
