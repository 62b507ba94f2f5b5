"""Names of the objects that one stage writes and others read, each below the prefix of the task that writes it."""

from __future__ import annotations

from dail_runtime.store.keys import safe_key

PROBLEMS = "problems.jsonl"
"""prepare: the training problems (records.Problem)."""
BAD_ROWS = "bad_rows.jsonl"
"""prepare: skipped rows with place, reason and sentence."""
ROLLOUTS = "rollouts/"
"""rewrite: an object a problem (records.Rollout), see `rollout_key`."""
KEPT = "kept.jsonl"
"""select: the kept traces (records.Kept)."""
VERDICTS = "verdicts.jsonl"
"""select: the grade and the fate of each sample, a line a problem."""
ADAPTER = "adapter"
"""train: folder of the adapter, in peft's layout."""
MODEL = "model"
"""train: folder of the model with the adapter merged in."""
CURVES = "curves.jsonl"
"""train: a line a step."""
REPORT_JSON, REPORT_HTML = "report.json", "report.html"
"""report: for programs and for people."""


def evaluation_key(name: str) -> str:
    """prepare: the problems of an evaluation set."""
    return f"evaluation/{name}.jsonl"


def rollout_key(problem: str) -> str:
    """rewrite: the rollout of the problem with that id."""
    return f"{ROLLOUTS}{safe_key(problem)}.json"
