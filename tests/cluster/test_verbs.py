"""Every verb for runs on a real control plane, with runs that come and go under it, and what each says when it cannot."""

from __future__ import annotations

import json
import os
import pty
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from dailctl.conductor.archive import MOST_BYTES
from dailctl.kube.resources import CONFIG_MAP
from dailctl.observe.model import CheckList, EventList, LeftoverList, RunDescription, RunList
from tests.support.cli import Said, dailctl
from tests.support.cluster_run import ClusterRun
from tests.support.machine import slowness
from tests.support.process_kubelet import REPOSITORY
from tests.support.require import require
from tests.support.waiting import wait_for

pytestmark = [pytest.mark.cluster, pytest.mark.slow]


def verb(run: ClusterRun, *words: object, kubeconfig: Path | None = None) -> Said:
    """`dailctl WORDS` in the run's namespace."""
    where = ["--kubeconfig", kubeconfig or run.kubeconfig, "-n", run.namespace]
    return dailctl(*map(str, words), *map(str, where))


def stopped(run: ClusterRun, stage: str = "select/tuned") -> None:
    """Submitted, and at work on a stage that waits until it is asked to stop."""
    run.script(**{stage.replace("/", "__"): ["wait", "ok"]})
    assert run.submit().code == 0
    run.until_at_work(stage)


def gpu_pods(run: ClusterRun) -> list[str]:
    pods = run.objects("pods")
    return [one["metadata"]["name"] for one in pods if "nvidia.com/gpu" in str(one["spec"]) and one["status"].get("phase") != "Succeeded"]


def test_a_run_is_listed_described_and_logged_while_it_works(run: ClusterRun) -> None:
    assert verb(run, "get").err.strip() == f"no runs in namespace {run.namespace}"
    stopped(run)
    listed = verb(run, "get")
    assert listed.out.splitlines()[0].split()[0] == "NAME"
    assert listed.out.splitlines()[1].split()[:4] == [run.name, "running", "2/7", "select/tuned"]
    assert verb(run, "get", "-o", "name").out == f"{run.name}\n"
    assert [one.name for one in RunList.model_validate_json(verb(run, "get", "-o", "json").out).items] == [run.name]
    assert json.loads(verb(run, "get", "job", "-o", "json").out)["now"] == "select/tuned"
    assert run.namespace in dailctl("get", "-A", "--kubeconfig", run.kubeconfig).out
    assert run.name in verb(run, "get", "-l", "dail.dev/job=job").out
    assert verb(run, "get", "-l", "dail.dev/job=other").out == ""

    # Pods of the tasks before may be on their way out.
    found = wait_for(
        lambda: RunDescription.model_validate(yaml.safe_load(verb(run, "describe", "job", "-o", "yaml").out)),
        lambda seen: {pod.task for pod in seen.pods_now} == {"conductor", "select/tuned"},
        moves=lambda seen: [pod.name for pod in seen.pods_now],
    )
    assert (found.state, found.desired, found.causes) == ("running", "run", ())
    assert found.conductor is not None
    text = verb(run, "describe", "--file", run.file).out
    assert "State:      running (select/tuned)" in text

    events = EventList.model_validate_json(verb(run, "events", run.name, "-o", "json").out).items
    assert {"TaskStarted", "TaskDone"} <= {one.reason for one in events}
    assert list(events) == sorted(events, key=lambda one: one.last)

    said = verb(run, "logs", run.name)
    assert said.code == 0, said.err
    assert said.out.splitlines() == [
        "select/tuned: attempt 1 started",
        "talk of select/tuned, attempt 1",
        "1/4 problems, 1 234 tokens/s",
    ]
    assert '{"event": "start"' in verb(run, "logs", run.name, "--raw").out
    assert "conducts" in verb(run, "logs", run.name, "--stage", "conductor").out
    # Of a task whose pods are gone: from the store.
    with pytest.MonkeyPatch.context() as patch:
        for name, value in run.credentials().items():
            patch.setenv(name, value)
        assert "talk of rewrite/tuned, attempt 1" in verb(run, "logs", run.name, "--stage", "rewrite").out
        refused = verb(run, "logs", run.name, "--stage", "report")
    assert (refused.code, refused.errors) == (2, ["error: there is no log of report (waiting); -f waits for one"])


def test_logs_follow_a_run_through_attempts_to_its_end(run: ClusterRun) -> None:
    run.script(select__tuned=["exit:75", "slow"])
    assert run.submit().code == 0
    with run.started("logs", "-f", run.name) as following:
        out, err = following.communicate(timeout=900)
    assert following.returncode == 0, err
    lines = out.splitlines()
    assert lines.index("talk of select/tuned, attempt 1") < lines.index("talk of select/tuned, attempt 2")
    assert lines.count("talk of select/tuned, attempt 2") == 1
    assert "talk of report, attempt 1" in lines
    assert err.strip().endswith(f"run {run.name} is done: done")


def test_a_laptop_whose_clock_is_wrong_asks_by_that_of_the_cluster(run: ClusterRun) -> None:
    require(shutil.which("faketime"), "faketime is not here; run tools/test-needs as root")
    stopped(run)
    words = ["logs", run.name, "--since", "30m", "--kubeconfig", run.kubeconfig, "-n", run.namespace]
    ahead = ["faketime", "--exclude-monotonic", "-f", "+7200s", sys.executable, "-m", "dailctl", *map(str, words)]
    said = subprocess.run(ahead, env={**os.environ, "PYTHONPATH": str(REPOSITORY)}, capture_output=True, text=True, check=False)
    assert "talk of select/tuned, attempt 1" in said.stdout, said.stderr


def test_of_a_huge_log_the_end_is_kept(run: ClusterRun) -> None:
    run.script(select__tuned=["flood:12"])
    assert run.submit("--wait").code == 0
    root = run.submission().run.root
    (key,) = [info.key for info in root.list(f"logs/select/tuned/{run.name}/")]
    kept = root.get(key)
    assert len(kept) <= MOST_BYTES
    assert b"00000 x" not in kept
    assert b'"event": "done"' in kept.splitlines()[-1]


def test_logs_wait_through_pending_and_say_why(run: ClusterRun) -> None:
    run.write(cluster={"pools": {"control": {"cpu": "100m", "memory": "64Mi", "nodeSelector": {"test": "nowhere"}}}})
    run.script()
    assert run.submit("--any-nodes").code == 0
    with run.started("logs", "-f", run.name, "--stage", "conductor") as following:
        assert following.stderr is not None
        # Before the scheduler has looked at its pod, there is less to say.
        line = next(line for line in following.stderr if "waiting for conductor: no node has the labels" in line)
        following.terminate()
    assert "test=nowhere" in line
    causes = RunDescription.model_validate_json(verb(run, "describe", run.name, "-o", "json").out).causes
    assert [(one.cause, one.task) for one in causes] == [("NoNodeMatches", "conductor")]


def test_cancel_frees_the_gpus_keeps_results_and_resume_finishes(run: ClusterRun) -> None:
    run.script(train__tuned=["wait", "ok"])
    assert run.submit().code == 0
    run.until(lambda status: status.task("train/tuned").state == "running")
    assert gpu_pods(run)
    before, began = slowness(), time.monotonic()
    said = verb(run, "cancel", run.name)
    assert (said.code, said.out) == (0, f"run/{run.name} cancelled\n"), said.err
    assert time.monotonic() - began < 60 * max(before, slowness())
    assert gpu_pods(run) == []
    assert json.loads(verb(run, "get", run.name, "-o", "json").out)["state"] == "cancelled"
    assert verb(run, "cancel", run.name).code == 0
    assert verb(run, "suspend", run.name).errors == [f"error: run {run.name} is cancelled already; there is nothing to suspend"]
    kept = {task.name for task in run.status().tasks if task.state == "done"}  # type: ignore[union-attr]
    assert {"prepare", "rewrite/tuned", "select/tuned"} <= kept

    said = verb(run, "resume", run.name)
    assert said.code == 0, said.err
    status = run.until(lambda status: status.ended and status.generation == 1)
    assert status.state == "done", status
    # What was finished was not done again.
    assert {task.attempts for task in status.tasks if task.name in kept} == {1}
    assert verb(run, "resume", run.name).errors == [f"error: run {run.name} is done; a changed job is a new run (dailctl submit)"]
    run.until_only_the_record_is_left()


def test_suspend_holds_a_run_until_resume(run: ClusterRun) -> None:
    stopped(run)
    said = verb(run, "suspend", run.name)
    assert (said.code, said.out) == (0, f"run/{run.name} suspended\n"), said.err
    assert [one["metadata"]["name"] for one in run.objects("pods") if "conductor" not in one["metadata"]["name"]] == []
    assert verb(run, "get", run.name, "-o", "json").out.count('"state": "suspended"') == 1
    assert verb(run, "resume", run.name).code == 0
    assert run.until(lambda status: status.ended).state == "done"


def test_cancel_works_where_no_conductor_is_left_to_do_it(run: ClusterRun) -> None:
    stopped(run)
    run.lab.kubectl("delete", "job", f"{run.name}-conductor", "--namespace", run.namespace, "--wait=true")
    said = verb(run, "cancel", run.name)
    assert said.code == 0, said.err
    assert "has no conductor that could stop it" in said.err
    assert gpu_pods(run) == []
    status = run.status()
    assert status is not None
    assert (status.state, status.exit_code) == ("cancelled", 143)
    assert verb(run, "resume", run.name).code == 0
    assert run.until(lambda status: status.ended and status.generation == 1).state == "done"


def test_watch_shows_a_run_to_its_end_and_ends_with_its_code(run: ClusterRun) -> None:
    run.script(select__tuned=["slow", "ok"], train__tuned=["error:8:nothing was learnt"])
    assert run.submit().code == 0
    with run.started("watch", run.name) as watching, run.started("get", "-w") as getting:
        out, err = watching.communicate(timeout=900)
        listed = []
        # It hears of the end on a connection of its own.
        for line in getting.stdout or ():
            listed.append(line.split())
            if listed[-1][1:2] == ["failed"]:
                break
        getting.terminate()
    assert watching.returncode == 8
    assert f"error: run {run.name} failed: train/tuned: nothing was learnt" in err
    assert out.splitlines()[0].split()[:2] == ["NAME", "STATE"]
    assert any(line.split()[:2] == ["select/tuned", "done"] for line in out.splitlines())
    assert out.count("RunFailed: train/tuned: nothing was learnt") == 1
    assert listed[0][0] == "NAME"
    assert listed[-1][1] == "failed"


def test_watching_runs_whose_conductor_waits_reads_each_record_once(run: ClusterRun) -> None:
    run.write(cluster={"pools": {"control": {"cpu": "100m", "memory": "64Mi", "nodeSelector": {"test": "nowhere"}}}})
    run.script()
    assert run.submit("--any-nodes").code == 0
    watcher = run.lab.user("watcher", run.namespace, [{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get", "list", "watch"]}])
    ours, theirs = pty.openpty()
    with run.started("get", "-w", kubeconfig=watcher, stdout=theirs, TERM="xterm", COLUMNS="160") as watching:
        os.close(theirs)
        drawn = b""
        while drawn.count(b"NAME") < 4:
            drawn += os.read(ours, 65536)
        watching.terminate()
    os.close(ours)
    asked = run.lab.requests(f"system:serviceaccount:{run.namespace}:watcher")
    assert [one["verb"] for one in asked if one["objectRef"].get("name") == run.name] == ["get"]


def test_delete_removes_everything_and_gc_finds_what_was_left(run: ClusterRun) -> None:
    stopped(run)
    nothing = verb(run, "gc")
    assert (nothing.out, nothing.err.strip()) == ("", "nothing is left behind")
    wrong = verb(run, "delete", run.name, f"{run.name[:-1]}x")
    assert wrong.code == 2
    assert f"there is no run {run.name[:-1]}x in namespace {run.namespace} (there is {run.name})" in wrong.err
    assert run.status() is not None, "a wrong name must not remove the others"
    asked = verb(run, "delete", run.name)
    assert (asked.code, "is running, and delete asks before it ends a run" in asked.err) == (2, True), asked.err
    ours, theirs = pty.openpty()
    with run.started("delete", run.name, stdin=theirs) as asking:
        os.write(ours, b"n\n")
        _, err = asking.communicate(timeout=900)
    assert (asking.returncode, f"run {run.name} is running. Delete?" in err, "nothing was deleted" in err) == (2, True, True), err
    assert run.status() is not None
    said = verb(run, "delete", run.name, "--yes")
    assert (said.code, said.out) == (0, f"run/{run.name} deleted\n"), said.err
    assert "its results are kept in s3://" in said.err
    assert run.objects("pods") == []
    again = verb(run, "delete", run.name)
    assert again.code == 2
    assert again.errors[0].startswith(f"error: there is no run {run.name} in namespace {run.namespace}")
    assert any(info.key.endswith("_manifest.json") for info in run.submission().run.root.list())

    # An object whose record is gone, as a submit leaves it that is killed and whose record is removed by hand.
    labels = {"app.kubernetes.io/name": "dail", "dail.dev/run": "lost-12345678", "dail.dev/task": "train"}
    orphan = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "lost", "labels": labels}, "spec": {"ports": [{"port": 80}]}}
    run.lab.apply(orphan, namespace=run.namespace)
    found = LeftoverList.model_validate_json(verb(run, "gc", "-o", "json").out).items
    assert [(one.name, one.run, one.reason) for one in found] == [("service/lost", "lost-12345678", "its run has no record")]
    assert "service/lost deleted" in verb(run, "gc", "--yes").err
    assert verb(run, "gc").err.strip() == "nothing is left behind"


def test_gc_removes_old_records_only_when_asked_for(run: ClusterRun) -> None:
    run.script()
    assert run.submit("--wait").code == 0
    run.until_only_the_record_is_left()
    assert verb(run, "gc", "--older-than", "1d").err.strip() == "nothing is left behind"
    found = verb(run, "gc", "--older-than", "0m")
    assert f"configmap/{run.name}" in found.out
    assert verb(run, "gc", "--older-than", "0m", "--yes").code == 0
    assert run.client().find(CONFIG_MAP, run.name) is None
    assert verb(run, "gc", "--older-than", "soon").errors == ["error: --older-than soon: write a number and d, h or m, as 7d"]


def test_doctor_names_what_is_missing(run: ClusterRun) -> None:
    fine = verb(run, "doctor", "-f", run.file, "-o", "json")
    checks = {one.name: one for one in CheckList.model_validate_json(fine.out).items}
    assert fine.code == 0, fine.err
    # The lab's storage listens on this machine's own address, which pods of a real cluster could not reach.
    assert "pods mean themselves by it" in checks.pop("storage").detail
    assert {one.result for one in checks.values()} == {"ok"}, checks
    assert {"version", "namespace", "rights", "apis", "operator", "secrets", "references"} <= set(checks)
    assert any(name.startswith("nodes: trainer") for name in checks)
    run.write(
        storage={"credentialsSecret": "other"},
        cluster={"queue": "gpu", "pools": {"train": {"gpus": 64, "cpu": "1", "memory": "1Gi", "nodeSelector": {"test": run.namespace}}}},
    )
    ill = verb(run, "doctor", "-f", run.file)
    assert ill.code == 9
    for word in ("has no secret other", "large enough for a pod of trainer", "LocalQueue"):
        assert any(word in line for line in ill.errors), (word, ill.err)


def test_doctor_says_when_the_operator_is_down(run: ClusterRun) -> None:
    run.lab.component("training-operator").stop()
    try:
        ill = verb(run, "doctor", "-f", run.file)
    finally:
        run.lab.start("training-operator")
    assert ill.code == 9
    assert any("operator:" in line and "does not answer" in line for line in ill.errors), ill.err


def test_a_user_without_rights_gets_them_named(run: ClusterRun) -> None:
    stopped(run)
    user = run.lab.user("reader", run.namespace, [{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get", "list"]}])
    assert run.name in verb(run, "get", kubeconfig=user).out
    described = RunDescription.model_validate_json(verb(run, "describe", run.name, "-o", "json", kubeconfig=user).out)
    assert {"pods", "events", "jobs"} <= set(described.unknown)
    for words in (["cancel", run.name], ["delete", run.name, "--yes"], ["logs", run.name], ["events", run.name]):
        said = verb(run, *words, kubeconfig=user)
        assert said.code == 9, (words, said)
        assert "has no right to" in said.err
        assert len(said.errors) == 1
    # Of events it only says that it may not show them.
    watcher = run.lab.user("watcher", run.namespace, [{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get", "list", "watch"]}])
    with run.started("watch", run.name, kubeconfig=watcher) as watching:
        assert watching.stdout is not None
        assert watching.stdout.readline().split()[:2] == ["NAME", "STATE"]
        watching.terminate()
        _, err = watching.communicate(timeout=900)
    assert "cannot list events" in err
    nobody = run.lab.user("nobody", run.namespace, [])
    said = verb(run, "get", kubeconfig=nobody)
    assert (said.code, len(said.errors)) == (9, 1)
    assert "cannot list configmaps" in said.err


@pytest.mark.parametrize("words", [["get", "../x"], ["describe", "x;y"], ["logs", "a b"], ["cancel", "\x1b[2J"], ["delete", "x" * 64]])
def test_a_hostile_name_is_refused_without_asking_the_cluster(words: list[str], tmp_path: Path) -> None:
    kubeconfig = tmp_path / "kubeconfig"
    cluster = {"name": "c", "cluster": {"server": "https://127.0.0.1:1"}}
    context = {"name": "c", "context": {"cluster": "c"}}
    kubeconfig.write_text(yaml.safe_dump({"clusters": [cluster], "contexts": [context], "current-context": "c"}))
    said = dailctl(*words, "--kubeconfig", kubeconfig)
    assert (said.code, len(said.errors)) == (2, 1)
    assert "is no name of a run" in said.err
    assert "\x1b[2J" not in said.err
