"""One cause has many wordings: those of other versions, registries, queues and clouds, and several reasons in one message."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import pytest
import yaml

from dailctl.explain import Cause, Seen, explain
from dailctl.explain.objects import OWN_CONTAINERS
from dailctl.explain.refusals import refused
from tests.support.recorded import NOW, ended, event, job, node, pod, queue_workload, turned_away, unschedulable, waiting

MOMENT = datetime.fromisoformat(NOW)
PREEMPTION = (
    "preemption: 0/6 nodes are available: 2 Preemption is not helpful for scheduling, 4 No preemption victims found for incoming pod."
)
GPU_TAINT = [{"key": "nvidia.com/gpu", "value": "present", "effect": "NoSchedule"}]
CONTROL_PLANE = [{"key": "node-role.kubernetes.io/control-plane", "effect": "NoSchedule"}]
NOT_READY = [{"key": "node.kubernetes.io/not-ready", "effect": "NoSchedule"}]


def cause_of(seen: Seen) -> Cause:
    """The one cause."""
    (found,) = explain(seen, MOMENT)
    return found


def scheduler(message: str, nodes: tuple[dict, ...] | None = None, **spec: object) -> Cause:
    """What is made of the scheduler's message."""
    return cause_of(Seen(pods=(unschedulable(message, **spec),), nodes=nodes))


@pytest.mark.parametrize(
    ("reasons", "name"),
    [
        ("4 Insufficient nvidia.com/gpu, 2 node(s) had untolerated taint {node-role.kubernetes.io/control-plane: }", "NoNodeHasRoom"),
        ("1 node(s) were unschedulable, 2 node(s) didn't match Pod's node affinity/selector, 3 Insufficient memory", "NoNodeHasRoom"),
        ("1 node(s) had untolerated taint {node-role.kubernetes.io/control-plane: }, 3 node(s) didn't match Pod's node affinity/selector",
         "NoNodeMatches"),
        ("1 node(s) had untolerated taint {node-role.kubernetes.io/master: }, 3 node(s) didn't match node selector", "NoNodeMatches"),
        ("1 node(s) had untolerated taint {team: vision}, 3 node(s) didn't match Pod's node affinity/selector", "Taint"),
        ("3 node(s) had untolerated taint {node-role.kubernetes.io/control-plane: }", "Taint"),
        ("2 node(s) had untolerated taint {node.cloudprovider.kubernetes.io/uninitialized: true}", "NodesNotReady"),
        ("2 node(s) had untolerated taint {ToBeDeletedByClusterAutoscaler: 1700000000}", "NodesNotReady"),
        ("2 node(s) had untolerated taint {karpenter.sh/disrupted: }", "NodesNotReady"),
        ("2 node(s) had untolerated taint {node.cilium.io/agent-not-ready: }", "NodesNotReady"),
        ("1 node(s) were not ready, 1 node(s) were unschedulable", "NodesNotReady"),
        ("2 node(s) didn't find available persistent volumes to bind", "VolumeUnbound"),
        ('storageclass.storage.k8s.io "fast" not found', "VolumeUnbound"),
        ('persistentvolumeclaim "models" is being deleted', "VolumeUnbound"),
        ("2 node(s) exceed max volume count", "VolumeElsewhere"),
        ("2 node(s) didn't match PersistentVolume's node affinity", "VolumeElsewhere"),
        ("1 node(s) unavailable due to PersistentVolumeClaim with ReadWriteOncePod access mode already in-use by another pod",
         "VolumeElsewhere"),
        ("2 node(s) didn't match pod anti-affinity rules", "Unscheduled"),
        ("2 node(s) didn't have free ports for the requested pod ports", "Unscheduled"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("end", [f". {PREEMPTION}", f". no new claims to deallocate, {PREEMPTION}", "."])
def test_of_several_reasons_the_telling_one_is_told(reasons: str, name: str, end: str) -> None:
    found = scheduler(f"0/6 nodes are available: {reasons}{end}", nodeSelector={"gpu": "h100"})
    assert (found.name, "preemption" in found.sentence) == (name, False), found.told


def test_where_the_scheduler_only_counts_taints_the_nodes_say_which() -> None:
    counted = (
        f"0/4 nodes are available: 1 node(s) had untolerated taint(s), 3 node(s) didn't match Pod's node affinity/selector. {PREEMPTION}"
    )
    h100 = {"nodeSelector": {"gpu": "h100"}}
    # The one that is tainted is none that the pod asks for.
    assert scheduler(counted, (node("cp", 0, CONTROL_PLANE), node("a", 8)), **h100).name == "NoNodeMatches"
    assert "nvidia.com/gpu=present" in scheduler(counted, (node("a", 8, GPU_TAINT, gpu="h100"), node("b", 8)), **h100).sentence
    not_ready = scheduler(
        "0/2 nodes are available: 2 node(s) had untolerated taint(s).", (node("a", 8, NOT_READY), node("b", 8, NOT_READY))
    )
    assert (not_ready.name, "toleration" in not_ready.remedy) == ("NodesNotReady", False)
    # Who may not read nodes is told where to look.
    either = scheduler(counted, **h100)
    assert (either.name, "labels and taints of the nodes" in either.remedy) == ("Unscheduled", True)
    unknown = scheduler("0/2 nodes are available: 2 node(s) had untolerated taint(s).")
    assert (unknown.name, "kubectl describe nodes" in unknown.remedy) == ("Taint", True)


def test_gpus_that_are_there_behind_a_taint_are_not_too_few() -> None:
    lacking = f"0/6 nodes are available: 4 Insufficient nvidia.com/gpu, 2 node(s) had untolerated taint(s). {PREEMPTION}"
    found = scheduler(lacking, (node("cpu"), node("gpu", 8, GPU_TAINT)))
    assert (found.name, found.final) == ("Taint", False)
    assert "nvidia.com/gpu=present:NoSchedule" in found.sentence
    assert scheduler(lacking, (node("cpu"), node("gpu", 8, NOT_READY))).name == "NodesNotReady"


def test_an_autoscalers_word_counts_while_it_is_its_last() -> None:
    one = unschedulable("0/1 nodes are available: 1 Insufficient nvidia.com/gpu.")
    said = [
        event(one, "TriggeredScaleUp", "pod triggered scale-up: [{gpu 0->1}]", when="2026-11-24T07:55:00Z"),
        event(one, "NotTriggerScaleUp", "pod didn't trigger scale-up: 1 max node group size reached", when="2026-11-24T07:57:00Z"),
        event(one, "Nominated", "Pod should schedule on: nodeclaim/gpu-x2x", when="2026-11-24T07:59:00Z"),
    ]
    names = [explain(Seen(pods=(one,), events=tuple(said[:count])), MOMENT)[0].name for count in range(4)]
    assert names == ["NoNodeHasRoom", "ScalingUp", "NoNodeHasRoom", "ScalingUp"]


@pytest.mark.parametrize(
    ("reason", "message", "name"),
    [
        ("ErrImagePull", "failed to resolve image: docker.io/library/dail:1: not found", "ImageMissing"),
        ("ErrImagePull", "reading manifest 1 in registry.example/dail: manifest unknown", "ImageMissing"),
        ("ImagePullBackOff", 'Back-off pulling image "x": ErrImagePull: rpc error: code = NotFound desc = x: not found', "ImageMissing"),
        ("ErrImagePull", "unexpected status from HEAD request to https://registry.example/v2/: 401 Unauthorized", "ImageDenied"),
        ("ErrImagePull", "unexpected status from GET request to https://ghcr.io/token: 403 Forbidden", "ImageDenied"),
        ("ErrImagePull", 'denied: Permission "artifactregistry.repositories.downloadArtifacts" denied on resource', "ImageDenied"),
        ("ErrImagePull", "pull access denied, repository does not exist or may require authorization: server message: x", "ImageDenied"),
        ("ErrImagePull", "429 Too Many Requests - Server message: toomanyrequests: You have reached your pull rate limit", "RegistryLimit"),
        ("ErrImagePull", "unexpected status from HEAD request to https://registry/v2/: 503 Service Unavailable", "RegistryUnreachable"),
        ("ErrImagePull", 'failed to do request: Head "https://registry.example/v2/": dial tcp: lookup registry.example: no such host',
         "RegistryUnreachable"),
        ("ErrImagePull", "failed to copy: httpReadSeeker: failed open: unexpected EOF", "RegistryUnreachable"),
        ("ErrImagePull", "http: server gave HTTP response to HTTPS client", "RegistryUntrusted"),
        ("ImageInspectError", 'short-name "dail:1" did not resolve to an alias', "ImageName"),
        ("InvalidImageName", 'couldn\'t parse image name "Dail:1": invalid reference format: must be lowercase', "ImageName"),
        ("ErrImagePull", "no matching manifest for linux/arm64/v8 in the manifest list entries", "ImageUnfit"),
    ],
)  # fmt: skip
def test_pulls(reason: str, message: str, name: str) -> None:
    assert cause_of(Seen(pods=(waiting(reason, message),))).name == name


@pytest.mark.parametrize("image", ["registry.example/geofence:1", "registry.example/dail:501", "registry.example/forbidden/dail:401"])
def test_the_images_own_name_says_nothing_of_why_it_cannot_be_pulled(image: str) -> None:
    one = waiting("ErrImagePull", f'failed to pull and unpack image "{image}": failed to resolve image: {image}: not found')
    one["spec"]["containers"][0]["image"] = image
    assert cause_of(Seen(pods=(one,))).name == "ImageMissing"


def test_an_image_that_dail_does_not_name_is_not_mended_in_the_job_file() -> None:
    state = {"waiting": {"reason": "ErrImagePull", "message": "docker.io/library/alpine:3.10: not found"}}
    one = pod(
        spec={"nodeName": "gpu-1", "initContainers": [{"name": "init-pytorch", "image": "alpine:3.10"}]},
        status={"initContainerStatuses": [{"name": "init-pytorch", "restartCount": 0, "state": state}]},
    )
    found = cause_of(Seen(pods=(one,)))
    assert "alpine:3.10" in found.sentence
    assert "cluster.image" not in found.remedy
    assert "administrator" in found.remedy


def test_the_names_of_dails_own_containers_are_the_charts() -> None:
    objects = [one for path in Path("tests/golden/expected").glob("*.yaml") for one in yaml.safe_load_all(path.read_text()) if one]
    text = "\n".join(yaml.safe_dump(one) for one in objects)
    found: set[str] = set()
    for obj in [*objects, *(part for one in objects for data in (one.get("data") or {}).values() for part in _documents(data))]:
        found |= set(_container_names(obj))
    assert found - {"test"} == OWN_CONTAINERS, text[:200]


def _documents(data: str) -> list[dict]:
    try:
        return [one for one in yaml.safe_load_all(data) if isinstance(one, dict)]
    except yaml.YAMLError:
        return []


def _container_names(value: object) -> list[str]:
    if isinstance(value, dict):
        here = [str(one["name"]) for one in value.get("containers") or () if isinstance(one, dict) and "name" in one]
        return here + [name for one in value.values() for name in _container_names(one)]
    return [name for one in value for name in _container_names(one)] if isinstance(value, list) else []


@pytest.mark.parametrize(
    ("reason", "message", "name", "final"),
    [
        ("CreateContainerConfigError", "couldn't find key AWS_SECRET_ACCESS_KEY in Secret ml/dail-s3", "ConfigMissing", True),
        ("CreateContainerConfigError", 'configmap "corp-ca" not found', "ConfigMissing", True),
        ("CreateContainerConfigError", "container has runAsNonRoot and image will run as root", "ContainerStart", True),
        ("CreateContainerConfigError", "failed to sync secret cache: timed out waiting for the condition", "ContainerDelayed", False),
        ("CreateContainerError", "context deadline exceeded", "ContainerDelayed", False),
        ("CreateContainerError", 'failed to reserve container name "main_x_0": name is reserved for "abc"', "ContainerDelayed", False),
        ("RunContainerError", 'runc create failed: exec: "python": executable file not found in $PATH', "ContainerStart", True),
        ("RunContainerError", "nvidia-container-cli: initialization error: driver not loaded", "ContainerStart", True),
    ],
)
def test_only_what_will_come_again_ends_a_run_at_its_start(reason: str, message: str, name: str, final: bool) -> None:
    found = cause_of(Seen(pods=(waiting(reason, message),)))
    assert (found.name, found.final) == (name, final)


def test_what_was_told_last_of_a_pods_start_holds() -> None:
    one = waiting("ContainerCreating")
    mount = event(one, "FailedMount", "failed to sync secret cache: timed out", when="2026-11-24T07:55:00Z")
    pulling = event(one, "Pulling", 'Pulling image "x"', when="2026-11-24T07:56:00Z")
    pulled = event(one, "Pulled", "Successfully pulled", when="2026-11-24T07:58:00Z")
    told = [[cause.name for cause in explain(Seen(pods=(one,), events=events), MOMENT)] for events in
            ((mount,), (mount, pulling), (mount, pulling, pulled))]  # fmt: skip
    assert told == [["VolumeMount"], ["ImagePulling"], []]


@pytest.mark.parametrize(
    ("code", "message", "reason", "name", "kind"),
    [
        (1, "KeyError: 'x'", "Error", "Crash", "final"),
        (2, "usage: dail", "Error", "UserError", "final"),
        (126, "python: permission denied", "Error", "CommandMissing", "final"),
        (128, 'exec: "python": executable file not found in $PATH: unknown', "StartError", "CommandMissing", "final"),
        (128, "failed to create containerd task: context deadline exceeded", "StartError", "PassingFault", "passing"),
        (134, "Aborted", "Error", "Signalled", "passing"),
        (137, "", "Error", "Signalled", "passing"),
        (137, "The container could not be located when the pod was terminated", "ContainerStatusUnknown", "NodeLost", "disrupted"),
        (255, "", "Unknown", "NodeLost", "disrupted"),
        (255, "ssh: connection closed", "Error", "PassingFault", "passing"),
        (1, "RuntimeError: No CUDA GPUs are available", "Error", "CudaNotVisible", "final"),
        (1, "Failed to initialize NVML: Driver/library version mismatch", "Error", "CudaNotVisible", "final"),
        (1, "torch.distributed.DistNetworkError: The client socket has timed out after 60000ms", "Error", "PeersTimedOut", "passing"),
        (1, "RendezvousConnectionError: The connection to the C10d store has failed", "Error", "PeersTimedOut", "passing"),
        # Two lines for Python, one for a pattern.
        (1, "8 were asked for\x0b GPU", "Error", "CudaNotVisible", "final"),
    ],
)
def test_ends(code: int, message: str, reason: str, name: str, kind: str) -> None:
    found = cause_of(Seen(pods=(ended(code, message, reason),)))
    assert (found.name, found.kind) == (name, kind), found.told
    assert "signal 127" not in found.told


@pytest.mark.parametrize(
    ("reason", "message", "name"),
    [
        ("OutOfcpu", "Pod was rejected: Node didn't have enough resource: cpu", "Rejected"),
        ("UnexpectedAdmissionError", "Pod was rejected: Allocate failed due to no healthy devices present", "Rejected"),
        ("TopologyAffinityError", "Pod was rejected: Resources cannot be allocated with Topology locality", "Rejected"),
        ("NodeShutdown", "Pod was rejected as the node is shutting down.", "NodeLost"),
        ("Evicted", "The node was low on resource: ephemeral-storage.", "Evicted"),
        ("DeadlineExceeded", "Pod was active on the node longer than the specified deadline", "DeadlineExceeded"),
    ],
)
def test_what_a_kubelet_turned_away_is_told(reason: str, message: str, name: str) -> None:
    assert cause_of(Seen(pods=(turned_away(reason, message),))).name == name


def test_an_injected_container_that_took_too_much_memory_is_not_mended_in_the_pools() -> None:
    proxy = {"name": "istio-proxy", "image": "istio", "resources": {"limits": {"memory": "128Mi"}}}
    state = {"terminated": {"exitCode": 137, "reason": "OOMKilled", "finishedAt": "2026-11-24T07:59:00Z"}}
    one = pod(spec={"nodeName": "gpu-1"}, status={"phase": "Failed", "containerStatuses": [{"name": "istio-proxy", "state": state}]})
    one["spec"]["containers"].append(proxy)
    found = cause_of(Seen(pods=(one,)))
    assert (found.name, "128Mi" in found.sentence, "cluster.pools" in found.remedy) == ("OutOfMemory", True, False)


def test_a_queue_says_what_an_admission_check_waits_for() -> None:
    owner = job(labels={"kueue.x-k8s.io/queue-name": "gpu-queue"}, spec={"suspend": True})
    workload = queue_workload(owner, {"type": "QuotaReserved", "status": "True", "reason": "QuotaReserved", "message": "Quota reserved"})
    workload["status"]["admissionChecks"] = [
        {"name": "prov", "state": "Pending", "message": "no capacity yet"},
        {"name": "x", "state": "Ready"},
    ]
    assert "(prov: no capacity yet)" in cause_of(Seen(objects=(owner,), workloads=(workload,))).sentence
    # One flavor is too small, another is only taken: it is worth waiting.
    both = "couldn't assign flavors: request > maximum capacity (16 > 8), insufficient unused quota in flavor b, 4 more needed"
    waits = queue_workload(owner, {"type": "QuotaReserved", "status": "False", "reason": "Pending", "message": both})
    assert cause_of(Seen(objects=(owner,), workloads=(waits,))).name == "Queue"


@pytest.mark.parametrize(
    ("message", "name", "words"),
    [
        ('pods "x" is forbidden: status unknown for quota: few, resources: pods', "Quota", "quota few"),
        ('pods "x" is forbidden: failed quota: few: must specify limits.cpu for: main; limits.memory for: main', "Quota", "limits.memory"),
        ('admission webhook "w.corp" denied the request without explanation', "WebhookDenied", "no reason"),
        ('admission webhook "validate.kyverno.svc-fail" denied the request: \n\nresource Pod/ml/x was blocked by policies'
         "\n\ndisallow-latest-tag:\n  require-image-tag: 'validation error: no tag'", "WebhookDenied", "disallow-latest-tag"),
        ('admission webhook "validation.gatekeeper.sh" denied the request: [owner] you must provide labels: {"owner"}', "WebhookDenied",
         '{"owner"}'),
        ('conversion webhook for kueue.x-k8s.io/v1beta2, Kind=Workload failed: Post "https://x": no endpoints available', "WebhookDown",
         "no endpoints"),
        ("etcdserver: request timed out", "ApiBusy", "request timed out"),
        ('pods "x" is forbidden: pod rejected: RuntimeClass "nvidia" not found', "Refused", 'RuntimeClass "nvidia" not found'),
    ],
)  # fmt: skip
def test_refusals(message: str, name: str, words: str) -> None:
    found = refused(message, "job.batch/x")
    assert found.name == name
    assert words in found.sentence
