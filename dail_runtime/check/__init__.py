"""The teacher check: what M_T is worth before anything learns from it."""
