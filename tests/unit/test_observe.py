"""Documents of the verbs keep to their schemas, and the schemas to the models."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from dailctl.conductor.status import RunSummary, read_summary, summary_of
from dailctl.observe.describe import description, is_about
from dailctl.observe.model import DOCUMENTS, RunDescription, RunList
from dailctl.observe.runs import view_of
from dailctl.observe.schemas import schemas
from tests.golden.tables import a_run, gathered
from tests.support.recorded import event, pod


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
