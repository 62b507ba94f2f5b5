"""Grading: is the final answer of a response equal to the known one? Imports neither torch nor, in this process, sympy."""

from dail_runtime.evaluate.grading.extract import answer_from_solution, answer_part, last_boxed

__all__ = ["answer_from_solution", "answer_part", "last_boxed"]
