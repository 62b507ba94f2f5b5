"""What runs the tasks of a plan: this machine, or a cluster."""
