"""The job file: its model, how it is read and checked, and the plan that follows from it."""

from dail_runtime.spec.job import BASE, TUNED, DailJob, JobSpec, Settings
from dail_runtime.spec.plan import STAGES, Task, plan

__all__ = ["BASE", "STAGES", "TUNED", "DailJob", "JobSpec", "Settings", "Task", "plan"]
