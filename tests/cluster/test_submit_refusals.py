"""What submit and its follower refuse, each in one sentence, within ten seconds of asking, with a code that is not zero."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from dailctl.preflight import check_cluster
from dailctl.render.names import conductor_job
from tests.lab.components import wait_until
from tests.support.admission import denied
from tests.support.cli import dailctl
from tests.support.cluster_run import ClusterRun
from tests.support.machine import assert_takes_less
from tests.support.waiting import wait_for

pytestmark = [pytest.mark.cluster, pytest.mark.slow]

EDITOR = [
    {"apiGroups": [""], "resources": ["configmaps", "serviceaccounts"], "verbs": ["create", "get", "list", "watch", "patch"]},
    {"apiGroups": [""], "resources": ["pods", "events", "services"], "verbs": ["create", "get", "list", "watch", "patch", "delete"]},
    {"apiGroups": [""], "resources": ["pods/log", "secrets"], "verbs": ["get"]},
    {"apiGroups": ["batch"], "resources": ["jobs"], "verbs": ["get", "list", "watch", "patch", "delete"]},
    {"apiGroups": ["apps"], "resources": ["deployments"], "verbs": ["create", "get", "list", "watch", "patch", "delete"]},
    {"apiGroups": ["kubeflow.org"], "resources": ["pytorchjobs"], "verbs": ["create", "get", "list", "watch", "patch", "delete"]},
    {"apiGroups": ["policy"], "resources": ["poddisruptionbudgets"], "verbs": ["create", "get", "list", "watch", "patch", "delete"]},
    {"apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": ["create", "get", "list", "watch", "patch", "delete"]},
    {"apiGroups": ["networking.k8s.io"], "resources": ["networkpolicies"], "verbs": ["create", "get", "patch"]},
    {"apiGroups": ["rbac.authorization.k8s.io"], "resources": ["roles", "rolebindings"], "verbs": ["create", "get", "patch"]},
]
"""What a user needs in a namespace, but for one verb: creating Jobs."""


def assert_refused(run: ClusterRun, code: int, *sentences: str, words: tuple[str, ...] = ()) -> None:
    """Submitting fails so, tells just that, and leaves nothing."""
    before = run.left()

    def refused() -> None:
        said = run.submit(*words)
        assert said.code == code, said.err
        errors = [line for line in said.errors if line.startswith("error: ")]
        assert len(errors) == len(sentences), said.err
        for error, sentence in zip(errors, sentences, strict=True):
            assert sentence in error

    assert_takes_less(10, refused)
    assert run.left() == before


def test_the_one_right_that_is_missing_is_named(run: ClusterRun) -> None:
    run.kubeconfig = run.lab.user("jane", run.namespace, EDITOR)
    assert_refused(run, 9, f"may not create jobs.batch in namespace {run.namespace}; ask an administrator of the cluster for that right")


def test_with_that_right_it_goes(run: ClusterRun) -> None:
    rights = [*EDITOR, {"apiGroups": ["batch"], "resources": ["jobs"], "verbs": ["create"]}]
    run.kubeconfig = run.lab.user("jane", run.namespace, rights)
    run.script()
    said = run.submit()
    assert said.code == 0, said.err
    assert "may not list the cluster's nodes" in said.err
    assert run.until(lambda status: status.ended).state == "done"


def test_secrets_that_are_missing_or_lack_keys(run: ClusterRun) -> None:
    run.lab.kubectl("delete", "secret", "s3", "--namespace", run.namespace)
    assert_refused(run, 9, f"namespace {run.namespace} has no secret s3; create it with AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY")
    run.lab.apply(
        {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s3"}, "stringData": {"AWS_ACCESS_KEY_ID": "x"}},
        namespace=run.namespace,
    )
    assert_refused(run, 9, f"the secret s3 in namespace {run.namespace} lacks AWS_SECRET_ACCESS_KEY; add it")


def test_pods_that_no_node_takes(run: ClusterRun) -> None:
    run.write(cluster={**cluster_of(run), "pools": {"control": pool(run), "rewrite": pool(run, gpus=1), "train": pool(run, gpus=64)}})
    assert_refused(run, 9, "no node of the cluster is large enough for a pod of trainer")
    run.write(
        cluster={**cluster_of(run), "pools": {"control": pool(run), "rewrite": pool(run, gpus=1), "train": {"nodeSelector": {"x": "y"}}}}
    )
    assert_refused(run, 9, "no node of the cluster takes the pods of trainer (node selector, affinity, taints)")


def test_what_the_api_server_would_refuse_of_a_task_in_hours_is_told_now(run: ClusterRun) -> None:
    wrong = pool(run, gpus=1, affinity={"nodeAffinity": {"required": {}}})
    run.write(cluster={**cluster_of(run), "pools": {"control": pool(run), "rewrite": pool(run, gpus=1), "train": wrong}})
    assert_refused(
        run,
        9,
        f"the API server refuses pytorchjob.kubeflow.org/{run.name}-train-tuned: PyTorchJob in version",
    )
    assert "nodeAffinity.required" in run.said[-1].err
    assert run.said[-1].errors[-1].endswith("correct cluster.pools.train")
    wrong = pool(run, volumes=[{"name": "data", "mountPath": "/data", "source": {"persistentVolumeClaim": {"claim": "x"}}}])
    run.write(cluster={**cluster_of(run), "pools": {"control": wrong, "rewrite": pool(run, gpus=1), "train": pool(run, gpus=1)}})
    said = run.submit()
    assert said.code == 9
    assert all(line.endswith("correct cluster.pools.control") for line in said.errors if line.startswith("error: "))


def test_what_the_pods_name_and_the_namespace_lacks(run: ClusterRun) -> None:
    def volume(name: str, source: dict[str, object]) -> dict[str, object]:
        return {"name": name, "mountPath": f"/{name}", "source": source}

    volumes = [volume("a", {"secret": {"secretName": "no-secret"}}), volume("b", {"configMap": {"name": "no-map"}})]
    volumes += [volume("c", {"secret": {"secretName": "x", "optional": True}}), volume("d", {"configMap": {"name": "y", "optional": True}})]
    train = pool(run, gpus=1, volumes=volumes, runtimeClass="no-runtime", priorityClass="no-priority")
    cache = {"size": "1Gi", "storageClass": "no-storage"}
    run.write(cluster={**cluster_of(run), "cache": cache, "pools": {"control": pool(run), "rewrite": pool(run, gpus=1), "train": train}})
    assert_refused(
        run,
        9,
        f"namespace {run.namespace} has no secret no-secret; create it",
        "there is no ConfigMap no-map; create it, or correct the pools' volumes",
        "there is no PriorityClass no-priority; create it, or correct cluster.pools.*.priorityClass",
        "there is no RuntimeClass no-runtime; create it, or correct cluster.pools.*.runtimeClass",
        "there is no StorageClass no-storage; create it, or correct cluster.cache.storageClass",
    )


def test_what_a_policy_of_the_cluster_denies_of_the_run_itself(run: ClusterRun) -> None:
    with denied(run.lab, run.namespace, "jobs.batch", "no jobs on Fridays"):
        assert_refused(run, 9, "no jobs on Fridays")


def test_what_a_policy_of_the_cluster_denies_of_a_task_is_a_warning(run: ClusterRun) -> None:
    made = run.submission()
    with denied(run.lab, run.namespace, "pytorchjobs.kubeflow.org", "no training on Fridays"):
        (found,) = check_cluster(run.client(), made.objects, made.stages)
    assert "no training on Fridays" in found.sentence
    assert not found.final, "it is the conductor that will ask, and not now"


def test_without_a_terminal_nothing_is_submitted_unless_it_is_said(run: ClusterRun) -> None:
    before = run.left()
    said = dailctl("submit", "-f", run.file, "--kubeconfig", run.kubeconfig)
    assert said.code == 2
    assert f"run {run.name} in namespace {run.namespace}" in said.err, "the plan is told first"
    assert said.errors[-1] == "error: submit asks before it starts a run, and there is no terminal to ask on; say --yes"
    assert run.left() == before
    assert list(run.submission().run.root.list("jobs/")) == []


def test_a_store_that_is_a_folder(run: ClusterRun) -> None:
    run.write(storage={"uri": "/tmp/runs"})
    assert_refused(run, 3, "/tmp/runs is a folder of this machine, which pods cannot reach; write s3://bucket/prefix")


def test_a_store_that_is_not_there(run: ClusterRun) -> None:
    run.write(storage={"uri": "s3://no-such-bucket"})
    assert_refused(run, 5, "no such bucket")


def test_a_namespace_that_is_not_there(run: ClusterRun) -> None:
    said = run.submit("-n", "nowhere")
    assert said.code == 9
    assert "the cluster has no namespace nowhere; create it, or choose another with -n" in said.err


def test_a_cluster_that_does_not_answer(run: ClusterRun) -> None:
    config = run.kubeconfig.read_text()
    server = next(line.split("server: ")[1] for line in config.splitlines() if "server: " in line)
    run.kubeconfig = run.folder / "kubeconfig"
    run.kubeconfig.write_text(config.replace(server, "https://127.0.0.1:9"))
    assert_refused(run, 75, "the cluster at https://127.0.0.1:9 (context lab) cannot be reached")


def test_credentials_that_the_cluster_does_not_know(run: ClusterRun) -> None:
    config = run.lab.user("jane", run.namespace, EDITOR).read_text()
    token = next(line.split("token: ")[1] for line in config.splitlines() if "token: " in line)
    run.kubeconfig = run.folder / "kubeconfig"
    run.kubeconfig.write_text(config.replace(token, "nonsense"))
    assert_refused(run, 9, "the cluster does not accept the credentials of jane; renew them and try again")


def test_wrong_credentials_in_the_secret_end_the_run_with_a_sentence(run: ClusterRun) -> None:
    wrong = {"AWS_ACCESS_KEY_ID": "labkey", "AWS_SECRET_ACCESS_KEY": "wrong"}
    run.lab.apply({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s3"}, "stringData": wrong}, namespace=run.namespace)
    said = run.submit("--wait")
    assert said.code == 5, said.err
    assert "does not accept the secret key; check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY" in said.errors[-1]
    run.until_only_the_record_is_left()


def test_an_image_that_cannot_be_pulled_ends_the_run_with_a_sentence(run: ClusterRun) -> None:
    run.write(cluster={**cluster_of(run), "image": "localhost/typo:1", "controlImage": "localhost/dail:1"})
    run.script()
    said = run.submit("--wait")
    assert said.code == 9
    assert "prepare: the image localhost/typo:1 cannot be pulled" in said.errors[-1]
    run.until_only_the_record_is_left()


def test_a_conductors_image_that_cannot_be_pulled_is_told_while_waiting(run: ClusterRun) -> None:
    run.write(cluster={**cluster_of(run), "image": "localhost/dail:1", "controlImage": "localhost/typo:1"})
    said = run.submit("--wait")
    assert said.code == 9
    assert "the run's conductor does not start: the image localhost/typo:1 cannot be pulled" in said.errors[-1]


def test_why_a_run_does_not_begin_is_told_to_whoever_waits(run: ClusterRun) -> None:
    run.write(
        cluster={
            **cluster_of(run),
            "pools": {"control": {**pool(run), "nodeSelector": {"x": "y"}}, "rewrite": pool(run), "train": pool(run)},
        }
    )
    waiting = run.submitting("--wait", "--any-nodes")
    try:
        said = iter(waiting.stderr or ())
        waits = next(line for line in said if "the run's conductor waits: " in line)
        assert "no node" in waits, waits
        patch = json.dumps({"metadata": {"labels": {"kueue.x-k8s.io/queue-name": "team-a"}}, "spec": {"suspend": True}})
        run.lab.kubectl("patch", "job", conductor_job(run.name), "--namespace", run.namespace, "--type=merge", f"--patch={patch}")
        queued = next(line for line in said if "waits for the queue" in line)
        assert queued.startswith("the run's conductor waits for the queue team-a to admit it; dailctl describe")
    finally:
        waiting.kill()
        waiting.communicate()


def test_a_quota_that_is_used_up_is_told_to_whoever_waits_and_waited_for(run: ClusterRun) -> None:
    run.script()
    quota = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "full"}, "spec": {"hard": {"pods": "0"}}}
    run.lab.apply(quota, namespace=run.namespace)
    wait_for(lambda: run.lab.get("resourcequota", "full", run.namespace), lambda found: "used" in found.get("status", {}))
    waiting = run.submitting("--wait")
    try:
        waits = next(line for line in waiting.stderr or () if "waits: " in line)
        assert "the namespace's quota full lets nothing more of" in waits
        run.lab.kubectl("delete", "resourcequota", "full", "--namespace", run.namespace)
        _, said = waiting.communicate(timeout=600)
        assert waiting.returncode == 0, said
    finally:
        waiting.kill()
        waiting.communicate()


def test_dry_runs_change_nothing(run: ClusterRun) -> None:
    before = run.left()
    client = run.submit("--dry-run=client")
    assert client.code == 0, client.err
    server = run.submit("--dry-run=server")
    assert server.code == 0, server.err
    assert f"configmap/{run.name} created (dry run)" in client.out
    assert f"pytorchjob.kubeflow.org/{run.name}-train-tuned created (server dry run)" in server.out
    assert run.left() == before
    assert list(run.submission().run.root.list("jobs/")) == []


def test_submitting_twice_changes_nothing(run: ClusterRun) -> None:
    run.script(rewrite__tuned=["wait"])
    assert run.submit().code == 0
    run.until(lambda status: status.task("rewrite/tuned").state == "running")
    kinds = ("serviceaccount", "role", "rolebinding", "networkpolicy", "job", "deployment", "service")
    before = {kind: [(one["metadata"]["uid"], one["metadata"]["generation" if kind in ("job", "deployment") else "resourceVersion"]) for one in run.objects(kind)] for kind in kinds}  # fmt: skip # noqa: E501
    said = run.submit()
    assert said.code == 0
    assert {line.split()[-1] for line in said.out.splitlines()} == {"unchanged"}
    after = {kind: [(one["metadata"]["uid"], one["metadata"]["generation" if kind in ("job", "deployment") else "resourceVersion"]) for one in run.objects(kind)] for kind in kinds}  # fmt: skip # noqa: E501
    assert before == after


def test_two_submits_at_once_make_one_run(run: ClusterRun) -> None:
    run.script()
    both = [run.submitting("--wait"), run.submitting("--wait")]
    said = [(one.communicate(timeout=900), one.returncode) for one in both]
    assert [code for _, code in said] == [0, 0], said
    assert len({one["metadata"]["name"] for one in run.objects("configmap")}) == 1
    status = run.status()
    assert status is not None
    assert [task.attempts for task in status.tasks] == [1] * len(status.tasks)
    assert sum(name.startswith(f"{run.name}-conductor") for name, _ in run.kubelet.started) == 1


@pytest.fixture
def no_pytorch_jobs(run: ClusterRun) -> Iterator[None]:
    """The cluster without the training operator's API."""
    crd = run.lab.get("crd", "pytorchjobs.kubeflow.org")
    run.lab.kubectl("delete", "crd", "pytorchjobs.kubeflow.org")

    def known() -> bool:
        return "PyTorchJob" in {one["kind"] for one in run.client().resources("kubeflow.org/v1") or ()}

    # The API server takes a moment to forget a kind, and to know it again.
    assert wait_until(lambda: not known(), 600)
    yield
    meta = {"name": crd["metadata"]["name"], "annotations": crd["metadata"].get("annotations", {})}
    run.lab.apply({"apiVersion": crd["apiVersion"], "kind": crd["kind"], "metadata": meta, "spec": crd["spec"]})
    assert wait_until(known, 600)
    # It notices by itself, but only after a while.
    run.lab.component("training-operator").kill()
    run.lab.start("training-operator")


@pytest.mark.usefixtures("no_pytorch_jobs")
def test_a_cluster_without_the_training_operator(run: ClusterRun) -> None:
    assert_refused(run, 9, "the cluster has no PyTorchJob (kubeflow.org/v1); install the Kubeflow training operator 1.9")


def cluster_of(run: ClusterRun) -> dict[str, object]:
    """The job's own cluster section."""
    import yaml

    return dict(yaml.safe_load(run.file.read_text())["spec"]["cluster"])


def pool(run: ClusterRun, **more: object) -> dict[str, object]:
    """A pool on the run's node."""
    return {"cpu": "100m", "memory": "64Mi", "nodeSelector": {"test": run.namespace}, **more}
