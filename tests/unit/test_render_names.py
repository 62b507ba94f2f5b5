"""Names on a cluster: of a length that every kind of object takes, told apart by digests, the same for the same job."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from dailctl.render.names import TASK_NAME, run_name, shortened, task_object, task_slug

DNS_1035 = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")
NAMES = st.from_regex(r"[a-z0-9]([-a-z0-9]{0,38}[a-z0-9])?", fullmatch=True)
DIGEST = "0123456789abcdef"


@given(job=NAMES, stage=st.sampled_from(["rewrite", "train", "evaluate"]), variant=NAMES)
def test_every_name_is_a_dns_label_with_room_for_the_longest_suffix(job: str, stage: str, variant: str) -> None:
    run, task = run_name(job, DIGEST), task_object(job, DIGEST, f"{stage}/{variant}")
    assert DNS_1035.fullmatch(run)
    assert DNS_1035.fullmatch(task)
    assert len(f"{run}-conductor") <= 63
    assert len(f"{task}-worker-1023") <= 63
    assert (task == f"{run}-{stage}-{variant}") is not shortened(job, f"{stage}/{variant}")


@given(job=NAMES, variants=st.sets(NAMES, min_size=2, max_size=8))
def test_tasks_of_a_run_have_different_names_however_long_they_are(job: str, variants: set[str]) -> None:
    tasks = [f"train/{variant}" for variant in variants]
    assert len({task_object(job, DIGEST, task) for task in tasks}) == len(tasks)


def test_long_names_keep_what_tells_them_apart() -> None:
    job = "a-very-long-name-of-a-run-for-aime-2026x"
    assert len(job) == 40
    name = task_object(job, DIGEST, "train/nll")
    assert name.endswith("-01234567-train-nll")
    assert len(name) <= TASK_NAME
    twins = [task_object(job, DIGEST, f"evaluate/{'x' * 38}-{end}") for end in "ab"]
    assert twins[0] != twins[1]
    assert all("-01234567-evaluate-xxx" in twin for twin in twins)


def test_a_name_that_begins_with_a_digit_gets_a_letter_first() -> None:
    assert run_name("2026-aime", DIGEST) == "run-2026-aime-01234567"
    assert task_object("2026-aime", DIGEST, "prepare") == "run-2026-aime-01234567-prepare"


def test_slugs() -> None:
    assert [task_slug(task) for task in ("prepare", "train/nll")] == ["prepare", "train-nll"]
