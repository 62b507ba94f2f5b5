"""The stage prepare: what it writes, what it says, and that it writes nothing where anything is wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from dail_runtime.errors import DataError
from dail_runtime.records import Problem, from_jsonl
from dail_runtime.spec import DailJob
from dail_runtime.spec.content import content_of
from dail_runtime.stages.run import run_task
from dail_runtime.store import Manifest
from tests.support.rollouts import data_job, saved, write_rows
from tests.support.stage_process import SavedRun, save_run

ROWS = [{"id": f"i{n}", "problem": f"problem {n}", "solution": f"So \\boxed{{{n}}}."} for n in range(20)]


def prepare(job: DailJob, folder: Path) -> tuple[SavedRun, Manifest, list[str]]:
    run = saved(job, folder / "runs")
    events: list[dict[str, Any]] = []
    manifest = run_task(run.root, job, {}, "prepare", events.append)
    return run, manifest, [event["sentence"] for event in events if event["event"] == "say"]


def rows(run: SavedRun, key: str) -> list[Problem]:
    return list(from_jsonl(Problem, run.at("prepare").get(key)))


def test_problems_and_evaluation_sets_are_written_in_one_form(tmp_path: Path) -> None:
    test = write_rows(tmp_path / "t.jsonl", [{"question": "q", "answer": "1"}, {"question": "r", "answer": 2}])
    data = {"solutions": write_rows(tmp_path / "x.jsonl", ROWS), "evaluation": [{"name": "test", "path": test}]}
    run, manifest, said = prepare(data_job(data), tmp_path)
    assert [info.key for info in manifest.objects] == ["evaluation/test.jsonl", "problems.jsonl"]
    problems = rows(run, "problems.jsonl")
    assert [(one.id, one.answer, one.set) for one in problems] == [(f"i{n}", str(n), "") for n in range(20)]
    assert [(one.problem, one.answer, one.set) for one in rows(run, "evaluation/test.jsonl")] == [("q", "1", "test"), ("r", "2", "test")]
    assert said == []
    expected = {"rows": 20, "problems": 20, "solutions": 20, "answers": 20, "merged": 0, "duplicates": 0, "dropped": {}}
    assert {key: manifest.counts[key] for key in expected} == expected
    assert manifest.counts["evaluation"]["test"]["problems"] == 2


def test_without_an_evaluation_set_a_tenth_is_held_out_and_said(tmp_path: Path) -> None:
    run, manifest, said = prepare(data_job({"solutions": write_rows(tmp_path / "x.jsonl", ROWS)}), tmp_path)
    training, held = rows(run, "problems.jsonl"), rows(run, "evaluation/heldout.jsonl")
    assert (len(training), len(held)) == (18, 2)
    assert {one.id for one in training} | {one.id for one in held} == {row["id"] for row in ROWS}
    assert said == ["No evaluation set is named, so 2 of the problems are held out to measure with."]
    assert (manifest.counts["problems"], manifest.counts["solutions"]) == (18, 18)


def test_skipped_rows_are_counted_said_and_kept_with_their_reasons(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "x.jsonl", [*ROWS, b"{", {"problem": "p", "solution": ""}, ROWS[0]])
    run, manifest, said = prepare(data_job({"solutions": path, "onBadRow": "skip"}), tmp_path)
    assert manifest.counts["dropped"] == {"empty_field": 1, "not_json": 1}
    assert f"2 of 23 rows of {path} were skipped (1 not_json, 1 empty_field); first: {path}:21: " in "\n".join(said)
    assert f"1 rows of {path} repeat an earlier one and were left out." in said
    bad = [json.loads(line) for line in run.at("prepare").get("bad_rows.jsonl").splitlines()]
    assert [(one["place"], one["reason"]) for one in bad] == [(f"{path}:21", "not_json"), (f"{path}:22", "empty_field")]


@pytest.mark.parametrize("spoilt", ["solutions", "evaluation"])
def test_a_bad_row_anywhere_leaves_nothing_half_written(tmp_path: Path, spoilt: str) -> None:
    files = {"solutions": list(ROWS), "evaluation": [{"problem": "q", "answer": 1}]}
    files[spoilt].append(b"{")  # type: ignore[arg-type]
    paths = {name: write_rows(tmp_path / f"{name}.jsonl", found) for name, found in files.items()}
    job = data_job({"solutions": paths["solutions"], "evaluation": [{"name": "test", "path": paths["evaluation"]}]})
    run = saved(job, tmp_path / "runs")
    with pytest.raises(DataError, match=rf"{spoilt}\.jsonl:{len(files[spoilt])}: "):
        run_task(run.root, job, {}, "prepare", lambda _: None)
    assert [info.key for info in run.at("prepare").list() if not info.key.startswith("_")] == []


def test_proofs_without_answers_are_refused_before_the_rewrite_unless_allowed(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "x.jsonl", [{"problem": "Show that n = n.", "solution": "By reflexivity."}])
    data = {"solutions": path, "evaluation": [{"name": "t", "path": write_rows(tmp_path / "t.jsonl", [{"problem": "q", "answer": 1}])}]}
    with pytest.raises(
        DataError, match=r"no problem has an answer, but select\.requireCorrect .* set select\.requireCorrect: false for proofs"
    ):
        prepare(data_job(data), tmp_path)
    _, manifest, _ = prepare(data_job(data, select={"requireCorrect": False}), tmp_path)
    assert (manifest.counts["problems"], manifest.counts["answers"]) == (1, 0)


def test_problems_without_an_answer_among_others_are_said(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "x.jsonl", [*ROWS, {"id": "proof", "problem": "Show it.", "solution": "Done."}])
    _, manifest, said = prepare(data_job({"solutions": path}), tmp_path)
    assert manifest.counts["answers"] == manifest.counts["problems"] - 1
    assert f"1 of {manifest.counts['problems']} problems have no answer; select.requireCorrect keeps no trace of them." in said


@pytest.mark.parametrize("edited", ["x.jsonl", "t.jsonl"])
def test_a_file_edited_after_the_run_was_planned_is_refused_and_nothing_is_written(tmp_path: Path, edited: str) -> None:
    test = write_rows(tmp_path / "t.jsonl", [{"problem": "q", "answer": "1"}])
    job = data_job({"solutions": write_rows(tmp_path / "x.jsonl", ROWS), "evaluation": [{"name": "test", "path": test}]})
    content = content_of(job)
    run = save_run(job, content, str(tmp_path / "runs"))
    row = '{"problem": "new", "solution": "\\\\boxed{1}", "answer": "1"}\n'
    with (tmp_path / edited).open("a") as file:
        file.write(row)
    with pytest.raises(DataError, match=rf"{edited} was changed after this run started; run the same command again"):
        run_task(run.root, job, content, "prepare", lambda _: None)
    assert [info.key for info in run.at("prepare").list() if not info.key.startswith("_")] == []
    run = save_run(job, content_of(job), str(tmp_path / "runs"))
    assert run_task(run.root, job, content_of(job), "prepare", lambda _: None).counts["problems"] >= len(ROWS)
