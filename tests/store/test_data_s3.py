"""Data files and models in a bucket of a real S3 server: read, and named by their content."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import boto3
import pytest

from dail_runtime.data import read_problems
from dail_runtime.errors import DataError, ModelError
from dail_runtime.spec import DailJob
from dail_runtime.spec.content import content_of
from tests.support.s3 import Bucket

pytestmark = pytest.mark.store

ROWS = b"".join(json.dumps({"problem": f"p {n}", "solution": f"\\boxed{{{n}}}"}).encode() + b"\n" for n in range(200))


def job(bucket: Bucket, solutions: str, model: str = "owner/name") -> DailJob:
    storage = {"uri": f"{bucket.uri}/runs", "endpoint": bucket.server.endpoint}
    spec = {"model": {"id": model}, "data": {"solutions": solutions}, "storage": storage}
    return DailJob.model_validate({"apiVersion": "dail/v1alpha1", "kind": "DailJob", "metadata": {"name": "one"}, "spec": spec})


def put_by_others(bucket: Bucket, key: str, content: bytes) -> str:
    """An object that no dail wrote, so that no sha256 is kept with it."""
    boto3.session.Session().client("s3", endpoint_url=bucket.server.endpoint).put_object(Bucket=bucket.name, Key=key, Body=content)
    return f"{bucket.uri}/{key}"


def test_a_data_file_in_a_bucket_is_read_like_one_on_disk(bucket: Bucket, tmp_path: Path) -> None:
    uri = put_by_others(bucket, "data/x.jsonl", ROWS)
    (tmp_path / "x.jsonl").write_bytes(ROWS)
    found, counts = read_problems(uri, endpoint=bucket.server.endpoint)
    assert found == read_problems(str(tmp_path / "x.jsonl"))[0]
    assert counts.rows == 200


def test_what_is_wrong_with_it_is_told_by_its_address(bucket: Bucket) -> None:
    uri = put_by_others(bucket, "x.jsonl", ROWS + b"{\n")
    with pytest.raises(DataError, match=rf"^{uri}:201: "):
        read_problems(uri, endpoint=bucket.server.endpoint)
    with pytest.raises(DataError, match=r"data: s3://.*/none\.jsonl: there is no such object; check the path"):
        read_problems(f"{bucket.uri}/none.jsonl", endpoint=bucket.server.endpoint)


def test_objects_go_by_content_whoever_wrote_them(bucket: Bucket) -> None:
    uri = put_by_others(bucket, "x.jsonl", ROWS)
    assert content_of(job(bucket, uri))[uri] == hashlib.sha256(ROWS).hexdigest()
    bucket.store().put("y.jsonl", ROWS)
    assert content_of(job(bucket, f"{bucket.uri}/y.jsonl"))[f"{bucket.uri}/y.jsonl"] == hashlib.sha256(ROWS).hexdigest()
    with pytest.raises(DataError, match=r"data\.solutions: s3://.*: there is no such object"):
        content_of(job(bucket, f"{bucket.uri}/z.jsonl"))


def test_a_model_in_a_bucket_goes_by_its_files(bucket: Bucket) -> None:
    data = put_by_others(bucket, "x.jsonl", ROWS)

    def digest(prefix: str) -> str:
        return content_of(job(bucket, data, f"{bucket.uri}/{prefix}"))[f"{bucket.uri}/{prefix}"]

    for prefix, weights in (("a", b"one"), ("b", b"one"), ("c", b"two")):
        put_by_others(bucket, f"{prefix}/config.json", b"{}")
        put_by_others(bucket, f"{prefix}/model.safetensors", weights)
    put_by_others(bucket, "b/README.md", b"words")
    put_by_others(bucket, "b/old/model.safetensors", b"zero")
    assert digest("a") == digest("b") != digest("c")
    with pytest.raises(ModelError, match="there are no model files; check the prefix"):
        digest("nothing")
