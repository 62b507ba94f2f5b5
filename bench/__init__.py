"""Benchmarks. `python -m bench.NAME` measures in one run and ends with one line of JSON: {"bench", "ratios", "machine"}."""
