"""A whole job on a cluster, from `dailctl submit` to the report on the laptop, and whether all of it is as it should be."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
from botocore.exceptions import ClientError

from dailctl.render.record import RunRecord, run_of_record
from tests.e2e.laptop import Laptop
from tests.e2e.ranks import TOLERANCE, difference
from tests.e2e.watching import diagnosis, left_over, objects_of, record_of, watch
from tests.lab.cluster import Cluster

SECRET = "dail-s3"
REPLICAS = 2
WORKERS = 2
SERVER = ("300m", "3Gi")
"""CPU and memory that a model server asks for: little, because two cores hold all pods of a task."""
TRAINER = ("300m", "2Gi")
DRIVER = ("100m", "2Gi")
LIMIT_SECONDS = 3600.0
"""What is taken for a hang; on two idle cores it is a few minutes."""
CLEAN_SECONDS = 90.0


@dataclass(frozen=True)
class Where:
    """Where the job runs, and with what."""

    cluster: Cluster
    storage: Mapping[str, str]
    """AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_REGION; AWS_ENDPOINT_URL_S3 leads pods and this machine to the same storage."""
    image: str
    control_image: str


def run(where: Where, job: Path, settings: tuple[str, ...], folder: Path, limit: float = LIMIT_SECONDS) -> dict[str, Any]:
    """Submits `job` into a namespace of its own, kills the laptop's process, looks on until the end, and checks everything: its figures.

    Raises AssertionError, with what the pods say, where anything is not as it should be.
    """
    start = time.monotonic()
    bucket = _bucket(where.storage)
    with where.cluster.namespace("e2e") as namespace:
        secret = {name: value for name, value in where.storage.items() if name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")}
        where.cluster.apply(
            {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": SECRET, "namespace": namespace}, "stringData": secret}
        )
        laptop = Laptop(where.cluster.kubeconfig, namespace, where.storage, job, (*_settings(where, bucket), *settings))
        try:
            return _run(where, laptop, folder, limit, start)
        except BaseException:
            (folder / "diagnosis.txt").write_text(diagnosis(where.cluster, namespace))
            print(f"what the pods say: {folder}/diagnosis.txt", flush=True)
            raise


def _run(where: Where, laptop: Laptop, folder: Path, limit: float, start: float) -> dict[str, Any]:
    cluster, namespace = where.cluster, laptop.namespace
    before = objects_of(cluster, namespace)
    laptop.submit_and_die(lambda: bool(cluster.get("jobs.batch", namespace=namespace)["items"]), folder)
    submitted = time.monotonic() - start
    status, seen = watch(cluster, namespace, limit)
    assert status.state == "done", f"the run is {status.state}: {status.message}"
    ended = time.monotonic() - start
    record = record_of(cluster, namespace)
    assert record is not None, "the record is gone"
    of_run = run_of_record(record["data"])
    for task in of_run.tasks:
        if task.component == "servers":
            assert seen.servers[task.slug] == REPLICAS, f"{task.name} had {seen.servers[task.slug]} servers at once, not {REPLICAS}"
        if task.component == "pytorchjob":
            assert seen.trainers[task.slug] == {"master", "worker"}, f"{task.name} was trained by {seen.trainers[task.slug] or 'no pod'}"
    # One server is enough to begin, and a small task may end before the others are ready, or before this test looks again.
    assert max(seen.ready.values()) == REPLICAS, f"never were {REPLICAS} servers of a task ready at once: {dict(seen.ready)}"
    rest = left_over(cluster, namespace, before, CLEAN_SECONDS)
    assert rest == [f"ConfigMap/{of_run.name}"], f"more than the record is left: {', '.join(rest)}"
    gone = time.monotonic() - start - ended
    # Submitting once more changes nothing, brings nothing back, and says where the report is.
    version = record["metadata"]["resourceVersion"]
    laptop.run(*laptop.submit("--wait", "--yes"))
    after = record_of(cluster, namespace)
    assert after is not None
    assert after["metadata"]["resourceVersion"] == version, "submitting a finished run again changed its record"
    report = json.loads(laptop.run("report", of_run.job, "--store", of_run.run_uri.rpartition("/")[0], "-o", "json"))
    files = laptop.run("fetch", of_run.job, "--store", of_run.run_uri.rpartition("/")[0], "--to", folder / "fetched").split()
    assert any(one.endswith("report.html") for one in files), files
    assert any(one.endswith("adapter_model.safetensors") for one in files), files
    apart = dict(_ranks(of_run, laptop, folder))
    assert all(one < TOLERANCE for one in apart.values()), f"training on {WORKERS} pods differs from one process by {apart}"
    seconds = {"submit": submitted, "run": ended - submitted, "clean": gone, **{one.name: one.seconds or 0 for one in status.tasks}}
    return {
        "verdict": report["verdict"]["sentence"],
        "adapters_differ": apart,
        "seconds": {name: round(one, 1) for name, one in seconds.items()},
    }


def _ranks(record: RunRecord, laptop: Laptop, folder: Path) -> Iterator[tuple[str, float]]:
    for task in record.tasks:
        if task.component == "pytorchjob":
            yield task.name, difference(record.run_uri, record.job_digest, task.name, laptop.environment, folder / task.slug)


def _settings(where: Where, bucket: str) -> Iterator[str]:
    yield f"storage.uri=s3://{bucket}/runs"
    yield f"storage.endpoint={where.storage['AWS_ENDPOINT_URL_S3']}"
    yield f"storage.region={where.storage['AWS_REGION']}"
    yield f"storage.credentialsSecret={SECRET}"
    yield f"rewrite.replicas={REPLICAS}"
    yield f"train.workers={WORKERS}"
    yield f"cluster.image={where.image}"
    yield f"cluster.controlImage={where.control_image}"
    yield "cluster.imagePullPolicy=IfNotPresent"
    yield "cluster.offline=true"
    for pool, (cpu, memory) in {"rewrite": SERVER, "train": TRAINER, "control": DRIVER}.items():
        yield f"cluster.pools.{pool}.cpu={cpu}"
        yield f"cluster.pools.{pool}.memory={memory}"


def _bucket(storage: Mapping[str, str]) -> str:
    name = f"e2e-{uuid.uuid4().hex[:12]}"
    session = boto3.session.Session(storage["AWS_ACCESS_KEY_ID"], storage["AWS_SECRET_ACCESS_KEY"], region_name=storage["AWS_REGION"])
    try:
        session.client("s3", endpoint_url=storage["AWS_ENDPOINT_URL_S3"]).create_bucket(Bucket=name)
    except ClientError as err:
        raise AssertionError(f"{storage['AWS_ENDPOINT_URL_S3']} gives no bucket for the run: {err}") from None
    return name
