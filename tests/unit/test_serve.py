"""`python -m dail_runtime.serve`: what it refuses before anything is loaded. The server itself: tests/engine."""

from __future__ import annotations

from pathlib import Path

import pytest

from dail_runtime import serve
from tests.support.rollouts import data_job, saved, write_rows
from tests.support.stage_process import SavedRun


@pytest.fixture
def run(tmp_path: Path) -> SavedRun:
    rows = [{"problem": f"{n}?", "solution": f"\\boxed{{{n}}}"} for n in range(12)]
    return saved(data_job({"solutions": write_rows(tmp_path / "x.jsonl", rows)}), tmp_path / "store")


def test_the_first_line_names_the_versions(run: SavedRun, capsys: pytest.CaptureFixture[str]) -> None:
    assert serve.main(["--run", run.root.uri, "--task", "train/tuned"]) == 2
    told = capsys.readouterr()
    assert told.out.splitlines()[0].startswith("dail 0.")
    assert " torch " in told.out
    served = "rewrite/tuned, check/tuned, evaluate/base, evaluate/tuned"
    assert told.err == f"error: --task train/tuned: this stage runs no model on a server; give one of {served}\n"


@pytest.mark.parametrize(
    ("words", "code", "sentence"),
    [
        (["--task", "rewrite/other"], 2, "this job has no such task"),
        (["--task", "evaluate/tuned"], 2, "needs the adapter of train/tuned, which has not finished; run train/tuned first"),
        (["--job", "0" * 16], 2, "no run was started"),
        (["--task", "rewrite/tuned"], 6, "model.id owner/name"),
    ],
)
def test_what_cannot_be_served_is_refused_in_a_sentence(
    run: SavedRun, words: list[str], code: int, sentence: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dail_runtime.rewrite.vllm_plugin.check.check_version", lambda: None)
    assert serve.main(["--run", run.root.uri, *words]) == code
    assert sentence in capsys.readouterr().err


@pytest.mark.parametrize("words", [[], ["--run", "x", "-f", "job.yaml"], ["-f", "job.yaml", "--job", "0"]])
def test_a_job_is_named_once(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        serve.main(words)
    assert ended.value.code == 2
    assert "--run" in capsys.readouterr().err
