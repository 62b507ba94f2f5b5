"""Whether training on many pods gave what one process gives from the same traces."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import boto3
import numpy as np
from safetensors.numpy import load_file

from dail_runtime.objects import ADAPTER
from dail_runtime.spec import plan
from dail_runtime.stages.jobs import load_saved_job
from dail_runtime.store import open_store
from tests.support.stage_process import REPOSITORY

TOLERANCE = 1e-3
"""Of the adapters' difference to their length. N ranks add up the same gradients as one, in another order."""
WEIGHTS = f"{ADAPTER}/adapter_model.safetensors"


def difference(run_uri: str, job_digest: str, task: str, environment: Mapping[str, str], folder: Path) -> float:
    """Trains `task` of a finished run once more, here and in one process; length of the adapters' difference, relative to theirs."""
    bucket, _, prefix = run_uri.removeprefix("s3://").partition("/")
    client = boto3.session.Session(
        environment["AWS_ACCESS_KEY_ID"], environment["AWS_SECRET_ACCESS_KEY"], region_name=environment["AWS_REGION"]
    ).client("s3", endpoint_url=environment["AWS_ENDPOINT_URL_S3"])
    copy = folder / "copy"
    for page in client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=f"{prefix}/"):
        for one in page.get("Contents", []):
            target = copy / one["Key"].removeprefix(f"{prefix}/")
            target.parent.mkdir(parents=True, exist_ok=True)
            client.download_file(bucket, one["Key"], str(target))
    there = {one.name: one for one in plan(*load_saved_job(open_store(str(copy)), job_digest))}[task].prefix
    many = load_file(copy / there / WEIGHTS)
    (copy / there).rename(folder / "many")
    command = [sys.executable, "-m", "dail_runtime.stages", task, "--run", str(copy), "--job", job_digest]
    done = subprocess.run(command, cwd=REPOSITORY, env={**os.environ, **environment}, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, f"{task} in one process ended with {done.returncode}: {done.stdout[-500:]}\n{done.stderr[-3000:]}"
    one_rank = load_file(copy / there / WEIGHTS)
    assert many.keys() == one_rank.keys()
    apart = np.sqrt(sum(float(np.square(many[name].astype(np.float64) - one_rank[name].astype(np.float64)).sum()) for name in many))
    length = np.sqrt(sum(float(np.square(one_rank[name].astype(np.float64)).sum()) for name in one_rank))
    return float(apart / length)
