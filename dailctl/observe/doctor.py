"""Looks at a cluster before the first submit: everything that a run will need, each as a check of its own, all of them always."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Literal

from dail_runtime.errors import DailError
from dailctl.explain.refusals import refused
from dailctl.explain.table import POLICY, WEBHOOK, WEBHOOK_DOWN
from dailctl.kube import ApiError, Client, Forbidden, NotFound
from dailctl.kube.client import ALL
from dailctl.kube.resources import DEPLOYMENT, NAMESPACE, NODE, PYTORCH_JOB, Object
from dailctl.observe.model import CheckView
from dailctl.preflight import Finding, check_storage
from dailctl.preflight.admission import refused_objects
from dailctl.preflight.finding import Pods, pods_of
from dailctl.preflight.needs import missing_apis, missing_namespace, missing_references, missing_secrets
from dailctl.preflight.nodes import unfit, willing
from dailctl.preflight.rights import missing_rights
from dailctl.render.names import COMPONENT_LABEL, STAGE_LABEL
from dailctl.submit.compose import Submission

LEAST_VERSION = (1, 30)
"""preStop sleep and the failure policy of Jobs are on by default from here on."""
OPERATOR = "control-plane=kubeflow-training-operator"
PSA = "pod-security.kubernetes.io/enforce"

Result = Literal["ok", "failed", "warning", "unknown"]


def diagnose(client: Client, submission: Submission, *, real: bool) -> list[CheckView]:
    """Every check, in the order in which people mend things.

    Args:
        client: the cluster.
        submission: what would be submitted.
        real: whether it comes from the user's own job; else only what every job needs is looked at.

    Raises:
        ClusterError, TransientError: the cluster cannot be asked at all.
    """
    version = client.version()
    everything = [*submission.objects, *submission.stages]
    pods = list(pods_of(everything))
    checks: list[Callable[[], list[CheckView]]] = [
        lambda: [_version(version)],
        lambda: [_namespace(client)],
        lambda: [_verdict("rights", missing_rights(client, submission.objects), "you may do all that a run needs")],
        lambda: [_verdict("apis", missing_apis(client, everything), "every kind of object that a run needs is known")],
        lambda: [_operator(client, submission.namespace)],
    ]
    if real:
        checks += [
            lambda: _nodes(client, pods),
            lambda: [_verdict("objects", refused_objects(client, everything), "the API server takes every object of the run")],
            lambda: [_verdict("references", missing_references(client, everything, pods), "queues, claims and classes are there")],
            lambda: [_verdict("secrets", missing_secrets(client, pods), "every secret is there, with its keys")],
            lambda: [
                _verdict("storage", check_storage(submission.run.root, submission.run.job.spec.storage), "this machine can write there")
            ],
        ]
    with ThreadPoolExecutor(len(checks)) as pool:
        return [view for views in pool.map(lambda check: check(), checks) for view in views]


def _verdict(name: str, findings: Iterable[Finding], fine: str) -> CheckView:
    found = list(findings)
    if not found:
        return CheckView(name=name, result="ok", detail=fine)
    final = [one for one in found if one.final]
    result: Result = "failed" if final else "unknown" if "not known" in found[0].sentence else "warning"
    return CheckView(name=name, result=result, detail="; ".join(one.sentence for one in final or found))


def _version(text: str) -> CheckView:
    found = re.match(r"v(\d+)\.(\d+)", text)
    if found is None:
        return CheckView(name="version", result="unknown", detail=f"the API server calls its version {text!r}")
    if (int(found.group(1)), int(found.group(2))) < LEAST_VERSION:
        least = ".".join(map(str, LEAST_VERSION))
        return CheckView(name="version", result="failed", detail=f"Kubernetes {text} is too old; dail needs {least} or later")
    return CheckView(name="version", result="ok", detail=f"Kubernetes {text}")


def _namespace(client: Client) -> CheckView:
    missing = missing_namespace(client)
    if missing:
        return _verdict("namespace", missing, "")
    try:
        labels = (client.get(NAMESPACE, client.namespace)["metadata"].get("labels")) or {}
    except Forbidden:
        detail = f"{client.namespace}; you may not read it, so its Pod Security level is not known"
        return CheckView(name="namespace", result="ok", detail=detail)
    level = labels.get(PSA, "privileged")
    return CheckView(name="namespace", result="ok", detail=f"{client.namespace}, Pod Security {level} (dail's pods keep to restricted)")


def _operator(client: Client, namespace: str) -> CheckView:
    """Ask its webhook to refuse a job that it must refuse: an answer proves that the operator is at work. Nothing is created."""
    name = "operator"
    try:
        client.apply(_impossible(), "dailctl", namespace=namespace, dry_run=True)
    except NotFound as err:
        if "namespace" in str(err):
            return CheckView(name=name, result="unknown", detail="there is no namespace to ask it in")
        return CheckView(name=name, result="failed", detail="the cluster has no PyTorchJob; install the Kubeflow training operator 1.9")
    except DailError as err:
        cause = refused(str(err), "a PyTorchJob")
        if cause.name == WEBHOOK_DOWN.name:
            return CheckView(name=name, result="failed", detail=cause.told)
        if _by_operator(str(err)):
            return CheckView(name=name, result="ok", detail="the Kubeflow training operator answers")
        if not isinstance(err, Forbidden) and cause.name not in (WEBHOOK.name, POLICY.name):
            return CheckView(name=name, result="unknown", detail=str(err))
    # Nobody refused it, or someone else did before it came to the operator.
    return _operator_deployment(client)


def _by_operator(refusal: str) -> bool:
    """Whether the operator's own webhook refused a job with two masters; a cluster may have others, with policies of their own."""
    return "must be 1" in refusal or "training-operator" in refusal


def _operator_deployment(client: Client) -> CheckView:
    """Where its webhook does not answer the question."""
    try:
        found = client.select(DEPLOYMENT, namespace=ALL, labels=OPERATOR)
    except ApiError:
        detail = "it could not be asked itself, and you may not list Deployments of other namespaces; ask an administrator whether it runs"
        return CheckView(name="operator", result="unknown", detail=detail)
    if not any((one.get("status") or {}).get("readyReplicas") for one in found):
        detail = "no Kubeflow training operator runs in the cluster; install version 1.9, or ask an administrator to"
        return CheckView(name="operator", result="failed", detail=detail)
    return CheckView(name="operator", result="ok", detail="the Kubeflow training operator runs")


def _impossible() -> Object:
    """A PyTorchJob with two masters, which the operator's webhook refuses."""
    container = {"name": "pytorch", "image": "registry.invalid/none:1"}
    master = {"replicas": 2, "restartPolicy": "Never", "template": {"spec": {"containers": [container]}}}
    meta = {"name": "dailctl-doctor"}
    return {
        "apiVersion": PYTORCH_JOB.api_version,
        "kind": PYTORCH_JOB.kind,
        "metadata": meta,
        "spec": {"pytorchReplicaSpecs": {"Master": master}},
    }


def _nodes(client: Client, pods: list[Pods]) -> list[CheckView]:
    """One check for each kind of pod."""
    try:
        nodes = client.select(NODE)
    except Forbidden:
        return [CheckView(name="nodes", result="unknown", detail="you may not list the cluster's nodes; ask whether the pools' pods fit")]
    views: dict[str, CheckView] = {}
    for one in pods:
        labels = one.template["metadata"].get("labels") or {}
        name = f"nodes: {labels.get(COMPONENT_LABEL, one.owner['kind'])}"
        if stage := labels.get(STAGE_LABEL):
            name += f" of {stage}"
        takes = len(willing(one.template["spec"], nodes))
        view = _verdict(name, unfit([one], nodes), f"{takes} of {len(nodes)} nodes take its pods")
        if name not in views or view.result == "failed":
            views[name] = view
    return list(views.values())
