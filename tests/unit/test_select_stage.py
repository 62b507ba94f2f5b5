"""The stage select: grades, fates, counts that add up, and a sentence where nothing is left."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from dail_runtime.errors import ResultError
from dail_runtime.records import Kept, Rollout, from_jsonl
from dail_runtime.spec import DailJob
from dail_runtime.stages.run import run_task
from dail_runtime.store import Manifest
from tests.support.rollouts import data_job, finish_rewrite, rollout, saved, write_rows
from tests.support.stage_process import SavedRun

RIGHT, WRONG, BARE = "So it is \\boxed{5}.", "So it is \\boxed{6}.", "So it is five."
LEAK = "By the reference solution it is \\boxed{5}."


def text_of(n: int) -> str:
    """A problem of 16 words that no other problem has."""
    return f"Problem number {n}: " + " ".join(f"word{n}x{k}" for k in range(13))


def job_of(folder: Path, problems: int = 3, measured: tuple[str, ...] = ("something else",), **sections: Any) -> DailJob:
    rows = [{"id": f"i{n}", "problem": text_of(n), "solution": "It is \\boxed{5}."} for n in range(problems)]
    test = [{"problem": text, "answer": 5} for text in measured]
    evaluation = [{"name": "test", "path": write_rows(folder / "t.jsonl", test)}]
    return data_job({"solutions": write_rows(folder / "x.jsonl", rows), "evaluation": evaluation}, **sections)


def select(folder: Path, job: DailJob, *rollouts: Rollout, events: list[dict[str, Any]] | None = None) -> tuple[SavedRun, Manifest]:
    run = saved(job, folder / "runs")
    take = events.append if events is not None else lambda _: None
    run_task(run.root, job, {}, "prepare", lambda _: None)
    finish_rewrite(run, rollouts)
    return run, run_task(run.root, job, {}, "select/tuned", take)


def kept(run: SavedRun) -> list[Kept]:
    return list(from_jsonl(Kept, run.at("select/tuned").get("kept.jsonl")))


def test_right_traces_are_kept_and_every_other_is_counted_once(tmp_path: Path) -> None:
    run, manifest = select(
        tmp_path,
        job_of(tmp_path),
        rollout("i0", WRONG, RIGHT, BARE, RIGHT + " Indeed."),
        rollout("i1", LEAK, WRONG),
        rollout("i2", RIGHT, finish="length"),
    )
    chosen = kept(run)
    assert len(chosen) == 1
    assert chosen[0].id == "i0"
    assert chosen[0].index in (1, 3)
    assert chosen[0].verdict == "right"
    assert chosen[0].ids == tuple(map(ord, chosen[0].text))
    counts = manifest.counts
    assert {
        key: counts[key] for key in ("problems", "samples", "right", "wrong", "unparsed", "kept", "kept_problems", "without_rollout")
    } == {**{"problems": 3, "samples": 7, "right": 4, "wrong": 2, "unparsed": 1, "kept": 1, "kept_problems": 1, "without_rollout": 0}}
    assert counts["dropped"] == {"leak": 1, "surplus": 1, "truncated": 1, "unparsed": 1, "wrong": 2}
    assert counts["samples"] == counts["kept"] + sum(counts["dropped"].values())


def test_verdicts_and_fates_are_written_in_sample_order(tmp_path: Path) -> None:
    run, _ = select(tmp_path, job_of(tmp_path), rollout("i1", WRONG, RIGHT, BARE), rollout("i0", LEAK))
    lines = [json.loads(line) for line in run.at("select/tuned").get("verdicts.jsonl").splitlines()]
    assert lines == [
        {"id": "i0", "verdicts": ["right"], "fates": ["leak"]},
        {"id": "i1", "verdicts": ["wrong", "right", "unparsed"], "fates": ["wrong", "kept", "unparsed"]},
    ]


def test_problems_that_the_rewrite_left_out_are_counted(tmp_path: Path) -> None:
    _, manifest = select(tmp_path, job_of(tmp_path), rollout("i1", RIGHT))
    assert (manifest.counts["problems"], manifest.counts["without_rollout"]) == (1, 2)


def test_problems_of_an_evaluation_set_are_dropped_and_said(tmp_path: Path) -> None:
    events: list[dict[str, Any]] = []
    job = job_of(tmp_path, measured=(text_of(1).upper(),))
    run, manifest = select(tmp_path, job, *(rollout(f"i{n}", RIGHT, WRONG) for n in range(3)), events=events)
    assert [one.id for one in kept(run)] == ["i0", "i2"]
    assert manifest.counts["dropped"] == {"contaminated": 2, "wrong": 2}
    said = [event["sentence"] for event in events if event["event"] == "say"]
    assert any(one.startswith("1 of 3 training problems are in an evaluation set and were dropped, for example i1: ") for one in said)
    job = job_of(tmp_path, measured=(text_of(1).upper(),), select={"decontaminate": False})
    assert select(tmp_path, job, *(rollout(f"i{n}", RIGHT) for n in range(3)))[1].counts["kept"] == 3


def test_the_leak_filter_can_be_extended_and_turned_off(tmp_path: Path) -> None:
    odd = "As the oracle told me, \\boxed{5}."
    rollouts = (rollout("i0", LEAK), rollout("i1", odd), rollout("i2", RIGHT))
    job = job_of(tmp_path, select={"leakPhrases": ["the oracle"]})
    assert [one.id for one in kept(select(tmp_path, job, *rollouts)[0])] == ["i2"]
    assert len(kept(select(tmp_path, job_of(tmp_path, select={"dropLeaks": False}), *rollouts)[0])) == 3


def test_thinking_models_are_graded_by_what_follows_their_thoughts(tmp_path: Path) -> None:
    job = job_of(tmp_path, model={"id": "owner/name", "thinking": True})
    run, manifest = select(tmp_path, job, rollout("i0", f"{WRONG}</think>{RIGHT}", f"{RIGHT}</think>{WRONG}", RIGHT))
    assert [one.index for one in kept(run)] == [0]
    assert (manifest.counts["right"], manifest.counts["wrong"], manifest.counts["unparsed"]) == (1, 1, 1)


def test_proofs_are_kept_without_grades(tmp_path: Path) -> None:
    rows = [{"id": "i0", "problem": "Show it.", "solution": "Done."}]
    data = {
        "solutions": write_rows(tmp_path / "x.jsonl", rows),
        "evaluation": [{"name": "t", "path": write_rows(tmp_path / "t.jsonl", [{"problem": "q", "answer": 1}])}],
    }
    run, manifest = select(tmp_path, data_job(data, select={"requireCorrect": False}), rollout("i0", "We argue as follows."))
    assert [(one.id, one.verdict) for one in kept(run)] == [("i0", None)]
    assert manifest.counts["right"] == 0


@pytest.mark.parametrize(
    ("texts", "finish", "expected"),
    [
        ((WRONG, WRONG, BARE), "stop", "no trace was kept: of 3 samples 2 wrong, 1 unparsed; raise rewrite.samples"),
        ((BARE,), "stop", "no trace was kept: of 1 samples 1 unparsed; let prompts.privileged ask for the final answer"),
        ((RIGHT,), "length", "no trace was kept: of 1 samples 1 truncated; raise rewrite.maxTokens"),
        ((LEAK,), "stop", "no trace was kept: of 1 samples 1 leak; let prompts.privileged forbid"),
        ((), "stop", "no trace was kept: the rewrite left none at all"),
    ],
)
def test_where_nothing_is_left_the_commonest_reason_names_the_remedy(
    tmp_path: Path, texts: tuple[str, ...], finish: Any, expected: str
) -> None:
    with pytest.raises(ResultError) as caught:
        select(tmp_path, job_of(tmp_path), rollout("i0", *texts, finish=finish))
    assert str(caught.value).startswith(expected)
    assert caught.value.exit_code == 8


def test_the_seed_alone_decides_the_choice(tmp_path: Path) -> None:
    rollouts = [rollout(f"i{n}", *(f"{RIGHT} Try {k}." for k in range(4))) for n in range(12)]

    def chosen(name: str, order: int, **sections: Any) -> list[tuple[str, int]]:
        folder = tmp_path / name
        folder.mkdir()
        run, _ = select(folder, job_of(folder, problems=12, **sections), *rollouts[::order])
        return [(one.id, one.index) for one in kept(run)]

    first = chosen("a", 1)
    assert chosen("b", -1) == first
    assert chosen("c", 1, seed=1) != first
