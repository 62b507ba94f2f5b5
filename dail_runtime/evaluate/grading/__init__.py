"""Grading: is the final answer of a response equal to the known one? Imports neither torch nor, in this process, sympy."""

from dail_runtime.evaluate.grading.extract import answer_from_solution, answer_part, last_boxed
from dail_runtime.evaluate.grading.grader import Grade, Grader

__all__ = ["Grade", "Grader", "answer_from_solution", "answer_part", "last_boxed"]
