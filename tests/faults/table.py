"""The table of faults: what may go wrong, what becomes of the run, and the tests that make it happen.

`make faults` (`python -m tests.faults.table`) runs them all and writes docs/faults.md.
"""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ET
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
PAGE = REPOSITORY / "docs" / "faults.md"
MOMENTS = "20"
"""Random moments at which `make faults` cancels a run."""
KILLS, CONDUCT, CLUSTER = "tests/faults/test_kill_{}.py", "tests/cluster/test_conductor_faults.py", "tests/cluster/test_faults.py"
S3, FILE, LAUNCH = "tests/store/test_s3.py", "tests/unit/test_store_file.py", "tests/faults/test_launch.py"
NODE = "tests/faults/test_on_a_node.py"
SERVERS, DRIVER = "tests/engine/test_vllm_http.py", "tests/engine/test_vllm_http_stages.py"


@dataclass(frozen=True)
class Row:
    """One fault."""

    fault: str
    becomes: str
    """What becomes of the run, beyond its result being that of an undisturbed one."""
    tests: tuple[str, ...]
    """`FILE::FUNCTION` from the repository's root; all cases of the function."""


ROWS = (
    Row(
        "A stage's process is killed (SIGKILL), at any write",
        "The next attempt goes on from what is stored: at most one problem, batch or checkpoint interval is done again.",
        (
            f"{KILLS.format('prepare_select')}::test_a_killed_prepare_started_again_makes_the_same",
            f"{KILLS.format('prepare_select')}::test_a_killed_select_started_again_makes_the_same",
            f"{KILLS.format('rewrite')}::test_a_killed_rewrite_gives_the_same_traces",
            f"{KILLS.format('rewrite')}::test_a_killed_teacher_check_gives_the_same_figures",
            f"{KILLS.format('train')}::test_killed_once_at_any_write_training_ends_with_the_same_adapter",
            f"{KILLS.format('evaluate')}::test_a_killed_evaluation_gives_the_same_results",
        ),
    ),
    Row(
        "One of several training ranks, or their launcher, is killed",
        "The other ranks end with a checkpoint, and the next attempt goes on from it; an elastic group takes the lost pod in again.",
        (
            f"{LAUNCH}::test_ranks_whose_launcher_is_killed_save_and_end",
            f"{CONDUCT}::test_a_killed_worker_ends_the_attempt_of_its_group",
            f"{CONDUCT}::test_a_killed_worker_of_an_elastic_group_is_started_again_by_the_operator",
        ),
    ),
    Row(
        "A model server is killed, stopped, hangs or fails at everything (real vLLM)",
        "The others draw its responses, or it does when it is back: none is lost, none comes twice.",
        (
            f"{DRIVER}::test_a_server_is_killed_and_another_comes_while_the_driver_works",
            f"{DRIVER}::test_sigterm_lets_a_server_finish_what_it_draws",
            f"{SERVERS}::test_faulty_replicas_lose_and_double_nothing",
            f"{SERVERS}::test_a_replica_that_hangs_is_given_up_and_its_responses_are_drawn_elsewhere",
            f"{SERVERS}::test_a_replica_that_looks_well_and_fails_at_everything_takes_no_work_from_the_others",
        ),
    ),
    Row(
        "The driver of the model servers is killed",
        "The next attempt asks for what is not stored.",
        (f"{DRIVER}::test_a_killed_driver_is_finished_by_the_next_attempt",),
    ),
    Row(
        "A pod's process is killed on its node (real kubelet)",
        "The exit code is read, the attempt is counted, and the conductor makes the next one.",
        (f"{NODE}::test_a_killed_process_ends_its_attempt_and_says_how",),
    ),
    Row(
        "A pod takes more memory than its limit (real kubelet)",
        "One more attempt; then the run fails and names the limit.",
        (f"{NODE}::test_a_pod_over_its_memory_limit_is_known_by_it",),
    ),
    Row(
        "The node is drained (real kubelet)",
        "The pod of a Job is replaced at once; no attempt is counted.",
        (f"{NODE}::test_a_drained_pod_of_a_job_is_replaced_and_costs_nothing",),
    ),
    Row(
        "SIGTERM with its 30 s: a pod is evicted",
        "Training saves once and ends; the pod's successor goes on from there.",
        (f"{LAUNCH}::test_sigterm_reaches_every_rank_which_save_once_and_go_on_later", f"{CLUSTER}::test_the_node_is_drained_under"),
    ),
    Row(
        "A passing error (exit code 64 and above) in a stage",
        "The attempt is counted and archived, and another begins after a pause, as often as `cluster.retries` says.",
        (
            f"{CONDUCT}::test_a_passing_fault_in_training_makes_the_job_anew",
            f"{CONDUCT}::test_there_are_as_many_attempts_as_the_job_says",
        ),
    ),
    Row(
        "The conductor is killed in every stage, at random moments, with its pod",
        "Its successor reads store and objects and goes on; no attempt is lost.",
        (
            f"{CONDUCT}::test_the_conductor_is_killed_in_every_stage",
            f"{CONDUCT}::test_the_conductor_is_killed_at_random_moments",
            f"{CONDUCT}::test_a_lost_conductors_pod_is_replaced",
        ),
    ),
    Row(
        "Two conductors of one run",
        "The second waits for the lease and finds the run ended.",
        (f"{CLUSTER}::test_a_second_conductor_waits_and_does_nothing",),
    ),
    Row(
        "Someone spoils the status of a run, removes its lease, or takes its conductor's rights",
        "Status and lease are made anew; a conductor without rights ends, and leaves the run to its user.",
        (
            f"{CONDUCT}::test_a_status_that_someone_spoiled_is_written_anew",
            f"{CONDUCT}::test_a_lease_that_someone_removed_is_made_anew",
            f"{CONDUCT}::test_a_conductor_whose_rights_were_taken_ends_and_leaves_the_run_to_its_user",
        ),
    ),
    Row(
        "The conductor is frozen for longer than its lease",
        "Another takes over; the first finds that out before it does anything.",
        (f"{CLUSTER}::test_a_frozen_conductor_finds_that_another_took_over",),
    ),
    Row(
        "The conductor is cut off from the API server, and comes back later",
        "Another takes over when the lease has run out; the first undoes nothing.",
        (f"{CLUSTER}::test_the_conductor_is_cut_off_and_another_takes_over",),
    ),
    Row(
        "The conductor's clock is ten minutes ahead or behind",
        "Leases and pauses are counted on one clock: nothing shows.",
        (f"{CLUSTER}::test_the_conductors_clock_is_ten_minutes_off",),
    ),
    Row(
        "The API server is down for a minute, restarts, or does not answer",
        "Stages work on; the conductor tries again until it hears from it.",
        (
            f"{CLUSTER}::test_the_api_server_is_down_for_a_minute",
            f"{CLUSTER}::test_the_api_server_does_not_answer_for_a_while",
            f"{CONDUCT}::test_the_api_server_restarts_in_the_middle",
        ),
    ),
    Row(
        "The API server restarts under `dailctl logs -f`",
        "It takes every log up again where it was: no line is lost, none comes twice.",
        (f"{CLUSTER}::test_logs_follow_a_run_while_the_api_server_restarts",),
    ),
    Row("etcd is killed and restarts on its data", "As above.", (f"{CLUSTER}::test_etcd_is_killed_and_comes_back",)),
    Row(
        "Controllers, scheduler and training operator are killed and restart",
        "Pods are made and ended a little later.",
        (f"{CLUSTER}::test_controllers_and_operator_are_killed_and_come_back",),
    ),
    Row(
        "S3 answers 503 or slows down, connections break, answers get lost",
        "Requests are tried again; what stays broken ends the attempt with a passing error.",
        (
            f"{S3}::test_faults_that_pass_do_not_show",
            f"{S3}::test_faults_that_stay_are_transient_errors",
            f"{S3}::test_a_create_whose_answer_was_lost_has_still_won",
            f"{CLUSTER}::test_the_conductors_storage_fails_every_third_time_with",
        ),
    ),
    Row(
        "An object arrives truncated or changed",
        "Its checksum says so; it is fetched again.",
        (f"{S3}::test_a_body_that_breaks_off_is_fetched_again", f"{S3}::test_a_byte_changed_on_the_way_is_fetched_again"),
    ),
    Row(
        "A disk is full",
        "One sentence; the old object stays, and the next attempt goes on.",
        (f"{FILE}::test_a_full_disk_is_a_sentence_and_the_old_object_stays", f"{FILE}::test_a_full_disk_at_get_file_leaves_the_old_file"),
    ),
    Row(
        "Someone removes the objects of a running stage",
        "The conductor makes them again.",
        (f"{CONDUCT}::test_what_someone_removed_comes_back",),
    ),
    Row(
        "The run is cancelled at random moments, and resumed",
        "No pod of a stage is left when `dailctl cancel` returns; what was finished is not done again.",
        (f"{CLUSTER}::test_cancelled_at_random_moments_and_resumed",),
    ),
)
HEAD = """# Faults

Written by `make faults` from `tests/faults/table.py`, which runs every test named here. Each test ends with the results of an
undisturbed run and without a leftover object. The last column is the longest time that a run took to go on after the fault was
over, where a test measures it: {machine}.

| Fault | What becomes of the run | Tests | Goes on after |
|---|---|---|---|
"""


def page(recovered: Mapping[str, float], machine: str) -> str:
    """docs/faults.md; `recovered`: test -> seconds."""
    lines = []
    for row in ROWS:
        seconds = [recovered[test] for test in row.tests if test in recovered]
        tests = "<br>".join(f"`{test.rpartition('::')[2]}`" for test in row.tests)
        lines.append(f"| {row.fault} | {row.becomes} | {tests} | {f'{max(seconds):.0f} s' if seconds else '-'} |\n")
    return HEAD.format(machine=machine) + "".join(lines)


def main() -> int:
    """Run every test of the table; the page is written where all pass."""
    with tempfile.TemporaryDirectory() as folder:
        outcome = Path(folder) / "outcome.xml"
        tests = [test for row in ROWS for test in row.tests]
        command = [sys.executable, "-m", "pytest", "-q", f"--junit-xml={outcome}", "-o", "junit_family=xunit1", *dict.fromkeys(tests)]
        code = subprocess.run(command, cwd=REPOSITORY, env={**os.environ, "DAIL_FAULT_MOMENTS": MOMENTS}).returncode
        recovered: dict[str, float] = {}
        for case in ET.parse(outcome).iter("testcase") if outcome.exists() else ():
            test = f"{case.get('file')}::{str(case.get('name')).partition('[')[0]}"
            for one in case.iter("property"):
                if one.get("name") == "recovered_s":
                    recovered[test] = max(recovered.get(test, 0.0), float(str(one.get("value"))))
    if code == 0:
        PAGE.write_text(page(recovered, f"{os.cpu_count()} cores, {platform.machine()}, load {os.getloadavg()[0]:.0f} at the end"))
    return code


if __name__ == "__main__":
    sys.exit(main())
