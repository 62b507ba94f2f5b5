"""Reads what experts wrote: files of problems and solutions in many layouts become one kind of row."""

from dail_runtime.data.counts import Counts
from dail_runtime.data.heldout import HELDOUT, hold_out
from dail_runtime.data.problems import read_problems

__all__ = ["HELDOUT", "Counts", "hold_out", "read_problems"]
