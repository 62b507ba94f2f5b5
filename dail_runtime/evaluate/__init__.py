"""Measuring models: grading, pass@k with intervals, token budgets."""
