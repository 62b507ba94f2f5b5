"""Training: the objective, its data, the adapter and the loop."""
