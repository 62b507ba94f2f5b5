"""`dailctl diff` against a real API server: nothing for the same job, the settings for a changed one."""

from __future__ import annotations

import pytest

from tests.support.cli import Said, dailctl
from tests.support.cluster_run import ClusterRun

pytestmark = [pytest.mark.cluster, pytest.mark.slow]


def diff(run: ClusterRun, *words: str) -> Said:
    return dailctl("diff", "-f", run.file, "--kubeconfig", run.kubeconfig, *words)


def test_the_first_run_the_same_run_and_a_changed_one(run: ClusterRun) -> None:
    first = diff(run, "--exit-code")
    assert first.code == 1
    assert f"submit would start the run {run.name}, the first of this job here; 0 of its 7 tasks" in first.err
    run.script()
    assert run.submit("--wait").code == 0
    same = diff(run, "--exit-code")
    assert (same.code, same.out) == (0, "")
    assert f"run {run.name} is there and done: nothing would change" in same.err
    changed = diff(run, "--set", "train.epochs=2")
    assert changed.code == 0
    assert "+    epochs: 2" in changed.out
    assert "tasks have their results already (prepare, rewrite/tuned, select/tuned, evaluate/base)" in changed.err
    # Someone else changed an object by hand while the run is there.
    run.lab.kubectl("label", "configmap", run.name, "--namespace", run.namespace, "app.kubernetes.io/part-of=other", "--overwrite")
    by_hand = diff(run)
    assert "-    app.kubernetes.io/part-of: other\n+    app.kubernetes.io/part-of: dail" in by_hand.out
