"""Every cause of docs/causes.md, from objects as the API gives them."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dailctl.explain import Seen, explain
from dailctl.explain.docs import as_markdown
from dailctl.explain.refusals import refused
from dailctl.explain.table import ROWS
from tests.support.recorded import NOW, disrupted, ended, event, job, node, pod, queue_workload, turned_away, unschedulable, waiting

MOMENT = datetime.fromisoformat(NOW)
GPU = "nvidia.com/gpu"
NO_ROOM = (
    "0/4 nodes are available: 2 Insufficient nvidia.com/gpu, 2 node(s) didn't match Pod's node affinity/selector. preemption: 0/4 nodes "
    "are available: 2 No preemption victims found for incoming pod, 2 Preemption is not helpful for scheduling."
)
TAINTED = (
    "0/3 nodes are available: 1 node(s) didn't match Pod's node affinity/selector, 2 node(s) had untolerated taint(s). no new claims to "
    "deallocate, preemption: 0/3 nodes are available: 3 Preemption is not helpful for scheduling."
)
MATCHLESS = "0/2 nodes are available: 2 node(s) didn't match Pod's node affinity/selector."
OVER = "exceeded quota: few, requested: requests.nvidia.com/gpu=16, used: requests.nvidia.com/gpu=10, limited: requests.nvidia.com/gpu=20"
NO_FLAVOR = "couldn't assign flavors to pod set main: insufficient unused quota for nvidia.com/gpu in flavor a100, 4 more needed"
TOO_MUCH = "couldn't assign flavors to pod set main: insufficient quota for nvidia.com/gpu in flavor a, request > maximum capacity (16 > 8)"
PULL = 'rpc error: code = Unknown desc = failed to pull and unpack image "registry.example/dail:1": '
WATCHDOG = "[Rank 3] Watchdog caught collective operation timeout: WorkNCCL(SeqNum=7, OpType=ALLREDUCE) ran for 600000 ms"
LATE = {"type": "Failed", "status": "True", "reason": "DeadlineExceeded", "message": "Job was active longer than specified deadline"}
NO_RIGHT = 'pods is forbidden: User "system:serviceaccount:ml:op" cannot create resource "pods" in API group "" in the namespace "ml"'
QUEUE = {"kueue.x-k8s.io/queue-name": "gpu-queue"}
SAID = '{"event": "error", "kind": "DataError", "message": "expert.jsonl, line 7: no solution; add one", "exit": 4}'


def on_object(reason: str, message: str) -> Seen:
    """A Job whose controller could not make its pod."""
    owner = job()
    return Seen(objects=(owner,), events=(event(owner, reason, message),))


def forbidden(message: str) -> Seen:
    return on_object("FailedCreate", f'Error creating: pods "qwen-1a2b3c4d-select-x7x2c" is forbidden: {message}')


def with_events(one: dict, *events: tuple[str, str]) -> Seen:
    return Seen(pods=(one,), events=tuple(event(one, reason, message) for reason, message in events))


def queued(*conditions: dict, **fields: object) -> Seen:
    owner = job(labels=QUEUE, spec={"suspend": True})
    workload = queue_workload(owner, *conditions)
    workload["spec"] |= fields
    return Seen(objects=(owner,), workloads=(workload,))


RUNNING = {"name": "pytorch", "ready": False, "restartCount": 0, "state": {"running": {"startedAt": "2026-11-24T07:57:00Z"}}}
CLAIM = {"volumes": [{"name": "cache", "persistentVolumeClaim": {"claimName": "models"}}]}

CASES: dict[str, tuple[Seen, tuple[str, ...]]] = {
    "NoNodeHasRoom": (Seen(pods=(unschedulable(NO_ROOM),)), ("nvidia.com/gpu free", "2 Insufficient", "cluster.pools.train")),
    "NodeTooSmall": (
        Seen(pods=(unschedulable(NO_ROOM),), nodes=(node("a", 4), node("b", 2), node("c", 8, [{"key": "x", "effect": "NoSchedule"}]))),
        ("8 nvidia.com/gpu", "has 4"),
    ),
    "NoNodeMatches": (
        Seen(pods=(unschedulable(MATCHLESS, nodeSelector={"gpu": "a100"}),)),
        ("gpu=a100", "nodeSelector"),
    ),
    "Taint": (
        Seen(pods=(unschedulable(TAINTED),), nodes=(node("a", 8, [{"key": "team", "value": "vision", "effect": "NoSchedule"}]),)),
        ("team=vision:NoSchedule", "toleration"),
    ),
    "NodesNotReady": (
        Seen(pods=(unschedulable("0/2 nodes are available: 2 node(s) had untolerated taint {node.kubernetes.io/not-ready: }."),)),
        ("not ready",),
    ),
    "NoNodes": (Seen(pods=(unschedulable("no nodes available to schedule pods"),)), ("no node yet",)),
    "ScalingUp": (
        with_events(unschedulable(NO_ROOM), ("TriggeredScaleUp", "pod triggered scale-up: [{gpu-pool 0->1 (max: 4)}]")),
        ("gpu-pool 0->1", "wait"),
    ),
    "VolumeElsewhere": (
        Seen(pods=(unschedulable("0/2 nodes are available: 2 node(s) had volume node affinity conflict.", **CLAIM),)),
        ("volume node affinity conflict", "WaitForFirstConsumer"),
    ),
    "VolumeMissing": (
        Seen(pods=(unschedulable('0/4 nodes are available: persistentvolumeclaim "models" not found. not found'),)),
        ("models", "does not exist", "cluster.cache.claim"),
    ),
    "VolumeUnbound": (
        Seen(pods=(unschedulable("0/4 nodes are available: pod has unbound immediate PersistentVolumeClaims. not found", **CLAIM),)),
        ("models", "storageClass"),
    ),
    "VolumeMount": (
        with_events(
            pod(spec={"nodeName": "gpu-1"}), ("FailedMount", 'MountVolume.SetUp failed for volume "k" : secret "corp-ca" not found')
        ),
        ('secret "corp-ca" not found',),
    ),
    "Gated": (
        Seen(
            pods=(
                pod(
                    spec={"schedulingGates": [{"name": "kueue.x-k8s.io/admission"}]},
                    status={"conditions": [{"type": "PodScheduled", "status": "False", "reason": "SchedulingGated"}]},
                ),
            )
        ),
        ("kueue.x-k8s.io/admission",),
    ),
    "Unscheduled": (
        Seen(pods=(unschedulable("0/1 nodes are available: 1 node(s) didn't match pod topology spread constraints."),)),
        ("topology spread",),
    ),
    "ImageMissing": (
        Seen(
            pods=(
                waiting(
                    "ErrImagePull",
                    'rpc error: code = NotFound desc = failed to pull and unpack image "registry.example/dail:1": failed to resolve '
                    "reference: registry.example/dail:1: not found",
                ),
            )
        ),
        ("registry.example/dail:1", "cluster.image"),
    ),
    "ImageDenied": (
        with_events(
            waiting("ImagePullBackOff", 'Back-off pulling image "registry.example/dail:1"'),
            ("Failed", "Failed to pull image: pull access denied, repository does not exist or may require authorization"),
        ),
        ("pull access denied", "cluster.secrets.imagePull"),
    ),
    "ImageName": (Seen(pods=(waiting("InvalidImageName", "couldn't parse image name"),)), ("no name of an image",)),
    "ImageNotOnNode": (Seen(pods=(waiting("ErrImageNeverPull", "never pull"),)), ("imagePullPolicy",)),
    "ImageUnfit": (
        Seen(pods=(waiting("ErrImagePull", f"{PULL}no match for platform in manifest: not found"),)),
        ("registry.example/dail:1", "other processors", "build it for that platform"),
    ),
    "ImageUntrusted": (Seen(pods=(waiting("SignatureValidationFailed", "no signature exists"),)), ("signature", "no signature exists")),
    "RegistryUntrusted": (
        Seen(pods=(waiting("ErrImagePull", f"{PULL}tls: failed to verify certificate: x509: certificate signed by unknown authority"),)),
        ("x509", "accept the registry's certificate"),
    ),
    "RegistryLimit": (
        Seen(pods=(waiting("ErrImagePull", f"{PULL}429 Too Many Requests - Server message: toomanyrequests: unauthenticated pull rate"),)),
        ("429 Too Many Requests", "cluster.secrets.imagePull"),
    ),
    "NodeDiskFull": (
        Seen(pods=(waiting("ErrImagePull", f"{PULL}failed to extract layer: write /x: no space left on device"),)),
        ("disk is full", "free space"),
    ),
    "RegistryUnreachable": (
        Seen(pods=(waiting("ErrImagePull", "dial tcp: lookup registry.example: no such host: not found"),)),
        ("reach the registry",),
    ),
    "ImagePulling": (
        with_events(pod(spec={"nodeName": "gpu-1"}), ("Pulling", 'Pulling image "registry.example/dail:1"')),
        ("gpu-1", "1m00s"),
    ),
    "ConfigMissing": (
        Seen(pods=(waiting("CreateContainerConfigError", 'secret "dail-s3" not found'),)),
        ('secret "dail-s3" not found', "create the Secret"),
    ),
    "PodSetup": (
        with_events(pod(spec={"nodeName": "gpu-1"}), ("FailedCreatePodSandBox", 'no runtime for "nvidia" is configured')),
        ("node gpu-1", 'no runtime for "nvidia"', "runtimeClass of cluster.pools.train"),
    ),
    "ContainerDelayed": (Seen(pods=(waiting("CreateContainerError", "context deadline exceeded"),)), ("deadline", "tried again")),
    "ContainerStart": (Seen(pods=(waiting("RunContainerError", "exec format error"),)), ("exec format error",)),
    "Quota": (
        forbidden(OVER),
        ("quota few", "requests.nvidia.com/gpu=16", "requests.nvidia.com/gpu=20"),
    ),
    "Queue": (
        queued(
            {
                "type": "QuotaReserved",
                "status": "False",
                "reason": "Pending",
                "message": NO_FLAVOR,
            }
        ),
        ("gpu-queue", "4 more needed"),
    ),
    "QueueTooSmall": (
        queued({"type": "QuotaReserved", "status": "False", "reason": "Pending", "message": TOO_MUCH}),
        ("more than the queue gpu-queue ever has", "16 > 8", "larger quota"),
    ),
    "QueueDeactivated": (
        queued({"type": "Evicted", "status": "True", "reason": "Deactivated", "message": "The workload is deactivated"}, active=False),
        ("put job.batch/qwen-1a2b3c4d-select aside", "dailctl cancel"),
    ),
    "QueueClosed": (
        queued({"type": "QuotaReserved", "status": "False", "reason": "Inadmissible", "message": "LocalQueue gpu-queue doesn't exist"}),
        ("doesn't exist", "cluster.queue"),
    ),
    "QueueEvicted": (
        queued(
            {"type": "Evicted", "status": "True", "reason": "Preempted", "message": "Preempted to accommodate a workload"},
            {"type": "QuotaReserved", "status": "False", "reason": "Pending", "message": "Preempted to accommodate a workload"},
        ),
        ("took job.batch/qwen-1a2b3c4d-select out again",),
    ),
    "OperatorSilent": (Seen(objects=(job(kind="PyTorchJob"),)), ("10m00s", "training operator")),
    "NodeSilent": (Seen(pods=(pod(spec={"nodeName": "gpu-1"}, deletionTimestamp="2026-11-24T07:55:00Z"),)), ("gpu-1", "--force")),
    "NodeUnreachable": (
        Seen(
            pods=(
                pod(
                    spec={"nodeName": "gpu-1"},
                    status={
                        "phase": "Running",
                        "containerStatuses": [{**RUNNING, "ready": True}],
                        "conditions": [{"type": "ContainersReady", "status": "True"}, {"type": "Ready", "status": "False"}],
                    },
                ),
            )
        ),
        ("node gpu-1", "another node"),
    ),
    "Starting": (
        with_events(
            pod(
                component="server",
                stage="rewrite",
                spec={"nodeName": "gpu-1"},
                status={"phase": "Running", "containerStatuses": [RUNNING], "conditions": [{"type": "Ready", "status": "False"}]},
            ),
            ("Unhealthy", "Startup probe failed: connection refused"),
        ),
        ("3m00s", "Startup probe failed"),
    ),
    "OutOfMemory": (Seen(pods=(ended(137, "", "OOMKilled"),)), ("64Gi", "cluster.pools.train")),
    "GpuOutOfMemory": (
        Seen(pods=(ended(1, "Traceback\ntorch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB.\nmore"),)),
        ("Tried to allocate 2.00 GiB", "lower the batch"),
    ),
    "CudaNotVisible": (
        Seen(pods=(ended(7, "RuntimeError: Found no NVIDIA driver on your system. no CUDA-capable device is detected"),)),
        ("8 nvidia.com/gpu", "device plugin"),
    ),
    "GpuBroken": (
        Seen(pods=(ended(1, "torch.AcceleratorError: CUDA error: uncorrectable ECC error encountered"),)),
        ("on node gpu-1", "ECC", "out of service"),
    ),
    "PeersTimedOut": (
        Seen(pods=(ended(134, WATCHDOG),)),
        ("lost touch", "NCCL_SOCKET_IFNAME"),
    ),
    "UserError": (Seen(pods=(ended(4, f"loading\n{SAID}"),)), ("expert.jsonl, line 7: no solution; add one", "exit code 4")),
    "PassingFault": (Seen(pods=(ended(75, "the store answered 503"),)), ("503", "tried again")),
    "CommandMissing": (Seen(pods=(ended(127, "python: not found"),)), ("code 127", "cluster.image")),
    "Crash": (Seen(pods=(ended(1, "Traceback\nKeyError: 'x'"),)), ("KeyError", "code 1")),
    "Signalled": (Seen(pods=(ended(139, "Segmentation fault"),)), ("SIGSEGV",)),
    "Stopped": (Seen(pods=(ended(143),)), ("asked to stop",)),
    "CrashLoop": (Seen(pods=(ended(1, "ValueError: no such model", restarts=4),)), ("5 times", "no such model", "--previous")),
    "ProbeFailed": (
        with_events(
            ended(137, "", restarts=1),
            ("Unhealthy", "Liveness probe failed: Get http://10.0.0.7:8000/health: context deadline exceeded"),
            ("Killing", "Container pytorch failed liveness probe, will be restarted"),
        ),
        ("liveness probe failed", "serverStart"),
    ),
    "Preempted": (
        Seen(pods=(disrupted("PreemptionByScheduler", "default-scheduler: preempting to accommodate a higher priority pod"),)),
        ("priorityClass",),
    ),
    "Evicted": (
        Seen(pods=(disrupted("TerminationByKubelet", "The node was low on resource: ephemeral-storage."),)),
        ("ephemeral-storage", "gpu-1"),
    ),
    "Rejected": (
        Seen(pods=(turned_away("OutOfnvidia.com/gpu", "Node didn't have enough resource: nvidia.com/gpu, requested: 8, used: 8"),)),
        ("gpu-1 did not take", "OutOfnvidia.com/gpu", "device plugins"),
    ),
    "Drained": (Seen(pods=(disrupted("EvictionByEvictionAPI", "Eviction API: evicting"),)), ("moved off node gpu-1",)),
    "NodeLost": (
        Seen(pods=(disrupted("DeletionByTaintManager", "Taint manager: deleting due to NoExecute taint"),)),
        ("gpu-1 was lost",),
    ),
    "DeadlineExceeded": (
        Seen(
            objects=(
                job(
                    status={
                        "conditions": [
                            LATE
                        ]
                    }
                ),
            )
        ),
        ("longer than", "cluster.timeouts.stage"),
    ),
    "PodsGone": (
        Seen(objects=(job(status={"conditions": [{**LATE, "reason": "BackoffLimitExceeded", "message": "it has reached its limit"}]}),)),
        ("qwen-1a2b3c4d-select are gone", "reached its limit"),
    ),
    "PodSecurity": (
        forbidden('violates PodSecurity "restricted:latest": runAsNonRoot != true (pod or container "main" must set securityContext)'),
        ("restricted:latest", "runAsNonRoot"),
    ),
    "WebhookDenied": (
        on_object("FailedCreate", 'Error creating: admission webhook "policy.corp.example" denied the request: images must come from corp'),
        ("policy.corp.example", "images must come from corp"),
    ),
    "WebhookDown": (
        on_object(
            "FailedCreate",
            'Error creating: Internal error occurred: failed calling webhook "mpod.kb.io": failed to call webhook: connection refused',
        ),
        ("mpod.kb.io", "connection refused"),
    ),
    "NamespaceGoing": (
        forbidden("unable to create new content in namespace ml because it is being terminated"),
        ("being deleted", "another namespace"),
    ),
    "ApiBusy": (
        on_object("FailedCreate", "Error creating: Internal error occurred: resource quota evaluation timed out"),
        ("quota evaluation timed out", "tried again"),
    ),
    "PolicyDenied": (
        forbidden("ValidatingAdmissionPolicy 'no-latest' with binding 'all' denied request: tag latest is not allowed"),
        ("no-latest", "tag latest"),
    ),
    "ServiceAccountMissing": (
        forbidden('error looking up service account ml/trainer: serviceaccount "trainer" not found'),
        ("ServiceAccount trainer",),
    ),
    "PriorityClassMissing": (forbidden("no PriorityClass with name gold was found"), ("PriorityClass gold",)),
    "LimitRange": (
        forbidden("maximum memory usage per Container is 8Gi, but limit is 64Gi"),
        ("maximum memory usage per Container is 8Gi",),
    ),
    "RightMissing": (
        on_object(
            "FailedCreate",
            f"Error creating: {NO_RIGHT}",
        ),
        ("system:serviceaccount:ml:op may not create pods",),
    ),
    "Refused": (on_object("FailedCreate", 'Error creating: Pod "x" is invalid: spec.hostname: too long'), ("too long",)),
}  # fmt: skip


@pytest.mark.parametrize("name", [row.name for row in ROWS])
def test_cause(name: str) -> None:
    assert name in CASES, f"{name} has no recorded objects that show it"
    seen, words = CASES[name]
    found = explain(seen, MOMENT)
    assert [cause.name for cause in found] == [name], [cause.told for cause in found]
    for word in words:
        assert word in found[0].told
    assert "\n" not in found[0].told
    assert not found[0].sentence.endswith(".")


def test_names_are_unique_and_every_row_is_in_the_documentation() -> None:
    names = [row.name for row in ROWS]
    assert len(set(names)) == len(names)
    assert Path("docs/causes.md").read_text() == as_markdown()


def test_a_task_that_runs_well_has_no_cause() -> None:
    ready = pod(
        spec={"nodeName": "gpu-1"},
        status={
            "phase": "Running",
            "conditions": [{"type": "Ready", "status": "True"}, {"type": "PodScheduled", "status": "True"}],
            "containerStatuses": [{**RUNNING, "ready": True}],
        },
    )
    running = job(status={"conditions": []})
    made = event(running, "SuccessfulCreate", "Created pod", kind="Normal")
    refusal = event(running, "FailedCreate", "exceeded quota: few", when="2026-11-24T07:51:00Z")
    assert explain(Seen(objects=(running,), pods=(ready, pod(status={"phase": "Succeeded"})), events=(refusal, made)), MOMENT) == []


def test_what_waiting_cannot_help_comes_first_and_each_cause_once() -> None:
    stopped, faulty, waits = ended(143), ended(4, SAID), waiting("ErrImagePull", "i/o timeout")
    stopped["metadata"]["name"] = "worker-0"
    found = explain(Seen(pods=(stopped, waits, faulty, faulty)), MOMENT)
    assert [cause.name for cause in found] == ["UserError", "RegistryUnreachable", "Stopped"]


def test_the_scheduler_of_older_versions_names_the_taint_itself() -> None:
    one = unschedulable("0/2 nodes are available: 2 node(s) had untolerated taint {team: vision}. preemption: not eligible")
    assert "team: vision" in explain(Seen(pods=(one,)), MOMENT)[0].sentence


def test_missing_things_are_final_only_after_a_while() -> None:
    fresh, old = (
        waiting("CreateContainerConfigError", 'secret "x" not found'),
        waiting("CreateContainerConfigError", 'secret "x" not found'),
    )
    fresh["metadata"]["creationTimestamp"] = "2026-11-24T07:59:30Z"
    assert [explain(Seen(pods=(one,)), MOMENT)[0].final for one in (fresh, old)] == [False, True]


@settings(deadline=None)
@given(st.text())
def test_any_message_is_explained_in_one_line(message: str) -> None:
    told = refused(message, "job.batch/x").told
    assert told.splitlines() == [told] or not told
    assert explain(Seen(pods=(ended(1, message), unschedulable(message))), MOMENT)
