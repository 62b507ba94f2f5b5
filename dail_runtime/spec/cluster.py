"""The `cluster` section: where pods may run and what they may use. Ignored on one machine."""

from __future__ import annotations

from pydantic import Field

from dail_runtime.spec.base import Section


class Toleration(Section):
    """A Kubernetes toleration (core/v1 Toleration)."""

    key: str | None = None
    """Taint key; null tolerates all."""
    operator: str = "Exists"
    """`Exists` or `Equal`."""
    value: str | None = None
    """Taint value, with `Equal`."""
    effect: str | None = None
    """`NoSchedule`, `PreferNoSchedule`, `NoExecute`; null: all."""


class Pool(Section):
    """A kind of node, and the share of one that a pod of this pool takes."""

    gpus: int = Field(default=0, ge=0, le=64)
    """GPUs per pod."""
    gpu_resource: str = "nvidia.com/gpu"
    """Extended resource that is asked for (`nvidia.com/mig-3g.40gb`, `amd.com/gpu`)."""
    cpu: str = "2"
    """CPU request per pod (Kubernetes quantity)."""
    memory: str = "8Gi"
    """Memory request and limit per pod (Kubernetes quantity)."""
    node_selector: dict[str, str] = Field(default_factory=dict)
    """Labels a node must have."""
    tolerations: tuple[Toleration, ...] = ()
    """Taints the pods tolerate."""
    priority_class: str | None = None
    """PriorityClass of the pods."""
    runtime_class: str | None = None
    """RuntimeClass of the pods."""


class Pools(Section):
    """One pool for each kind of work."""

    rewrite: Pool = Pool()
    """vLLM servers of rewrite and evaluate."""
    train: Pool = Pool()
    """Training workers."""
    control: Pool = Pool(cpu="500m", memory="1Gi")
    """Conductor, drivers, select and report."""


class Secrets(Section):
    """Names of Kubernetes Secrets; values never appear in a job file."""

    hf_token: str | None = None
    """Secret with the key HF_TOKEN."""
    image_pull: str | None = None
    """Secret of type kubernetes.io/dockerconfigjson."""


class ClusterSpec(Section):
    """Where and under which rules the run lives on a cluster."""

    namespace: str | None = None
    """Namespace; null: that of the current context."""
    image: str | None = None
    """Image of the runtime, best by digest."""
    control_image: str | None = None
    """Image of conductor and drivers."""
    queue: str | None = None
    """Kueue LocalQueue."""
    pools: Pools = Pools()
    """GPU and CPU pools."""
    secrets: Secrets = Secrets()
    """Secrets by name."""
    offline: bool = False
    """Never call the model hub from a pod."""
