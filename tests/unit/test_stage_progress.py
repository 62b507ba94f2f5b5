"""How much a stage says of its progress: what is watched, what is logged, what is stored."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import dail_runtime
from dail_runtime.errors import IntegrityError
from dail_runtime.stages import run
from dail_runtime.stages.jobs import Attempt, attempts_of
from dail_runtime.stages.run import LIVE, LOGGED, Reporter
from dail_runtime.store import open_store

HOUR, PACE = 3600, 50
"""Seconds; updates in each of them."""


def test_a_figure_that_is_no_number_spoils_no_record(tmp_path: Path) -> None:
    out, events = open_store(tmp_path.as_uri()), list[dict[str, Any]]()
    reporter = Reporter(out, Attempt(number=1, started=datetime.now(UTC)), events.append, LIVE)
    reporter.update(1, 2, "steps", loss=float("nan"), grad_norm=float("inf"), tokens_per_s=3.0)
    reporter.close("interrupted")
    assert attempts_of(out)[0].progress.figures == events[0]["figures"] == {"tokens_per_s": 3.0}


def test_a_record_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    out = open_store(tmp_path.as_uri())
    out.put("_attempts/0001.json", b'{"number": 1, "started": "2026-01-01T00:00:00Z", "mood": "good"}')
    with pytest.raises(IntegrityError, match=r"_attempts/0001.json is no attempt .*mood"):
        attempts_of(out)


@pytest.mark.parametrize("every", [LIVE, LOGGED])
def test_progress_is_told_at_a_bounded_rate_and_its_end_always(every: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr(run, "time", SimpleNamespace(monotonic=lambda: now))
    out, events = open_store(tmp_path.as_uri()), list[dict[str, Any]]()
    reporter = Reporter(out, Attempt(number=1, started=datetime.now(UTC)), events.append, every)
    seconds = HOUR if every == LOGGED else 60
    for number in range(seconds * PACE):
        now = 1000.0 + number / PACE
        reporter.update(number, seconds * PACE, "problems", tokens_per_s=1234.5)
    reporter.update(seconds * PACE, seconds * PACE, "problems")
    assert seconds / every * 0.9 <= len(events) <= seconds / every + 2
    assert (events[0]["done"], events[-1]["done"]) == (0, seconds * PACE)
    if every == LOGGED:
        # Days of training fit into a log that a node keeps.
        assert sum(len(json.dumps(event)) + 1 for event in events) < 60_000
    reporter.close("done")
    assert attempts_of(out)[0].progress.done == seconds * PACE


def test_the_first_thing_that_a_stage_says_is_what_it_is_made_of(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "dail_runtime.stages", "prepare", "--run", str(tmp_path), "--job", "0" * 16]
    said = {}
    for rank in ("0", "1"):
        environment = {**os.environ, "LOCAL_RANK": rank}
        said[rank] = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=900)
    assert said["0"].stderr.splitlines()[0] == run.versions_line()
    assert said["0"].stderr.startswith(f"dail {dail_runtime.__version__} torch ")
    assert "torch" not in said["1"].stderr, "once a pod is enough"
    assert [json.loads(one.stdout)["event"] for one in said.values()] == ["error", "error"]
