"""Example jobs, with the scripts that made their data."""
