"""The `cluster` section: where pods may run and what they may use. Ignored on one machine."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from dail_runtime.spec.base import Section
from dail_runtime.spec.kubernetes import checked_image, checked_memory, checked_name, checked_namespace, checked_queue
from dail_runtime.spec.pool import Pool

OWN_PORTS = {8000: "the model servers", 23456: "the training processes"}
"""What listens on which port of the run's pods (charts/dail-run)."""


class Pools(Section):
    """One pool for each kind of work."""

    rewrite: Pool = Pool()
    """vLLM servers of rewrite and evaluate."""
    train: Pool = Pool()
    """Training workers, and the teacher check."""
    control: Pool = Pool(cpu="1", memory="4Gi")
    """Conductor, drivers, prepare, select and report: no GPU needed."""


class Secrets(Section):
    """Names of Kubernetes Secrets; values never appear in a job file."""

    hf_token: str | None = None
    """Secret with the key HF_TOKEN."""
    image_pull: str | None = None
    """Secret of type kubernetes.io/dockerconfigjson."""

    @field_validator("hf_token", "image_pull")
    @classmethod
    def _is_name(cls, name: str | None) -> str | None:
        return name if name is None else checked_name(name, "Secret")


class Cache(Section):
    """A volume that keeps downloaded models for every pod; without one each pod downloads into its own temporary folder."""

    claim: str | None = None
    """An existing PersistentVolumeClaim, shared by runs. Pods on several nodes need ReadWriteMany."""
    size: str | None = None
    """Size of a claim that the run makes and takes away (Kubernetes quantity), where none is named."""
    storage_class: str | None = None
    """StorageClass of that claim; null: the cluster's default."""
    access_mode: Literal["ReadWriteMany", "ReadWriteOnce"] = "ReadWriteMany"
    """Access mode of that claim; `ReadWriteOnce` where every pod runs on one node."""

    @field_validator("claim", "storage_class")
    @classmethod
    def _is_name(cls, name: str | None) -> str | None:
        return name if name is None else checked_name(name, "Kubernetes object")

    @field_validator("size")
    @classmethod
    def _is_bytes(cls, size: str | None) -> str | None:
        return size if size is None else checked_memory(size)

    @model_validator(mode="after")
    def _one_of_them(self) -> Self:
        if self.claim is not None and self.size is not None:
            raise ValueError("cache names a claim and a size; keep `claim` to use an existing volume, or `size` to make one")
        if self.claim is None and self.size is None:
            raise ValueError("cache needs a claim (an existing volume) or a size (of one that the run makes); add one of them")
        return self


class Elastic(Section):
    """Training that goes on with fewer workers when some are lost, and takes them back later (torchrun's rendezvous)."""

    min_workers: int = Field(default=1, ge=1, le=1024)
    """Fewest workers that train."""
    max_workers: int = Field(ge=1, le=1024)
    """Most workers that train."""
    max_restarts: int = Field(default=10, ge=0, le=1000)
    """How often the group may form anew."""

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.min_workers > self.max_workers:
            raise ValueError(f"elastic.minWorkers {self.min_workers} is above maxWorkers {self.max_workers}; swap or correct them")
        return self


class Timeouts(Section):
    """How long things may take, in seconds."""

    server_start: int | None = Field(default=None, ge=30, le=86400)
    """A model server's start: download and load. Null: from the size of the model."""
    server_drain: int = Field(default=30, ge=0, le=3600)
    """What a server that is to stop gives its running requests."""
    stage: int | None = Field(default=None, ge=60)
    """One attempt at a stage, waiting for nodes included; null: no limit."""
    train_save: int = Field(default=120, ge=10, le=3600)
    """What a training pod that is to stop gets to save its checkpoint."""


class ClusterSpec(Section):
    """Where and under which rules the run lives on a cluster."""

    namespace: str | None = None
    """Namespace; null: that of the current context."""
    image: str | None = None
    """Image of the runtime, best by digest."""
    control_image: str | None = None
    """Image of the conductor; null: `image`, which can do it too but is large."""
    image_pull_policy: Literal["Always", "IfNotPresent", "Never"] = "IfNotPresent"
    """When nodes pull the images."""
    queue: str | None = None
    """Kueue LocalQueue."""
    pools: Pools = Pools()
    """GPU and CPU pools."""
    secrets: Secrets = Secrets()
    """Secrets by name."""
    service_account: str | None = None
    """An existing ServiceAccount that every pod runs as, for storage access by cloud identity; null: one of the run's own."""
    cache: Cache | None = None
    """Volume for downloaded models."""
    offline: bool = False
    """Never call the model hub from a pod."""
    elastic: Elastic | None = None
    """Elastic training; null: all `train.workers` or none."""
    retries: int = Field(default=3, ge=0, le=100)
    """How often a stage starts anew after a fault that may pass (time-out, killed process); lost nodes do not count."""
    timeouts: Timeouts = Timeouts()
    """Time limits."""
    network_policy: bool = True
    """Let only pods of the run talk to its servers and workers; offline, also keep its pods to the storage."""
    metrics_port: int | None = Field(default=9400, ge=1024, le=65535)
    """Port on which the conductor and every stage serve metrics (Prometheus); null: none."""
    keep_conductor: bool = False
    """Keep the finished conductor Job and its rights. For Argo CD and Flux, which would make them anew; they cost nothing."""

    @field_validator("namespace")
    @classmethod
    def _is_namespace(cls, name: str | None) -> str | None:
        return name if name is None else checked_namespace(name)

    @field_validator("image", "control_image")
    @classmethod
    def _is_image(cls, image: str | None) -> str | None:
        return image if image is None else checked_image(image)

    @field_validator("metrics_port")
    @classmethod
    def _is_free(cls, port: int | None) -> int | None:
        if port in OWN_PORTS:
            raise ValueError(f"{port} is the port of {OWN_PORTS[port]}; choose another for metrics")
        return port

    @field_validator("queue")
    @classmethod
    def _is_queue(cls, name: str | None) -> str | None:
        return name if name is None else checked_queue(name)

    @field_validator("service_account")
    @classmethod
    def _is_name(cls, name: str | None) -> str | None:
        return name if name is None else checked_name(name, "Kubernetes object")
