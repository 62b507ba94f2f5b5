"""The chart by Helm's own means: lint, a schema that refuses what it does not know, and an install that makes dailctl's objects."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import helm_python
import pytest
import yaml

import dail_runtime
from dail_runtime.errors import SetupError, SpecError
from dailctl.render.chart import HOOK, chart_folder, in_order, render, render_templates
from dailctl.render.check import check_objects, pods_of
from dailctl.render.parse import parse
from dailctl.render.texts import as_yaml
from tests.golden import CASES, NAMESPACE, rendered
from tests.lab.cluster import Cluster
from tests.support.jobs import a_job, chart_values

ROOT = Path(__file__).parents[2]


def values_of(case: str) -> dict[str, Any]:
    """Values of a golden case, to change."""
    return copy.deepcopy(dict(rendered(case).values))


@pytest.mark.parametrize("case", CASES)
def test_helm_lint_finds_nothing(case: str) -> None:
    report = helm_python.lint(chart_folder(), values_of(case), strict=True, namespace=NAMESPACE)
    assert [one for one in report["messages"] if one["severity"] >= 2] == []
    assert not report["errors"]


def test_schema_and_table_are_what_the_comments_of_values_yaml_say() -> None:
    subprocess.run([sys.executable, ROOT / "tools" / "chart_docs.py", "--check"], check=True)


def test_the_charts_version_is_dails() -> None:
    chart = yaml.safe_load((chart_folder() / "Chart.yaml").read_text())
    assert chart["version"] == chart["appVersion"] == dail_runtime.__version__


@pytest.mark.parametrize("case", CASES)
def test_the_values_say_everything_that_the_schema_knows_and_nothing_else(case: str) -> None:
    schema = json.loads((chart_folder() / "values.schema.json").read_text())
    given = values_of(case)
    assert set(given) | {"conductor", "global"} == set(schema["properties"])
    assert set(given["pools"]["rewrite"]) == set(schema["properties"]["pools"]["properties"]["rewrite"]["properties"])


PLACES: list[tuple[tuple[str | int, ...], Any]] = [
    (("nodeselector",), {}),
    (("run", "uri"), "s3://x"),
    (("run", "tasks", 0, "gpu"), 1),
    (("pools", "gpu"), {}),
    (("pools", "train", "gpu"), 1),
    (("pools", "train", "tolerations"), [{"keys": "x"}]),
    (("pools", "control", "env"), [{"name": "X", "valueFrom": {}}]),
    (("timeouts", "start"), 1),
    (("record", "status.json"), "{}"),
    (("image",), None),
    (("run", "tasks", 0, "attempts"), 0),
    (("pools", "train", "gpus"), "8"),
    (("pools", "train", "memory"), "64GB"),
    (("pools", "train", "cpu"), "four"),
    (("cache", "size"), "20 Gi"),
    (("cache", "claim"), "beside-the-size"),
    (("cache", "size"), None),
    (("run", "jobDigest"), "xyz"),
]


@pytest.mark.parametrize(("place", "value"), PLACES, ids=lambda one: ".".join(map(str, one)) if isinstance(one, tuple) else None)
def test_unknown_keys_and_wrong_values_are_refused(place: tuple[str | int, ...], value: Any) -> None:
    values = values_of("mig")
    inner: Any = values
    for part in place[:-1]:
        inner = inner[part]
    inner[place[-1]] = value
    with pytest.raises(SpecError, match="the chart refuses the job: ") as caught:
        render(values, NAMESPACE)
    assert "\n" not in str(caught.value)
    assert str(place[-1]) in str(caught.value) or value is None


def test_large_numbers_stay_whole_numbers() -> None:
    """Helm reads numbers as floating-point ones, which its templates write as 1.2096e+06 from a million on."""
    values = {**values_of("multi_node"), "conductor": {"ttlSecondsAfterFinished": 1_209_600, "backoffLimit": 1_000_000}}
    pool = {**values["pools"]["train"], "resources": {"example.org/bandwidth": 100_000_000}}
    values |= {"elastic": {"minWorkers": 1, "maxWorkers": 1_000_000, "maxRestarts": 2_000_000}, "pools": {**values["pools"], "train": pool}}
    record, *others = render(helm_python.values_from_yaml(yaml.safe_dump(json.loads(json.dumps(values)))), NAMESPACE)
    conductor = next(one for one in others if one["kind"] == "Job")["spec"]
    assert (conductor["ttlSecondsAfterFinished"], conductor["backoffLimit"]) == (1_209_600, 1_000_000)
    training = next(one for key, text in record["data"].items() if "-train-" in key for one in parse(text))["spec"]
    assert (training["elasticPolicy"]["maxReplicas"], training["elasticPolicy"]["maxRestarts"]) == (1_000_000, 2_000_000)
    (container,) = training["pytorchReplicaSpecs"]["Worker"]["template"]["spec"]["containers"]
    assert container["resources"]["limits"]["example.org/bandwidth"] == 100_000_000


@pytest.mark.parametrize("key", ["cpu", "gpuResource", "memory", "shmSize"])
def test_null_takes_nothing_away_that_a_pod_needs(key: str) -> None:
    values = values_of("multi_node")
    values["pools"]["train"][key] = None
    with pytest.raises(SpecError, match=f"pools.train.{key} is null, which takes its default away; remove it, or give it a value"):
        render(values, NAMESPACE)


def test_what_the_file_has_defaults_for_may_be_left_out() -> None:
    values = {key: values_of("mig")[key] for key in ("run", "record", "image")}
    assert [one["kind"] for one in render(values, NAMESPACE)] == [
        "ConfigMap",
        "ServiceAccount",
        "Role",
        "RoleBinding",
        "NetworkPolicy",
        "Job",
    ]
    record = render({**values, "pools": {"train": {"gpus": 8}}}, NAMESPACE)[0]
    pod = parse(record["data"]["05-train-tuned.yaml"])[0]["spec"]["pytorchReplicaSpecs"]["Master"]["template"]["spec"]
    assert pod["containers"][0]["resources"]["limits"] == {"memory": "8Gi", "nvidia.com/gpu": 8}


def test_default_values_alone_are_refused_with_what_is_missing() -> None:
    with helm_python.Chart.load(chart_folder()) as chart, pytest.raises(helm_python.HelmError, match="run"):
        chart.render({}, name="x", namespace="y")


def test_a_values_file_written_by_dailctl_is_what_helm_takes() -> None:
    text = as_yaml([rendered("a100_pool").values]).removeprefix("---\n")
    values = helm_python.values_from_yaml(text)
    assert render(values, NAMESPACE) == list(rendered("a100_pool").objects)


def test_rendering_is_deterministic_and_independent_of_the_order_of_keys() -> None:
    values = values_of("multi_node")
    turned = json.loads(json.dumps(values, sort_keys=True))
    assert render(turned, NAMESPACE) == render(values, NAMESPACE) == list(rendered("multi_node").objects)


@pytest.mark.cluster
@pytest.mark.parametrize("case", ["laptop_kind", "air_gapped"])
def test_a_plain_helm_install_makes_the_objects_of_dailctl_and_leaves_nothing(
    control_plane: Cluster, namespace: str, tmp_path: Path, case: str
) -> None:
    values = values_of(case)
    expected = render(values, namespace)
    archive = helm_python.package(chart_folder(), destination=tmp_path)
    with helm_python.Config(kubeconfig_path=control_plane.kubeconfig, namespace=namespace) as helm:
        release = helm.install(archive, "any-name", values, namespace=namespace)
        assert release["status"] == "deployed"
        assert values["run"]["name"] in release.get("notes", values["run"]["name"])
        assert in_order(one for one in parse(release["manifest"]) if HOOK not in one["metadata"].get("annotations", {})) == expected
        for one in expected:
            live = control_plane.get(one["kind"], one["metadata"]["name"], namespace)
            assert missing(live, without_managed_by(one)) == []
        again = helm.upgrade(archive, "any-name", values, namespace=namespace)
        assert again["status"] == "deployed"
        helm.uninstall("any-name")
    for one in expected:
        listed = control_plane.kubectl(
            "get", one["kind"], f"--namespace={namespace}", "--output=name", "--selector=app.kubernetes.io/name=dail"
        )
        assert one["metadata"]["name"] not in listed


def without_managed_by(one: dict[str, Any]) -> dict[str, Any]:
    """Helm puts its own name into this label."""
    labels = {key: value for key, value in one["metadata"]["labels"].items() if key != "app.kubernetes.io/managed-by"}
    return {**one, "metadata": {**one["metadata"], "labels": labels}}


def missing(live: Any, wanted: Any, path: str = "") -> list[str]:
    """Where `live`, which has defaults beside it, is not what is wanted."""
    if isinstance(wanted, dict):
        found = [missing(live.get(key), value, f"{path}.{key}") for key, value in wanted.items()] if isinstance(live, dict) else [[path]]
        return [place for places in found for place in places]
    if isinstance(wanted, list) and isinstance(live, list) and len(live) == len(wanted):
        return [place for one, other in zip(live, wanted, strict=True) for place in missing(one, other, path)]
    return [] if live == wanted else [f"{path}: {live!r} is not {wanted!r}"]


def test_a_chart_without_its_folder_is_told_in_a_sentence(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("dailctl.__file__", str(tmp_path / "dailctl" / "__init__.py"))
    with pytest.raises(SetupError, match="install dail again"):
        chart_folder()


@pytest.mark.parametrize(
    ("endpoint", "port"),
    [
        (None, 443),
        ("http://10.0.0.5", 80),
        ("https://minio2", 443),
        ("http://minio2:9000/", 9000),
        ("http://[fd00::12]", 80),
        ("https://[fd00::12]:9443", 9443),
    ],
)
def test_offline_pods_reach_the_port_on_which_the_storage_is(endpoint: str | None, port: int) -> None:
    storage = {"uri": "s3://runs/team", "endpoint": endpoint}
    values = chart_values(a_job(storage=storage, cluster={"offline": True, "cache": {"claim": "models"}}))
    policies = [one for one in render(values, NAMESPACE) if one["kind"] == "NetworkPolicy"]
    offline = next(one for one in policies if one["spec"]["policyTypes"] == ["Egress"])
    assert offline["spec"]["egress"][1]["ports"][-1] == {"protocol": "TCP", "port": port}


@pytest.mark.parametrize(
    ("endpoint", "peer"),
    [
        ("http://minio.storage.svc:80", {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "storage"}}}),
        ("https://s3.rook.svc.cluster.local", {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "rook"}}}),
        ("http://minio", {"podSelector": {}}),
        ("https://s3.inside.example:9443", None),
        ("http://[fd00::12]", None),
        (None, None),
    ],
)
def test_offline_pods_reach_a_storage_behind_a_service(endpoint: str | None, peer: dict | None) -> None:
    values = chart_values(
        a_job(storage={"uri": "s3://runs/team", "endpoint": endpoint}, cluster={"offline": True, "cache": {"claim": "m"}})
    )
    policies = [one for one in render(values, NAMESPACE) if one["kind"] == "NetworkPolicy"]
    offline = next(one for one in policies if one["spec"]["policyTypes"] == ["Egress"])
    # Policies are applied behind the Service, whose pods may listen on any port.
    assert offline["spec"]["egress"][2:] == ([{"to": [peer]}] if peer else [])


def test_a_pools_label_goes_before_that_of_the_run() -> None:
    job = a_job(labels={"team": "nlp", "cost": "1"}, cluster={"pools": {"train": {"labels": {"team": "training", "rack": "a"}}}})
    record, *others = render(chart_values(job), NAMESPACE)
    training = parse(record["data"]["05-train-tuned.yaml"])[0]
    pod = training["spec"]["pytorchReplicaSpecs"]["Master"]["template"]
    shown = [{key: one["metadata"]["labels"].get(key) for key in ("team", "cost", "rack")} for one in (training, pod, *others)]
    of_run = {"team": "nlp", "cost": "1", "rack": None}
    assert shown == [of_run, {"team": "training", "cost": "1", "rack": "a"}, *[of_run] * len(others)]


def a_pool(name: str) -> dict[str, Any]:
    """A pool that says all that a pool can say, each with its own name."""
    preferred = {"weight": 1, "preference": {"matchExpressions": [{"key": name, "operator": "Exists"}]}}
    return {
        "nodeSelector": {"pool": name},
        "tolerations": [{"key": "pool", "operator": "Equal", "value": name, "effect": "NoExecute", "tolerationSeconds": 60}],
        "affinity": {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [preferred]}},
        "priorityClass": f"{name}-priority",
        "runtimeClass": f"{name}-runtime",
        "scheduler": f"{name}-scheduler",
        "env": [{"name": "POOL", "value": name}, {"name": "TOKEN", "secret": {"name": name, "key": "token"}}],
        "volumes": [{"name": "extra", "mountPath": "/extra", "readOnly": True, "source": {"configMap": {"name": name}}}],
        "labels": {"pool": name},
        "annotations": {"sidecar.example.org/inject": name},
        "queue": f"{name}-queue",
    }


def test_every_pod_gets_all_that_its_pool_says() -> None:
    pools = {name: a_pool(name) for name in ("rewrite", "train", "control")}
    values = chart_values(a_job(train={"workers": 2}, cluster={"pools": pools}))
    made = [one for text in render_templates(values, values["run"]["name"], NAMESPACE) for one in parse(text)]
    record = next(one for one in made if one["kind"] == "ConfigMap")
    made += [one for key, text in record["data"].items() if key[0].isdigit() for one in parse(text)]
    seen = []
    for one in made:
        replicas = one.get("spec", {}).get("pytorchReplicaSpecs", {}).values()
        for pod in [one] if one["kind"] == "Pod" else [each["template"] for each in (one.get("spec", {}), *replicas) if "template" in each]:
            labels = pod["metadata"]["labels"]
            name, component = labels["pool"], labels["app.kubernetes.io/component"]
            pool, spec = pools[name], pod["spec"]
            (container,) = spec["containers"]
            seen.append((component, name))
            assert pod["metadata"]["annotations"]["sidecar.example.org/inject"] == name
            assert spec["nodeSelector"] == pool["nodeSelector"]
            assert spec["tolerations"] == pool["tolerations"]
            assert spec["affinity"] == pool["affinity"]
            assert spec["priorityClassName"] == pool["priorityClass"]
            assert spec["runtimeClassName"] == pool["runtimeClass"]
            assert spec["schedulerName"] == pool["scheduler"]
            assert {"name": "POOL", "value": name} in container["env"]
            assert {"name": "TOKEN", "valueFrom": {"secretKeyRef": {"name": name, "key": "token"}}} in container["env"]
            assert {"name": "extra", "configMap": {"name": name}} in spec["volumes"]
            assert {"name": "extra", "mountPath": "/extra", "readOnly": True} in container["volumeMounts"]
            # Kueue takes what is made from a queued object for a part of it; the test is no workload.
            queue = one["metadata"]["labels"].get("kueue.x-k8s.io/queue-name")
            assert queue == (None if component == "test" else pool["queue"])
    assert set(seen) == {
        ("conductor", "control"),
        ("test", "control"),
        ("stage", "control"),
        ("driver", "control"),
        ("driver", "train"),
        ("server", "rewrite"),
        ("trainer", "train"),
    }


@pytest.mark.parametrize("limit", [None, "4"])
def test_the_conductor_is_little_and_has_a_cpu_limit_where_its_pool_has_one(limit: str | None) -> None:
    pool = {"cpu": "2", "cpuLimit": limit, "memory": "8Gi"}
    values = chart_values(a_job(cluster={"pools": {"control": pool}}))
    made = [one for text in render_templates(values, values["run"]["name"], NAMESPACE) for one in parse(text)]
    pods = [pod for one in made if one["kind"] in ("Job", "Pod") for _, pod in pods_of(one)]
    limits = {"memory": "256Mi", **({"cpu": limit} if limit else {})}
    assert [pod["containers"][0]["resources"] for pod in pods] == [{"requests": {"cpu": "100m", "memory": "256Mi"}, "limits": limits}] * 2


@pytest.mark.parametrize("seconds", [0, 30, 600])
def test_servers_drain_for_as_long_as_the_job_says_before_they_are_killed(seconds: int) -> None:
    record = render(chart_values(a_job(cluster={"timeouts": {"serverDrain": seconds}})), NAMESPACE)[0]
    pod = next(one for one in parse(record["data"]["02-rewrite-tuned.yaml"]) if one["kind"] == "Deployment")["spec"]["template"]["spec"]
    server = pod["containers"][0]
    assert server["command"][-2:] == ["--drain", str(seconds)]
    assert pod["terminationGracePeriodSeconds"] >= server["lifecycle"]["preStop"]["sleep"]["seconds"] + seconds + 5


@pytest.mark.parametrize("seconds", [10, 120, 3600])
def test_training_saves_for_as_long_as_the_job_says_before_it_is_killed(seconds: int) -> None:
    record = render(chart_values(a_job(train={"workers": 2}, cluster={"timeouts": {"trainSave": seconds}})), NAMESPACE)[0]
    for replica in parse(record["data"]["05-train-tuned.yaml"])[0]["spec"]["pytorchReplicaSpecs"].values():
        pod = replica["template"]["spec"]
        assert pod["terminationGracePeriodSeconds"] == seconds
        option, ranks = pod["containers"][0]["command"][-2:]
        assert option == "--grace"
        assert seconds - 10 <= int(ranks) < seconds


def test_checks_that_no_api_server_makes() -> None:
    values = chart_values(a_job(train={"workers": 2}, cluster={"pools": {"train": {"gpus": 2}}}))
    objects = render(values, NAMESPACE)
    training = next(one for one in parse(objects[0]["data"]["05-train-tuned.yaml"]))
    assert check_objects([training]) == []
    worker = training["spec"]["pytorchReplicaSpecs"]["Worker"]
    worker["restartPolicy"] = "Sometimes"
    container = worker["template"]["spec"]["containers"][0]
    container["resources"]["requests"]["nvidia.com/gpu"] = 1
    container["env"].append({"name": "HOME", "value": "/"})
    container["securityContext"]["allowPrivilegeEscalation"] = True
    worker["template"]["spec"]["securityContext"]["runAsNonRoot"] = False
    training["spec"]["elasticPolicy"] = {"minReplicas": 3, "maxReplicas": 2}
    found = "\n".join(check_objects([training]))
    for told in (
        "restart policy 'Sometimes'",
        "request of nvidia.com/gpu is not its limit",
        "HOME is set twice",
        "gain privileges",
        "run as root",
        "outside",
    ):
        assert told in found
