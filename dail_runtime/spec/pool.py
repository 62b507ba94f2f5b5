"""A pool: one kind of node, and what a pod that runs there gets. Every pod of the pool inherits all of it."""

from __future__ import annotations

import re
from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from dail_runtime.spec.base import Section
from dail_runtime.spec.kubernetes import (
    checked_keys,
    checked_labels,
    checked_memory,
    checked_name,
    checked_queue,
    checked_resource,
    label_problem,
    quantity,
)

OWN_ENVIRONMENT = (
    "AWS_ACCESS_KEY_ID",
    "AWS_ENDPOINT_URL_S3",
    "AWS_REGION",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "DAIL_CACHE",
    "DAIL_DEVICE",
    "DAIL_METRICS_PORT",
    "DAIL_RUN",
    "DAIL_SERVERS",
    "HF_HOME",
    "HF_HUB_OFFLINE",
    "HF_TOKEN",
    "HOME",
    "NVIDIA_VISIBLE_DEVICES",
    "POD_NAME",
    "POD_NAMESPACE",
    "TMPDIR",
    "TRANSFORMERS_OFFLINE",
)
"""Environment variables that dail sets in every pod; a pool cannot set them a second time."""
OWN_VOLUMES = ("cache", "home", "record", "shm", "tmp")
"""Volumes that dail adds to its pods."""
OWN_PATHS = ("/cache", "/dev/shm", "/home/dail", "/record", "/tmp")
"""Where those are mounted."""

_ENVIRONMENT_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*")
_NOT_RESTRICTED = (
    "hostPath",
    "nfs",
    "iscsi",
    "glusterfs",
    "rbd",
    "cephfs",
    "fc",
    "flexVolume",
    "gcePersistentDisk",
    "awsElasticBlockStore",
)
"""Kinds of volume that the `restricted` Pod Security Standard forbids."""


class Toleration(Section):
    """A Kubernetes toleration (core/v1 Toleration)."""

    key: str | None = None
    """Taint key; null tolerates all."""
    operator: Literal["Exists", "Equal"] = "Exists"
    """`Exists` or `Equal`."""
    value: str | None = None
    """Taint value, with `Equal`."""
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = None
    """`NoSchedule`, `PreferNoSchedule`, `NoExecute`; null: all."""
    toleration_seconds: int | None = Field(default=None, ge=0)
    """How long a pod stays on a node that gets the taint, with `NoExecute`; null: for ever."""

    @model_validator(mode="after")
    def _goes_together(self) -> Self:
        if self.operator == "Exists" and self.value is not None:
            raise ValueError("a toleration with a value needs operator: Equal; add it or remove the value")
        if self.operator == "Equal" and self.key is None:
            raise ValueError("a toleration with operator: Equal needs the taint's key; add it")
        if self.toleration_seconds is not None and self.effect != "NoExecute":
            raise ValueError("tolerationSeconds goes with effect: NoExecute alone; set the effect or remove the seconds")
        return self


class SecretKey(Section):
    """One value in a Secret of the namespace."""

    name: str
    """Name of the Secret."""
    key: str = Field(min_length=1, max_length=253, pattern=r"^[-._a-zA-Z0-9]+$")
    """Key in it."""

    @field_validator("name")
    @classmethod
    def _is_name(cls, name: str) -> str:
        return checked_name(name, "Secret")


class EnvVar(Section):
    """An environment variable: a value, or a key of a Secret."""

    name: str = Field(min_length=1, max_length=253)
    """Its name."""
    value: str | None = None
    """Its value."""
    secret: SecretKey | None = None
    """Where its value is, for anything confidential."""

    @field_validator("name")
    @classmethod
    def _is_free(cls, name: str) -> str:
        if not _ENVIRONMENT_NAME.fullmatch(name):
            raise ValueError(f"{name!r} cannot be the name of an environment variable; write letters, digits and '_', not a digit first")
        if name in OWN_ENVIRONMENT:
            raise ValueError(f"dail sets {name} itself, from the fields of `storage` and `cluster`; remove it here")
        return name

    @model_validator(mode="after")
    def _has_one_source(self) -> Self:
        if (self.value is None) == (self.secret is None):
            raise ValueError(f"the variable {self.name} needs a value or a secret, one of them; correct it")
        return self


class Volume(Section):
    """A further volume, and where every pod of the pool finds it."""

    name: str = Field(min_length=1, max_length=63, pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")
    """Its name in the pod."""
    mount_path: str = Field(min_length=1, max_length=4096)
    """Folder it appears at: absolute."""
    read_only: bool = False
    """Mounted for reading alone."""
    source: dict[str, Any]
    """What it is, as core/v1 Volume has it: `{persistentVolumeClaim: {claimName: x}}`, `{secret: {secretName: x}}`,
    `{configMap: {name: x}}`, `{emptyDir: {}}`, `{csi: {...}}`."""

    @field_validator("name")
    @classmethod
    def _is_free(cls, name: str) -> str:
        if name in OWN_VOLUMES:
            raise ValueError(f"dail has a volume {name!r} in its pods; choose another name")
        return name

    @field_validator("mount_path")
    @classmethod
    def _is_apart(cls, path: str) -> str:
        clean = path.rstrip("/")
        if not path.startswith("/") or not clean or ":" in path or "/../" in f"{path}/":
            raise ValueError(f"{path!r} is no folder to mount at; write an absolute path such as /data")
        if clean in OWN_PATHS:
            raise ValueError(f"dail mounts a volume of its own at {clean}; choose another path")
        return clean

    @field_validator("source")
    @classmethod
    def _is_one_source(cls, source: dict[str, Any]) -> dict[str, Any]:
        if len(source) != 1:
            raise ValueError("a volume has exactly one source, as {persistentVolumeClaim: {claimName: x}}; correct it")
        kind = next(iter(source))
        if kind in _NOT_RESTRICTED:
            raise ValueError(f"{kind} volumes are forbidden to pods of the restricted Pod Security Standard; use a persistentVolumeClaim")
        return source


class Pool(Section):
    """A kind of node, and the share of one that a pod of this pool takes."""

    gpus: int = Field(default=0, ge=0, le=64)
    """GPUs per pod."""
    gpu_resource: str = "nvidia.com/gpu"
    """Extended resource that is asked for (`nvidia.com/mig-3g.40gb`, `amd.com/gpu`)."""
    cpu: str = "2"
    """CPU request per pod (Kubernetes quantity)."""
    cpu_limit: str | None = None
    """CPU limit per pod; null: none, so that idle cores of the node are used."""
    memory: str = "8Gi"
    """Memory request and limit per pod (Kubernetes quantity)."""
    ephemeral_storage: str | None = None
    """Request and limit of node disk for downloads and temporary files (Kubernetes quantity); null: unlimited."""
    shm_size: str | None = None
    """Size of /dev/shm, which is memory and counts as such (Kubernetes quantity); null: a quarter of `memory`."""
    resources: dict[str, int] = Field(default_factory=dict)
    """Further extended resources per pod, such as `rdma/ib: 1`."""
    node_selector: dict[str, str] = Field(default_factory=dict)
    """Labels a node must have."""
    tolerations: tuple[Toleration, ...] = ()
    """Taints the pods tolerate."""
    affinity: dict[str, Any] = Field(default_factory=dict)
    """core/v1 Affinity: nodeAffinity, podAffinity, podAntiAffinity."""
    priority_class: str | None = None
    """PriorityClass of the pods."""
    runtime_class: str | None = None
    """RuntimeClass of the pods."""
    scheduler: str | None = None
    """Name of the scheduler; null: the cluster's default."""
    queue: str | None = None
    """Kueue LocalQueue of this pool; null: `cluster.queue`; "": none."""
    env: tuple[EnvVar, ...] = ()
    """Further environment variables (`NCCL_IB_HCA`, proxies)."""
    volumes: tuple[Volume, ...] = ()
    """Further volumes."""
    labels: dict[str, str] = Field(default_factory=dict)
    """Further labels of the pods."""
    annotations: dict[str, str] = Field(default_factory=dict)
    """Annotations of the pods, for example of a secondary network."""

    @field_validator("cpu", "cpu_limit", "memory", "ephemeral_storage", "shm_size")
    @classmethod
    def _is_quantity(cls, text: str | None) -> str | None:
        if text is not None:
            quantity(text)
        return text

    @field_validator("memory", "ephemeral_storage", "shm_size")
    @classmethod
    def _is_bytes(cls, text: str | None) -> str | None:
        return text if text is None else checked_memory(text)

    @field_validator("gpu_resource")
    @classmethod
    def _is_resource(cls, name: str) -> str:
        return checked_resource(name)

    @field_validator("resources")
    @classmethod
    def _are_resources(cls, resources: dict[str, int]) -> dict[str, int]:
        for name, count in resources.items():
            checked_resource(name)
            if count < 1:
                raise ValueError(f"{name}: {count} asks for nothing; write a whole number above zero or remove it")
        return resources

    @field_validator("node_selector", "labels")
    @classmethod
    def _are_labels(cls, labels: dict[str, str]) -> dict[str, str]:
        for key, value in labels.items():
            if problem := label_problem(key, value):
                raise ValueError(problem)
        return labels

    @field_validator("labels")
    @classmethod
    def _are_free(cls, labels: dict[str, str]) -> dict[str, str]:
        checked_labels(labels)
        return labels

    @field_validator("annotations")
    @classmethod
    def _are_annotations(cls, annotations: dict[str, str]) -> dict[str, str]:
        checked_keys(annotations)
        return annotations

    @field_validator("affinity")
    @classmethod
    def _is_affinity(cls, affinity: dict[str, Any]) -> dict[str, Any]:
        known = ("nodeAffinity", "podAffinity", "podAntiAffinity")
        for key, value in affinity.items():
            if key not in known:
                raise ValueError(f"affinity has no {key!r}; write {', '.join(known[:2])} or {known[2]}")
            if not isinstance(value, dict):
                raise ValueError(f"affinity.{key} is a group of fields; write it as core/v1 Affinity has it")
        return affinity

    @field_validator("priority_class", "runtime_class", "scheduler")
    @classmethod
    def _is_object(cls, name: str | None) -> str | None:
        return checked_name(name, "Kubernetes object") if name else name

    @field_validator("queue")
    @classmethod
    def _is_queue(cls, name: str | None) -> str | None:
        return checked_queue(name) if name else name

    @model_validator(mode="after")
    def _goes_together(self) -> Self:
        if self.cpu_limit is not None and quantity(self.cpu_limit) < quantity(self.cpu):
            raise ValueError(f"cpuLimit {self.cpu_limit} is below the request, cpu {self.cpu}; raise it or remove it")
        if self.shm_size is not None and quantity(self.shm_size) >= quantity(self.memory):
            raise ValueError(f"shmSize {self.shm_size} leaves nothing of memory {self.memory}, of which it is a part; lower it")
        if self.gpu_resource in self.resources:
            raise ValueError(f"resources names {self.gpu_resource}, which `gpus` asks for; remove it there")
        for what, names in (("env", [one.name for one in self.env]), ("volumes", [one.name for one in self.volumes])):
            twice = sorted({name for name in names if names.count(name) > 1})
            if twice:
                raise ValueError(f"{what} has {twice[0]} twice; remove one")
        paths = [one.mount_path for one in self.volumes]
        if len(set(paths)) < len(paths):
            raise ValueError("two volumes have the same mountPath; give each its own")
        return self
