"""What is looked at before anything is applied: rights, APIs, nodes, secrets, the store. `dailctl submit` and `doctor` ask the same."""

from dailctl.preflight.finding import Finding
from dailctl.preflight.run import check_cluster, check_storage

__all__ = ["Finding", "check_cluster", "check_storage"]
