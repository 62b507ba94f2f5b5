"""The table of causes. docs/causes.md is written from it (`python -m dailctl.explain.docs`)."""

from __future__ import annotations

from dailctl.explain.cause import Row

NO_ROOM = Row(
    "NoNodeHasRoom",
    "Pending",
    "no node has {lacking} free for pod {pod} ({said})",
    "wait until other work ends, add nodes, or lower what pods of {pool} ask for",
    live=True,
)
NODE_TOO_SMALL = Row(
    "NodeTooSmall",
    "Pending",
    "pod {pod} asks for {wanted} {resource}, and the largest node that it may use has {most}",
    "lower what pods of {pool} ask for, or add larger nodes",
    final=True,
    live=True,
)
NO_NODE_MATCHES = Row(
    "NoNodeMatches",
    "Pending",
    "no node has the labels that pod {pod} asks for ({selector})",
    "correct nodeSelector or affinity of {pool}, or label a node",
    live=True,
)
TAINT = Row(
    "Taint",
    "Pending",
    "the nodes that pod {pod} could use are tainted ({taints})",
    "add a toleration to {pool}, if that work belongs there",
    live=True,
)
NODES_NOT_READY = Row(
    "NodesNotReady",
    "Pending",
    "the nodes that pod {pod} could use are not ready ({said})",
    "wait until they are, or ask an administrator of the cluster",
    live=True,
)
NO_NODES = Row("NoNodes", "Pending", "the cluster has no node yet for pod {pod}", "wait for the cluster's autoscaler, or add nodes")
SCALING_UP = Row(
    "ScalingUp",
    "Pending",
    "the cluster is adding a node for pod {pod} ({said})",
    "wait; a new GPU node takes minutes",
)
VOLUME_MISSING = Row(
    "VolumeMissing",
    "Pending",
    "pod {pod} uses the PersistentVolumeClaim {claim}, which does not exist",
    "create it, or correct cluster.cache.claim",
    live=True,
)
VOLUME_UNBOUND = Row(
    "VolumeUnbound",
    "Pending",
    "the PersistentVolumeClaim {claim} of pod {pod} has no volume ({said})",
    "name a StorageClass that can provide it in cluster.cache.storageClass, or create the volume",
    live=True,
)
VOLUME_ELSEWHERE = Row(
    "VolumeElsewhere",
    "Pending",
    "the volumes of pod {pod} keep it off the nodes that it could use ({said})",
    "use a claim that those nodes reach (ReadWriteMany, the same zone), or a StorageClass with volumeBindingMode WaitForFirstConsumer",
)
VOLUME_MOUNT = Row(
    "VolumeMount",
    "Pending",
    "a volume of pod {pod} cannot be mounted ({said})",
    "check that the Secrets, ConfigMaps and claims that the pool's volumes name exist, and the node's storage driver",
)
GATED = Row(
    "Gated",
    "Pending",
    "pod {pod} is held back by the scheduling gates {gates}",
    "wait until the controller that set them lets it go",
    live=True,
)
UNSCHEDULED = Row("Unscheduled", "Pending", "no node takes pod {pod} ({said})", "see what the scheduler says")
IMAGE_MISSING = Row(
    "ImageMissing",
    "Pending",
    "the image {image} cannot be pulled: it does not exist ({said})",
    "correct its name, tag or digest in cluster.image or cluster.controlImage",
    final=True,
)
IMAGE_DENIED = Row(
    "ImageDenied",
    "Pending",
    "the image {image} cannot be pulled: the registry does not give it out ({said})",
    "name a Secret with the registry's credentials in cluster.secrets.imagePull",
    final=True,
)
IMAGE_NAME = Row(
    "ImageName",
    "Pending",
    "the image {image} cannot be pulled: that is no name of an image ({said})",
    "correct cluster.image or cluster.controlImage",
    final=True,
)
IMAGE_NOT_THERE = Row(
    "ImageNotOnNode",
    "Pending",
    "the image {image} is not on the node, and imagePullPolicy Never forbids to pull it",
    "load it on the node, or set cluster.imagePullPolicy to IfNotPresent",
    final=True,
)
IMAGE_UNFIT = Row(
    "ImageUnfit",
    "Pending",
    "the image {image} cannot be pulled: it is for other processors or systems than the node's ({said})",
    "build it for that platform too, or keep the pods on nodes that it is for (nodeSelector)",
    final=True,
)
IMAGE_UNTRUSTED = Row(
    "ImageUntrusted",
    "Pending",
    "the image {image} cannot be pulled: its signature is not accepted ({said})",
    "sign it as the cluster's policy wants, or ask an administrator of the cluster",
    final=True,
)
REGISTRY_UNTRUSTED = Row(
    "RegistryUntrusted",
    "Pending",
    "the image {image} cannot be pulled: the node does not trust the registry ({said})",
    "ask an administrator to make the nodes accept the registry's certificate; it is tried again by itself",
)
REGISTRY_LIMIT = Row(
    "RegistryLimit",
    "Pending",
    "the image {image} cannot be pulled: the registry gives out no more just now ({said})",
    "wait, name a Secret with credentials in cluster.secrets.imagePull, or use a mirror; it is tried again by itself",
)
NODE_DISK_FULL = Row(
    "NodeDiskFull",
    "Pending",
    "the image {image} cannot be pulled: the node's disk is full ({said})",
    "ask an administrator to free space there, or keep the pods on other nodes; it is tried again by itself",
)
REGISTRY = Row(
    "RegistryUnreachable",
    "Pending",
    "the image {image} cannot be pulled ({said})",
    "check that the nodes reach the registry; it is tried again by itself",
)
IMAGE_PULLING = Row(
    "ImagePulling",
    "Pending",
    "node {node} is pulling the image of pod {pod} since {since}",
    "wait; a large image takes minutes the first time",
)
CONFIG_MISSING = Row(
    "ConfigMissing",
    "Pending",
    "container {container} of pod {pod} cannot start ({said})",
    "create the Secret or the key that it names, or correct the name in the job file",
)
CONTAINER_START = Row(
    "ContainerStart",
    "Pending",
    "container {container} of pod {pod} cannot start ({said})",
    "check that the image is one of dail's and fits the node's processor and runtimeClass",
)
CONTAINER_DELAYED = Row(
    "ContainerDelayed",
    "Pending",
    "container {container} of pod {pod} does not start ({said})",
    "wait: it is tried again by itself; where it stays so, ask an administrator to look at the node",
)
SANDBOX = Row(
    "PodSetup",
    "Pending",
    "node {node} cannot set up pod {pod} ({said})",
    "check runtimeClass of {pool}, and the node's container runtime and network; it is tried again by itself",
)
QUOTA = Row(
    "Quota",
    "Pending",
    "the namespace's quota {quota} lets nothing more of {owner} in ({said})",
    "wait until other work in the namespace ends, lower what the job asks for, or ask for a larger quota",
    live=True,
)
QUEUE = Row(
    "Queue",
    "Pending",
    "{owner} waits in the queue {queue} ({said})",
    "wait until the queue has room; `kubectl get workloads` shows its place",
)
QUEUE_TOO_SMALL = Row(
    "QueueTooSmall",
    "Pending",
    "{owner} asks for more than the queue {queue} ever has ({said})",
    "lower what the job asks for, choose another queue (cluster.queue), or ask an administrator for a larger quota",
    final=True,
)
QUEUE_CLOSED = Row(
    "QueueClosed",
    "Pending",
    "{owner} waits in the queue {queue}, which admits nothing ({said})",
    "correct cluster.queue, or ask an administrator for the queue",
)
QUEUE_EVICTED = Row(
    "QueueEvicted",
    "Pending",
    "the queue {queue} took {owner} out again ({said})",
    "wait: it comes back by itself when there is room",
)
QUEUE_DEACTIVATED = Row(
    "QueueDeactivated",
    "Pending",
    "the queue {queue} has put {owner} aside ({said})",
    "ask who deactivated it; dailctl cancel and then dailctl resume put it into the queue anew",
)
OPERATOR_SILENT = Row(
    "OperatorSilent",
    "Pending",
    "nothing has taken up {owner} since {since}",
    "ask an administrator whether the Kubeflow training operator runs (dailctl doctor)",
)
NODE_SILENT = Row(
    "NodeSilent",
    "Pending",
    "pod {pod} does not end, because its node {node} does not answer",
    "delete the node if it is gone for good, or the pod with kubectl delete --force",
)
NODE_UNREACHABLE = Row(
    "NodeUnreachable",
    "Pending",
    "node {node}, on which pod {pod} runs, does not answer",
    "wait: if it stays away, the cluster ends its pods after some minutes, and they are started on another node",
)
STARTING = Row(
    "Starting",
    "Pending",
    "container {container} of pod {pod} runs since {since} and is not ready yet ({said})",
    "wait: a model server loads its weights first; dailctl logs shows how far it is",
)

OUT_OF_MEMORY = Row(
    "OutOfMemory",
    "Failed",
    "container {container} of pod {pod} took more memory than its limit of {limit} and was killed",
    "raise memory of {pool}, or lower what is in memory at once",
    kind="memory",
)
GPU_MEMORY = Row(
    "GpuOutOfMemory",
    "Failed",
    "container {container} of pod {pod} ran out of GPU memory ({said})",
    "lower the batch or maxTokens, or use larger or more GPUs in {pool}",
    kind="memory",
)
CUDA_MISSING = Row(
    "CudaNotVisible",
    "Failed",
    "pod {pod} sees no GPU, though it was given {gpus} ({said})",
    "check the node's driver and device plugin, and runtimeClass of {pool}",
    final=True,
)
GPU_BROKEN = Row(
    "GpuBroken",
    "Failed",
    "a GPU of pod {pod} on node {node} is broken ({said})",
    "it is tried again; where it comes back, ask an administrator to take the GPU out of service",
)
PEERS_TIMED_OUT = Row(
    "PeersTimedOut",
    "Failed",
    "the training processes lost touch with each other ({said})",
    "it is tried again; where it comes back, check the network between the nodes (NCCL_DEBUG=INFO, NCCL_SOCKET_IFNAME in env of {pool})",
)
USER_ERROR = Row("UserError", "Failed", "{said}", "correct that and submit the job again (exit code {code})", final=True)
PASSING_FAULT = Row("PassingFault", "Failed", "{said}", "it is tried again by itself (exit code {code})")
COMMAND_MISSING = Row(
    "CommandMissing",
    "Failed",
    "the image of container {container} in pod {pod} cannot start its program (exit code {code}: {said})",
    "name an image of dail in cluster.image",
    final=True,
)
CRASH = Row(
    "Crash",
    "Failed",
    "container {container} of pod {pod} ended unexpectedly with code {code} ({said})",
    "see dailctl logs; most likely a bug",
    final=True,
)
SIGNALLED = Row(
    "Signalled",
    "Failed",
    "container {container} of pod {pod} was killed by {signal} ({said})",
    "it is tried again; see dailctl logs --previous where it comes back",
)
STOPPED = Row("Stopped", "Failed", "pod {pod} was asked to stop, and saved", "it goes on by itself", kind="disrupted")
CRASH_LOOP = Row(
    "CrashLoop",
    "Failed",
    "container {container} of pod {pod} ended {times} times, last with code {code} ({said})",
    "see dailctl logs --previous",
)
LIVENESS = Row(
    "ProbeFailed",
    "Failed",
    "container {container} of pod {pod} was ended because its {probe} probe failed ({said})",
    "see dailctl logs --previous; where a large model needs longer, raise cluster.timeouts.serverStart",
)
PREEMPTED = Row(
    "Preempted",
    "Failed",
    "pod {pod} had to make room for work of higher priority ({said})",
    "it is started again by itself; a priorityClass in {pool} guards against it",
    kind="disrupted",
)
EVICTED = Row(
    "Evicted",
    "Failed",
    "node {node} put pod {pod} out ({said})",
    "it is started again by itself; where it comes back, set memory or ephemeralStorage of {pool} to what it needs",
    kind="disrupted",
)
REJECTED = Row(
    "Rejected",
    "Failed",
    "node {node} did not take pod {pod} ({said})",
    "it is started again by itself; where it comes back, ask an administrator to look at the node's kubelet and device plugins",
    kind="disrupted",
)
DRAINED = Row("Drained", "Failed", "pod {pod} was moved off node {node} ({said})", "it is started again by itself", kind="disrupted")
NODE_LOST = Row(
    "NodeLost",
    "Failed",
    "node {node} was lost, and pod {pod} with it ({said})",
    "it is started again by itself on another node",
    kind="disrupted",
)
PODS_GONE = Row("PodsGone", "Failed", "the pods of {owner} are gone ({said})", "it is tried again by itself")
DEADLINE = Row(
    "DeadlineExceeded",
    "Failed",
    "{owner} took longer than it may ({said})",
    "raise cluster.timeouts.stage",
    final=True,
)

POD_SECURITY = Row(
    "PodSecurity",
    "Blocked",
    "the namespace's Pod Security level {level} refuses pods of {owner} ({said})",
    "remove what breaks it from the job's pools, or use a namespace with another level",
    final=True,
    live=True,
)
WEBHOOK = Row(
    "WebhookDenied",
    "Blocked",
    "the cluster's admission webhook {webhook} refuses {owner} ({said})",
    "change the job as it says, or ask an administrator for an exception",
    final=True,
    live=True,
)
WEBHOOK_DOWN = Row(
    "WebhookDown",
    "Blocked",
    "the cluster's admission webhook {webhook} does not answer, so {owner} cannot be made ({said})",
    "ask an administrator of the cluster; it is tried again by itself",
    live=True,
)
NAMESPACE_GOING = Row(
    "NamespaceGoing",
    "Blocked",
    "the namespace of {owner} is being deleted ({said})",
    "submit the job to another namespace",
    final=True,
)
API_BUSY = Row(
    "ApiBusy",
    "Blocked",
    "the API server could not make what {owner} needs just now ({said})",
    "wait: it is tried again by itself",
)
POLICY = Row(
    "PolicyDenied",
    "Blocked",
    "the cluster's admission policy {policy} refuses {owner} ({said})",
    "change the job as it says, or ask an administrator for an exception",
    final=True,
    live=True,
)
ACCOUNT_MISSING = Row(
    "ServiceAccountMissing",
    "Blocked",
    "the ServiceAccount {account} of {owner} does not exist",
    "create it, or correct cluster.serviceAccount",
    live=True,
)
PRIORITY_MISSING = Row(
    "PriorityClassMissing",
    "Blocked",
    "the PriorityClass {priority} of {owner} does not exist",
    "correct priorityClass of the pool, or ask an administrator for it",
    final=True,
    live=True,
)
LIMITS = Row(
    "LimitRange",
    "Blocked",
    "the namespace's limits refuse pods of {owner} ({said})",
    "change cpu, memory or gpus of the pool to what the limits allow",
    final=True,
    live=True,
)
RIGHT_MISSING = Row(
    "RightMissing",
    "Blocked",
    "{user} may not {verb} {resource}",
    "ask an administrator of the cluster for that right; dailctl doctor lists all that are needed",
    final=True,
    live=True,
)
REFUSED = Row("Refused", "Blocked", "the API server refuses {owner} ({said})", "change the job as it says", final=True)

ROWS: tuple[Row, ...] = tuple(one for one in tuple(globals().values()) if isinstance(one, Row))
"""All of them, in the order in which they stand above."""
