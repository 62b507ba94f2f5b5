"""What the conductor decides: order, retries, suspend and cancel, and that being killed anywhere changes nothing."""

from __future__ import annotations

import json
from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dail_runtime.stages.jobs import Attempt
from dailctl.conductor.control import Control
from dailctl.conductor.decide import ATTEMPT
from dailctl.conductor.failures import DISRUPTIONS
from tests.support.played_run import START, TASKS, Played, condition, pod, record_of


def until(run: Played, task: str) -> None:
    """Turn until the workload of `task` is there."""
    for _ in range(30):
        if run.running() == task:
            return
        decision = run.step()
        run.now = max(run.now, decision.wake or run.now) + timedelta(seconds=1)
        now = run.running()
        if now is not None and now != task and not run.workload(now).get("status"):
            run.succeed(now)
    raise AssertionError(f"{task} was never started; {run.status}")


def test_tasks_run_one_after_another_and_at_the_end_nothing_is_left() -> None:
    run = Played()
    run.settle()
    assert run.over
    assert run.applied == [(task, 1) for task in TASKS]
    assert (run.status.state, run.status.exit_code) == ("done", 0)
    assert not run.objects
    assert not run.pods
    assert run.notes == [*(["TaskStarted", "TaskDone"] * 4), "RunDone"]


def test_servers_go_as_soon_as_their_stage_has_its_result() -> None:
    run = Played()
    until(run, "rewrite/tuned")
    assert {one["kind"] for one in run.objects["rewrite/tuned"]} == {"Deployment", "Service", "Job"}
    run.succeed("rewrite/tuned")
    run.step()
    assert "rewrite/tuned" not in run.objects
    assert run.running() == "train/tuned"


def test_what_an_earlier_run_finished_is_not_started() -> None:
    run = Played(results={"prepare", "rewrite/tuned"})
    run.settle()
    assert run.applied == [("train/tuned", 1), ("report", 1)]
    assert run.status.task("prepare").message == "done before"


@pytest.mark.parametrize(("code", "kind"), [(75, "passing"), (65, "passing"), (137, "passing"), (255, "passing"), (143, "disrupted")])
def test_a_passing_fault_gets_another_attempt_after_a_pause(code: int, kind: str) -> None:
    run = Played()
    until(run, "train/tuned")
    run.fail("train/tuned", code)
    decision = run.step()
    state = run.status.task("train/tuned")
    assert (state.state, state.failures, state.failed_attempt, state.exit_code) == ("stopping", {kind: 1}, 1, code)
    assert decision.wake is not None
    assert decision.wake > run.now
    run.step()
    assert run.running() is None, "the pause has not passed"
    assert run.status.task("train/tuned").state == "pending"
    run.now = decision.wake
    run.step()
    assert run.applied[-1] == ("train/tuned", 2)
    run.settle()
    assert run.status.state == "done"


UNEXPECTED = "container stage of pod rewrite/tuned-0 ended unexpectedly with code 1 (the data is wrong; mend it); see dailctl logs"
LACKS = "the image of container stage in pod rewrite/tuned-0 cannot start its program (exit code 127: the data is wrong; mend it)"


@pytest.mark.parametrize(
    ("code", "told"), [*((code, "the data is wrong; mend it") for code in (2, 4, 6, 63)), (1, UNEXPECTED), (127, LACKS)]
)
def test_a_final_fault_ends_the_run_with_its_code_and_frees_everything(code: int, told: str) -> None:
    run = Played()
    until(run, "rewrite/tuned")
    run.fail("rewrite/tuned", code, message=json.dumps({"event": "error", "message": "the data is wrong; mend it", "exit": code}))
    run.step()
    assert (run.status.state, run.status.exit_code) == ("failed", code)
    assert str(run.status.message).startswith(f"rewrite/tuned: {told}")
    run.settle()
    assert run.over
    assert not run.objects
    assert run.applied[-1] == ("rewrite/tuned", 1)


def test_attempts_are_limited() -> None:
    run = Played(record=record_of("prepare", attempts=3))
    for attempt in (1, 2, 3):
        until(run, "prepare")
        assert run.applied[-1] == ("prepare", attempt)
        run.fail("prepare", 75)
        run.step()
    assert (run.status.state, run.status.exit_code) == ("failed", 75)


def test_memory_gets_one_more_try_and_then_the_setting_to_raise() -> None:
    run = Played(record=record_of("prepare"))
    for _ in range(2):
        until(run, "prepare")
        run.fail("prepare", 137, reason="OOMKilled")
        run.step()
    assert run.status.state == "failed"
    assert "took more memory than its limit" in (run.status.message or "")
    assert "raise memory of" in (run.status.message or "")


def test_a_pod_of_an_elastic_group_that_wants_memory_ends_the_attempt_though_the_operator_replaces_it() -> None:
    run = Played(record=record_of("train/tuned"))
    until(run, "train/tuned")
    killed = pod("worker-1", phase="Failed", code=137, reason="OOMKilled", deleted="2026-01-01T00:00:30Z")
    run.pods["train/tuned"] = [pod("worker-0"), killed]
    run.step()
    assert run.status.task("train/tuned").failures == {"memory": 1}


def test_pods_that_the_cluster_takes_away_do_not_count_as_failures() -> None:
    run = Played(record=record_of("prepare", attempts=2))
    for _ in range(10):
        until(run, "prepare")
        run.fail("prepare", 137, conditions=[condition("DisruptionTarget", "PreemptionByScheduler", "a better one came")])
        run.step()
    assert run.status.state == "running"
    assert run.status.task("prepare").failures == {"disrupted": 10}
    assert DISRUPTIONS > 10


def test_a_pod_that_was_taken_away_explains_its_peers_when_it_is_gone_itself() -> None:
    run = Played(record=record_of("train/tuned"))
    until(run, "train/tuned")
    master, worker = pod("master-0"), pod("worker-0", conditions=[condition("DisruptionTarget", "EvictionByEvictionAPI", "a drain")])
    run.pods["train/tuned"] = [master, worker]
    run.step()
    run.pods["train/tuned"] = [master]
    run.step()
    run.fail("train/tuned", 75)
    run.step()
    assert run.status.task("train/tuned").failures == {"disrupted": 1}
    until(run, "train/tuned")
    # Another attempt, and nothing was taken away in it.
    run.fail("train/tuned", 75)
    run.step()
    assert run.status.task("train/tuned").failures == {"disrupted": 1, "passing": 1}


def test_a_pod_that_was_replaced_explains_nothing_any_more() -> None:
    run = Played(record=record_of("prepare"))
    until(run, "prepare")
    run.pods["prepare"] = [pod("a", conditions=[condition("DisruptionTarget", "EvictionByEvictionAPI", "a drain")])]
    run.step()
    run.pods["prepare"] = [pod("b")]
    run.step()
    run.fail("prepare", 75)
    run.step()
    assert run.status.task("prepare").failures == {"passing": 1}


def test_of_a_stage_whose_pods_are_gone_its_own_record_says_that_it_was_asked_to_stop() -> None:
    run = Played(record=record_of("prepare"))
    for state, failures in (("interrupted", {"disrupted": 1}), ("running", {"disrupted": 1, "passing": 1})):
        until(run, "prepare")
        run.attempts["prepare"] = Attempt.model_validate({"number": 1, "started": START, "state": state})
        run.fail("prepare", 75)
        run.pods["prepare"] = []
        run.step()
        assert run.status.task("prepare").failures == failures


@pytest.mark.parametrize("reason", ["DeadlineExceeded", "PyTorchJobFailed"])
def test_a_stage_that_takes_too_long_is_not_tried_again(reason: str) -> None:
    run = Played(record=record_of("prepare"))
    until(run, "prepare")
    run.fail("prepare", 143)
    said = "Job x has failed because it was active longer than specified deadline"
    run.workload("prepare")["status"] = {"conditions": [condition("Failed", reason, said)]}
    run.step()
    assert (run.status.state, run.status.exit_code) == ("failed", 9)
    assert "took longer than it may" in str(run.status.message)
    assert "raise cluster.timeouts.stage" in str(run.status.message)


def test_a_training_that_takes_too_long_is_ended_where_the_operator_does_not() -> None:
    run = Played(record=record_of("train/tuned"))
    until(run, "train/tuned")
    run.workload("train/tuned")["spec"] |= {"runPolicy": {"activeDeadlineSeconds": 3600}}
    run.workload("train/tuned")["status"] = {"startTime": "2026-01-01T00:00:00Z", "conditions": [condition("Running")]}
    for late, state in ((3599, "running"), (3601, "failed")):
        run.now = START + timedelta(seconds=late)
        run.step()
        assert run.status.state == state
    assert "it should have ended at 2026-01-01T01:00:00Z" in str(run.status.message)


def test_the_stages_record_tells_why_where_its_last_words_are_lost() -> None:
    run = Played(record=record_of("prepare"))
    until(run, "prepare")
    run.attempts["prepare"] = Attempt(number=1, started=START, state="failed", error="no such column; map it", exit_code=4)
    run.fail("prepare", 4)
    run.step()
    assert run.status.message == "prepare: no such column; map it"


def test_the_rank_that_was_killed_explains_those_that_lost_it() -> None:
    run = Played(record=record_of("train/tuned"))
    until(run, "train/tuned")
    run.fail("train/tuned", 1)
    run.pods["train/tuned"].append(pod("worker-0", phase="Failed", code=137))
    run.step()
    assert run.status.task("train/tuned").failures == {"passing": 1}


def test_success_without_a_result_is_a_failure() -> None:
    run = Played(record=record_of("prepare"))
    until(run, "prepare")
    run.succeed("prepare", result=False)
    run.step()
    assert run.status.task("prepare").exit_code == 65
    assert run.status.state == "running"


def test_a_result_counts_even_if_the_pod_was_taken_away_in_that_moment() -> None:
    run = Played(record=record_of("prepare"))
    until(run, "prepare")
    run.fail("prepare", 137)
    run.results.add("prepare")
    run.settle()
    assert run.status.state == "done"
    assert run.applied == [("prepare", 1)]


def test_an_image_that_is_not_there_ends_the_run_at_once() -> None:
    run = Played()
    until(run, "rewrite/tuned")
    said = 'failed to pull and unpack image "x:1": failed to resolve reference "x:1": x:1: not found'
    run.pods["rewrite/tuned"] = [pod("server", phase="Pending", waiting="ErrImagePull", message=said)]
    run.step()
    assert (run.status.state, run.status.exit_code) == ("failed", 9)
    assert "the image image:1 cannot be pulled" in (run.status.message or "")


def test_a_registry_that_does_not_answer_is_waited_for() -> None:
    run = Played()
    until(run, "rewrite/tuned")
    run.pods["rewrite/tuned"] = [pod("server", phase="Pending", waiting="ImagePullBackOff", message="dial tcp: i/o timeout")]
    run.step()
    assert run.status.state == "running"
    assert "cannot be pulled" in (run.status.task("rewrite/tuned").message or "")


def test_a_missing_secret_gets_a_minute() -> None:
    run = Played()
    until(run, "prepare")
    run.pods["prepare"] = [pod("p", phase="Pending", waiting="CreateContainerConfigError", message='secret "s3" not found')]
    run.now = START + timedelta(seconds=30)
    run.step()
    said = run.status.task("prepare").message
    assert said is not None
    assert said.startswith('container stage of pod p cannot start (secret "s3" not found); create the Secret')
    run.now = START + timedelta(seconds=90)
    run.step()
    assert (run.status.state, run.status.exit_code) == ("failed", 9)


@pytest.mark.parametrize(("last", "restarts", "state"), [(6, 1, "failed"), (1, 1, "running"), (1, 5, "running"), (75, 4, "running")])
def test_a_server_that_cannot_come_up_ends_its_stage(last: int, restarts: int, state: str) -> None:
    run = Played()
    until(run, "rewrite/tuned")
    server = pod(
        "server", waiting="CrashLoopBackOff", message='{"event": "error", "message": "no such model"}', last=last, restarts=restarts
    )
    run.pods["rewrite/tuned"] = [server]
    run.step()
    assert run.status.state == state
    failed = run.status.task("rewrite/tuned").failed_attempt
    assert failed == (1 if last == 6 or restarts == 5 else 0)


def test_a_pod_on_a_dead_node_is_told_of_and_waited_for() -> None:
    run = Played(record=record_of("prepare"))
    until(run, "prepare")
    run.fail("prepare", 75)
    gone = pod("p", deleted="2026-01-01T00:00:30Z")
    decision = run.decide()
    run.status = decision.status
    run.objects["prepare"][0]["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:30Z"
    run.pods["prepare"] = [gone]
    run.now = START + timedelta(minutes=5)
    run.status = run.decide().status
    assert "node node-1 does not answer" in (run.status.task("prepare").message or "")
    assert run.applied == [("prepare", 1)]


def test_a_task_whose_pod_has_just_ended_is_not_said_to_be_starting() -> None:
    run = Played()
    until(run, "prepare")
    for phase, told in (("Pending", ("pending", "its pods are starting")), ("Succeeded", ("running", None))):
        run.pods["prepare"] = [pod("prepare-1", phase=phase)]
        run.step()
        state = run.status.task("prepare")
        assert (state.state, state.message) == told


def test_a_queue_is_waited_for() -> None:
    run = Played(record=record_of("prepare"))
    until(run, "prepare")
    run.workload("prepare")["spec"]["suspend"] = True
    run.step()
    assert (run.status.task("prepare").state, run.status.task("prepare").message) == ("pending", "waits for its queue to admit it")


def test_what_someone_removed_comes_back_under_the_same_attempt() -> None:
    run = Played()
    until(run, "rewrite/tuned")
    run.objects["rewrite/tuned"] = [one for one in run.objects["rewrite/tuned"] if one["kind"] != "Deployment"]
    run.step()
    assert {one["kind"] for one in run.objects["rewrite/tuned"]} == {"Deployment", "Service", "Job"}
    del run.objects["rewrite/tuned"]
    run.step()
    assert run.applied[-1] == ("rewrite/tuned", 1)
    assert run.status.task("rewrite/tuned").attempts == 1


def test_suspend_frees_everything_and_resume_goes_on() -> None:
    run = Played()
    until(run, "train/tuned")
    run.control = Control(desired="suspend")
    run.step()
    assert run.status.message == "stopping: suspended by a user"
    run.step()
    assert run.status.state == "suspended"
    assert not run.objects
    assert not run.over
    assert run.status.task("train/tuned").failures == {}
    for _ in range(3):
        assert not run.step().actions
    run.control = Control(desired="run")
    run.settle()
    assert run.status.state == "done"
    assert run.applied[2:] == [("train/tuned", 1), ("train/tuned", 2), ("report", 1)]
    assert "Resumed" in run.notes


def test_cancel_ends_and_a_higher_generation_starts_again() -> None:
    run = Played()
    until(run, "train/tuned")
    run.control = Control(desired="cancel")
    run.step()
    run.step()
    assert run.over
    assert (run.status.state, run.status.exit_code) == ("cancelled", 143)
    run.over, run.control = False, Control(desired="run", generation=0)
    run.step()
    assert run.over, "the same generation stays cancelled"
    run.over, run.control = False, Control(desired="run", generation=1)
    run.settle()
    assert (run.status.state, run.status.generation) == ("done", 1)
    assert run.applied[2:] == [("train/tuned", 1), ("train/tuned", 2), ("report", 1)]


def test_a_failed_run_starts_again_with_all_its_attempts() -> None:
    run = Played(record=record_of("prepare", attempts=1))
    until(run, "prepare")
    run.fail("prepare", 75)
    run.settle()
    assert run.status.state == "failed"
    run.over, run.control = False, Control(generation=1)
    run.settle()
    assert (run.status.state, run.status.exit_code, run.applied) == ("done", 0, [("prepare", 1), ("prepare", 2)])


@settings(max_examples=100, deadline=None)
@given(
    kills=st.lists(st.integers(0, 4), max_size=40),
    codes=st.lists(st.sampled_from([0, 0, 0, 75, 143, 137]), max_size=8),
    wishes=st.lists(st.sampled_from(["run", "run", "run", "suspend"]), max_size=10),
)
def test_killed_anywhere_it_comes_to_the_same_end(kills: list[int], codes: list[int], wishes: list[str]) -> None:
    """Each turn may be cut off before the status is written, or after any number of acts; stages fail and people interfere meanwhile."""
    run = Played(record=record_of(*TASKS, attempts=20))
    for turn in range(200):
        wish = wishes[turn] if turn < len(wishes) else "run"
        run.control = Control.model_validate({"desired": wish})
        decision = run.step(upto=kills[turn] if turn < len(kills) else None)
        if run.over:
            break
        for objects in run.objects.values():
            versions = {one["metadata"]["annotations"][ATTEMPT] for one in objects}
            assert len(versions) == 1, "objects of two attempts at once"
        assert len([task for task in run.objects if run.pods.get(task)]) <= 2
        run.now = max(run.now, decision.wake or run.now) + timedelta(seconds=1)
        task = run.running()
        if task is not None and not run.workload(task).get("status"):
            code = codes.pop() if codes else 0
            if code:
                run.fail(task, code)
            else:
                run.succeed(task)
    assert run.over
    assert (run.status.state, run.results) == ("done", set(TASKS))
    assert not run.objects
    for task in TASKS:
        attempts = [attempt for name, attempt in run.applied if name == task]
        assert attempts == sorted(attempts), "attempts count upwards"
