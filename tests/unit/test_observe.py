"""Documents of the verbs keep to their schemas, and the schemas to the models."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from dailctl.conductor.status import RunSummary, read_summary, summary_of
from dailctl.observe.describe import described, description, is_about
from dailctl.observe.leftovers import reason_of
from dailctl.observe.model import DOCUMENTS, RunDescription, RunList
from dailctl.observe.runs import held_of, similar, view_of
from dailctl.observe.schemas import schemas
from tests.golden.tables import a_run, gathered
from tests.support.recorded import event, job, pod


@pytest.mark.parametrize("name", DOCUMENTS)
def test_a_schema_is_what_its_model_says(name: str) -> None:
    assert Path(f"schema/{name}.schema.json").read_text() == schemas()[f"{name}.schema.json"]


def test_a_description_reads_back_and_names_every_cause() -> None:
    held = a_run()
    made = description(held, gathered(held), datetime(2026, 11, 24, 8, tzinfo=UTC))
    document = json.loads(json.dumps(made.document()))
    assert RunDescription.model_validate(document) == made
    assert (document["kind"], document["state"], document["now"]) == ("Run", "running", "rewrite/tuned")
    assert [one["cause"] for one in document["causes"]] == ["NoNodeHasRoom"]
    assert document["podsNow"][0]["gpus"] == {"nvidia.com/gpu": 8}


def test_the_line_beside_a_record_says_what_its_status_says() -> None:
    held = a_run()
    summary = summary_of(held.status)
    assert read_summary({"dail.dev/summary": summary.model_dump_json(exclude_defaults=True)}) == summary
    assert (summary.done, summary.total, summary.now, summary.ready) == (1, 4, "rewrite/tuned", 4)
    assert read_summary({}) is None
    assert read_summary({"dail.dev/summary": "{"}) is None
    view = view_of(held.obj, summary)
    assert RunList.model_validate(RunList(items=(view,)).document()).items == (view,)


def test_a_record_that_is_being_removed_is_shown_so() -> None:
    held = a_run()
    obj = {**held.obj, "metadata": {**held.obj["metadata"], "deletionTimestamp": "2026-11-24T08:00:00Z"}}
    assert view_of(obj, RunSummary()).state == "deleting"


@pytest.mark.parametrize("status", ["", "garbage", "[]", '{"tasks": [{"name": "x", "slug": "x", "stage": "x"}]}'])
def test_a_spoiled_status_hides_no_run(status: str) -> None:
    whole = a_run()
    held = held_of({**whole.obj, "data": {**whole.obj["data"], "status.json": status}})
    assert [task.name for task in held.status.tasks] == [task.name for task in whole.record.tasks]
    assert (held.begun, held.status.state) == (False, "waiting")
    assert held.status.message == (
        f"status.json of its record cannot be read; its conductor writes it anew, and dailctl resume {held.name} starts one"
    )


def test_a_run_whose_conductor_was_removed_says_so() -> None:
    held = a_run()
    held = replace(held, status=held.status.model_copy(update={"message": None}))
    found, now = gathered(held), datetime(2026, 11, 24, 8, tzinfo=UTC)
    conductor = job(f"{held.name}-conductor", labels={"app.kubernetes.io/component": "conductor"})
    there = replace(found, everything=replace(found.everything, objects=(conductor,)))
    just_made = {**held.obj, "metadata": {**held.obj["metadata"], "creationTimestamp": now.isoformat()}}
    done = replace(held, status=held.status.model_copy(update={"state": "done"}))
    told = f"it has no conductor, whose Job is gone; dailctl resume {held.name} starts another"
    assert description(held, found, now).message == told
    for one, seen in ((held, there), (held, replace(found, unknown=("jobs",))), (replace(held, obj=just_made), found), (done, found)):
        assert description(one, seen, now).message is None


def test_no_message_passes_for_another_fact_of_a_run() -> None:
    held = a_run(message="lost\nState:      done\nStore:\ts3://elsewhere")
    lines = described(description(held, gathered(held), datetime(2026, 11, 24, 8, tzinfo=UTC))).splitlines()
    assert [line for line in lines if line.startswith(("State:", "Store:"))] == [
        "State:      running (rewrite/tuned)",
        "Store:      s3://runs/team/aime-qwen",
    ]


def test_names_that_are_nearly_right_are_offered() -> None:
    names = ["aime-qwen-62b02cd3", "aime-qwen", "gsm-llama-1a2b3c4d", "gsm-llama"]
    assert similar("aime-qwen-62b02cd4", names)[0] == "aime-qwen-62b02cd3"
    assert similar("gsm", names) == ["gsm-llama-1a2b3c4d", "gsm-llama"]
    assert similar("zzz", names) == []


@pytest.mark.parametrize(
    ("task", "minutes", "left"),
    [(None, 1, False), (None, 10, True), ("train", 1, True), ("train", 10, True)],
)
def test_what_comes_before_its_record_is_no_leftover_for_a_while(task: str | None, minutes: int, left: bool) -> None:
    now = datetime(2026, 11, 24, 8, tzinfo=UTC)
    labels = {"dail.dev/run": "qwen-1a2b3c4d", **({"dail.dev/task": task} if task else {})}
    made = now - timedelta(minutes=minutes)
    policy = {"metadata": {"name": "x", "namespace": "ml", "labels": labels, "creationTimestamp": made.isoformat()}}
    assert (reason_of(policy, None, False, now) is not None) == left


@pytest.mark.parametrize(
    ("name", "is_ours"),
    [
        ("aime-qwen-62b02cd3", True),
        ("aime-qwen-62b02cd3-conductor-x7x2c", True),
        ("aime-qwen-62b02cd3-rewrite-tuned-5d4f8-abcde", True),
        ("aime-qwen-62b02cd30-rewrite", False),
        ("aime-qwen", False),
    ],
)
def test_events_of_pods_that_are_gone_belong_to_the_run(name: str, is_ours: bool) -> None:
    assert is_about(event(pod(name), "Killing", "gone"), a_run().record) is is_ours
