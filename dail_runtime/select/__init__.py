"""Which traces are good enough to learn from."""

from dail_runtime.select.choice import Fate, fates
from dail_runtime.select.leaks import LeakFilter
from dail_runtime.select.overlap import Overlap

__all__ = ["Fate", "LeakFilter", "Overlap", "fates"]
