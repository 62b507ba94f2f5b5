"""The job as pods see it: no path of this machine in it, an engine that a cluster has, and only what can work there. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import PurePath

from pydantic import ValidationError

from dail_runtime.errors import SpecError
from dail_runtime.spec import DailJob, JobSpec
from dail_runtime.spec.cluster import ClusterSpec
from dail_runtime.spec.job import Settings
from dail_runtime.spec.model import PACKAGE
from dail_runtime.spec.rewrite import VllmEngine, VllmHttpEngine

INPUTS = "inputs"
"""Below the run's root: local data and models, by content."""

_UNSAFE = re.compile(r"[^A-Za-z0-9._-]+")


@dataclass(frozen=True)
class Input:
    """A file or folder of this machine that the pods will read from the store."""

    path: str
    """Where it is here: absolute."""
    key: str
    """Where it goes below the run's root: an object, or a prefix for a folder."""
    folder: bool
    """Whether it is a model's folder."""


def for_cluster(job: DailJob, content: Mapping[str, str]) -> tuple[DailJob, dict[str, str], tuple[Input, ...]]:
    """The resolved job for pods, the digests of its inputs under their new names, and what has to be uploaded first.

    Local files move to `<root>/inputs/<digest>/<name>`. Digests stay, so the plan's tasks keep theirs. A job that names no engine
    gets `vllm-http`, on servers that the run starts.

    Raises:
        SpecError: the job cannot run on a cluster; one line for each reason.
    """
    spec = _with_engine(job).spec
    problems = _problems(spec)
    if problems:
        raise SpecError("\n".join(problems))
    root = f"{spec.storage.uri.rstrip('/')}/{job.metadata.name}"
    inputs: dict[str, Input] = {}
    renamed = dict(content)

    def move(path: str, folder: bool) -> str:
        if not path.startswith("/"):
            return path
        digest = renamed.pop(path, None) or content[path]
        key = f"{INPUTS}/{digest[:32]}" if folder else f"{INPUTS}/{digest[:32]}/{_file_name(path)}"
        inputs[path] = Input(path, key, folder)
        renamed[f"{root}/{key}"] = digest
        return f"{root}/{key}"

    evaluation = tuple(one.model_copy(update={"path": move(one.path, False)}) for one in spec.data.evaluation)
    update: dict[str, object] = {
        "model": spec.model.model_copy(update={"id": move(spec.model.id, True)}),
        "data": spec.data.model_copy(update={"solutions": move(spec.data.solutions, False), "evaluation": evaluation}),
    }
    return job.model_copy(update={"spec": spec.model_copy(update=update)}), renamed, tuple(inputs.values())


def _with_engine(job: DailJob) -> DailJob:
    rewrite = job.spec.rewrite
    if "engine" not in rewrite.model_fields_set:
        rewrite = rewrite.model_copy(update={"engine": VllmHttpEngine(kind="vllm-http")})
    spec = job.spec.model_copy(update={"rewrite": rewrite})
    try:
        # Another engine than the laptop's default may not go together with what a variant overrides.
        return DailJob.model_validate(job.model_copy(update={"spec": spec}).model_dump(mode="json"))
    except ValidationError as err:
        reason = str(err.errors()[0]["msg"]).removeprefix("Value error, ")
        raise SpecError(f"spec.variants: {reason}; on a cluster the engine is vllm-http: name its kind in rewrite.engine") from None


def _file_name(path: str) -> str:
    """The file's name with its ending, made fit for a key."""
    return _UNSAFE.sub("-", PurePath(path).name).lstrip("-._")[-100:] or "data"


def _problems(spec: JobSpec) -> list[str]:
    cluster = spec.cluster
    found = []
    if not spec.storage.uri.startswith("s3://"):
        found.append(
            f"spec.storage.uri: {spec.storage.uri} is a folder of this machine, which pods cannot reach; write s3://bucket/prefix"
            " (and endpoint, for a server of your own)"
        )
    if cluster.image is None:
        found.append("spec.cluster.image: is missing; name the runtime image that the nodes can pull (`make images` builds it)")
    if spec.model.id.startswith(PACKAGE):
        found.append(
            f"spec.model.id: {spec.model.id} is a package of this machine, which pods do not have; write a hub id, s3://, or a folder,"
            " which is uploaded"
        )
    hub = not spec.model.id.startswith(("/", "s3://", PACKAGE))
    if cluster.offline and hub and (cluster.cache is None or cluster.cache.claim is None):
        found.append(
            f"spec.cluster.offline: pods may not fetch {spec.model.id} from the hub; put the model on s3:// or into the volume that"
            " cluster.cache.claim names"
        )
    for variant in spec.variant_names():
        found += _settings_problems(spec.settings(variant), cluster, f" in variant {variant}" if spec.variants else "")
    return list(dict.fromkeys(found))


def _settings_problems(settings: Settings, cluster: ClusterSpec, where: str) -> Iterator[str]:
    engine, replicas, pool = settings.rewrite.engine, settings.rewrite.replicas, cluster.pools.rewrite
    if isinstance(engine, VllmHttpEngine):
        if engine.servers:
            yield f"spec.rewrite.engine.servers: are named{where}, but on a cluster the run starts servers of its own; remove the list"
    elif replicas > 1:
        yield (
            f"spec.rewrite.replicas: is {replicas}{where}, but the engine {engine.kind} works in one pod; write engine: {{kind: vllm-http}}"
            " or remove replicas"
        )
    if isinstance(engine, VllmEngine) and 0 < pool.gpus < engine.tensor_parallel_size:
        yield (
            f"spec.rewrite.engine.tensorParallelSize: is {engine.tensor_parallel_size}{where}, but a pod of cluster.pools.rewrite has"
            f" {pool.gpus} GPUs; give it as many, or lower it"
        )
    workers, elastic = settings.train.workers, cluster.elastic
    if elastic is not None and not elastic.min_workers <= workers <= elastic.max_workers:
        yield (
            f"spec.cluster.elastic: train.workers is {workers}{where}, outside minWorkers {elastic.min_workers} .. maxWorkers"
            f" {elastic.max_workers}; widen the range or change the workers"
        )
