"""Why something of a run waits, failed or was refused: from Kubernetes objects to one sentence and its remedy. Pure."""

from dailctl.explain.cause import Cause
from dailctl.explain.task import Seen, explain, why_waiting

__all__ = ["Cause", "Seen", "explain", "why_waiting"]
