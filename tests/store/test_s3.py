"""The S3 store against a real server: the contract, wrong addresses and credentials, broken connections."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import boto3
import pytest
from boto3.s3.transfer import TransferConfig

from dail_runtime.errors import DailError, IntegrityError, StoreError, TransientError
from dail_runtime.store import open_store, s3
from tests.lab.folders import ports
from tests.support.faulty_proxy import Fault, FaultyProxy, faulty_proxy
from tests.support.machine import assert_takes_less
from tests.support.s3 import Bucket
from tests.support.store_contract import PROMISES, Case

pytestmark = pytest.mark.store

MB = 1 << 20


@pytest.mark.parametrize("promise", PROMISES, ids=lambda promise: promise.__name__)
def test_the_s3_store_keeps_the_promise(promise: Callable[[Case], None], bucket: Bucket, tmp_path: Path) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    store = open_store(f"{bucket.uri}/runs/x", endpoint=bucket.server.endpoint)
    promise(Case(store, scratch, lambda key: bucket.file_of(f"runs/x/{key}"), bucket.server.endpoint))


@pytest.fixture
def proxy(bucket: Bucket) -> Iterator[FaultyProxy]:
    with faulty_proxy(bucket.server.endpoint) as proxy:
        yield proxy


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Multipart from 5 MB on, the least that S3 allows."""
    monkeypatch.setattr(s3, "PART", 5 * MB)
    monkeypatch.setattr(
        s3, "TRANSFER", TransferConfig(multipart_threshold=5 * MB, multipart_chunksize=5 * MB, preferred_transfer_client="classic")
    )


def _sentence(error: pytest.ExceptionInfo[DailError]) -> str:
    text = str(error.value)
    assert "\n" not in text
    assert "; " in text
    assert len(text) < 400
    return text


@pytest.mark.usefixtures("small_parts")
def test_large_files_travel_in_parts_and_survive_faults(bucket: Bucket, proxy: FaultyProxy, tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_bytes(os.urandom(12 * MB))
    store = bucket.store("p", endpoint=proxy.endpoint, attempts=4)
    proxy.times(2, Fault("answer", 503), query="partNumber")
    info = store.put_file("model", source)
    parts = [path for method, path in proxy.requests if method == "PUT" and "partNumber" in path]
    assert len(parts) == 3 + 2
    assert store.head("model") == info
    proxy.times(1, Fault("cut"), method="GET")
    assert store.get_file("model", target) == info
    assert target.read_bytes() == source.read_bytes()
    assert sum(method == "GET" and path.endswith("/model") for method, path in proxy.requests) == 3 + 1
    with bucket.file_of("p/model").open("r+b") as file:
        file.seek(7 * MB)
        file.write(b"damage")
    target.unlink()
    with pytest.raises(IntegrityError, match=r"s3://.*/p/model is not what was written"):
        store.get_file("model", target)
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


@pytest.mark.usefixtures("small_parts")
def test_a_failed_upload_leaves_the_old_object_and_no_parts(bucket: Bucket, proxy: FaultyProxy, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(os.urandom(11 * MB))
    store = bucket.store(endpoint=proxy.endpoint, attempts=2)
    store.put("model", b"old")
    proxy.times(1000, Fault("answer", 500, "InternalError"), query="partNumber=2")
    with pytest.raises(TransientError, match=r"/model: http.* is out of order or overloaded \(InternalError\)"):
        store.put_file("model", source)
    assert store.get("model") == b"old"
    client = boto3.session.Session().client("s3", endpoint_url=bucket.server.endpoint)
    assert client.list_multipart_uploads(Bucket=bucket.name).get("Uploads", []) == []


@pytest.mark.usefixtures("small_parts")
def test_an_upload_frees_the_parts_of_killed_uploads_of_its_key_and_no_others(bucket: Bucket, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(os.urandom(11 * MB))
    client = boto3.session.Session().client("s3", endpoint_url=bucket.server.endpoint)
    for key in ("p/model", "p/model", "p/model-2"):
        killed = client.create_multipart_upload(Bucket=bucket.name, Key=key)["UploadId"]
        client.upload_part(Bucket=bucket.name, Key=key, UploadId=killed, PartNumber=1, Body=os.urandom(5 * MB))
    store = bucket.store("p")
    info = store.put_file("model", source)
    assert store.head("model") == info
    assert [one["Key"] for one in client.list_multipart_uploads(Bucket=bucket.name).get("Uploads", [])] == ["p/model-2"]


@pytest.mark.usefixtures("small_parts")
def test_a_file_that_changes_during_its_upload_is_noticed(bucket: Bucket, proxy: FaultyProxy, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(os.urandom(11 * MB))
    store = bucket.store(endpoint=proxy.endpoint)

    def touch(_method: str, path: str) -> None:
        if "partNumber" in path:
            os.utime(source)

    proxy.plan = touch
    with pytest.raises(IntegrityError, match="source changed while it was written to s3://"):
        store.put_file("model", source)


def test_faults_that_pass_do_not_show(bucket: Bucket, proxy: FaultyProxy) -> None:
    store = bucket.store("p", endpoint=proxy.endpoint, attempts=4)
    assert list(store.list()) == []
    slow, broken, reset = Fault("answer", 503, "SlowDown"), Fault("answer", 500, "InternalError"), Fault("reset")
    for fault, work in (
        (slow, lambda: store.put("k", b"data")),
        (reset, lambda: store.put("k", b"data")),
        (broken, lambda: store.get("k")),
        (reset, lambda: store.get("k")),
        (slow, lambda: store.head("k")),
        (reset, lambda: list(store.list())),
        (broken, lambda: store.create("new", b"data")),
        (reset, lambda: store.delete("new")),
    ):
        asked = len(proxy.requests)
        proxy.times(1, fault)
        assert work() is not False
        assert len(proxy.requests) == asked + 2
    assert store.get("k") == b"data"


def test_faults_that_stay_are_transient_errors(bucket: Bucket, proxy: FaultyProxy) -> None:
    store = bucket.store("p", endpoint=proxy.endpoint, attempts=2)
    store.put("k", b"data")
    proxy.times(10**6, Fault("answer", 503, "SlowDown"))
    with pytest.raises(TransientError) as caught:
        store.get("k")
    assert re.search(r"s3://\S+/p/k: http://127.0.0.1:\d+ is out of order or overloaded \(SlowDown\); try again later", _sentence(caught))
    proxy.times(10**6, Fault("reset"))
    with pytest.raises(TransientError, match="broke off"):
        store.put("k", b"new")
    proxy.plan = lambda _method, _path: None
    assert store.get("k") == b"data"


def test_a_body_that_breaks_off_is_fetched_again(
    bucket: Bucket, proxy: FaultyProxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = bucket.store("p", endpoint=proxy.endpoint)
    data = os.urandom(300_000)
    store.put("k", data)
    proxy.times(2, Fault("cut"), method="GET")
    assert store.get("k") == data
    proxy.times(2, Fault("cut"), method="GET")
    store.get_file("k", tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == data
    (tmp_path / "copy").unlink()
    monkeypatch.setattr(s3, "_TRIES", 2)
    proxy.times(10**6, Fault("cut"), method="GET")
    for read in (lambda: store.get("k"), lambda: store.get_file("k", tmp_path / "copy")):
        with pytest.raises(TransientError, match="broke off"):
            read()
    assert not (tmp_path / "copy").exists()


def test_a_byte_changed_on_the_way_is_fetched_again(bucket: Bucket, proxy: FaultyProxy, tmp_path: Path) -> None:
    store = bucket.store(endpoint=proxy.endpoint)
    store.put("k", b"content")
    proxy.times(1, Fault("change"), method="GET", query="/k")
    assert store.get("k") == b"content"
    proxy.times(1, Fault("change"), method="GET", query="/k")
    assert store.get_file("k", tmp_path / "copy").size == 7
    proxy.times(10**6, Fault("change"), method="GET", query="/k")
    with pytest.raises(IntegrityError, match="is not what was written"):
        store.get("k")


def test_the_server_checks_what_it_gets(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    store = bucket.store()
    monkeypatch.setattr(s3, "_base64", lambda _digest: s3.base64.b64encode(bytes(32)).decode())
    with pytest.raises(StoreError):
        store.put("k", b"content")
    assert store.head("k") is None


def test_a_create_whose_answer_was_lost_has_still_won(bucket: Bucket, proxy: FaultyProxy) -> None:
    store = bucket.store(endpoint=proxy.endpoint, attempts=3)
    store.head("warm-up")
    proxy.times(1, Fault("lose_answer"), method="PUT")
    assert store.create("claim", b"mine") is True
    assert store.create("claim", b"mine") is False
    proxy.times(2, Fault("answer", 409, "ConditionalRequestConflict"), method="PUT")
    assert store.create("other", b"mine") is True


def test_objects_someone_else_wrote_are_read_and_console_folders_are_none(bucket: Bucket, tmp_path: Path) -> None:
    client = boto3.session.Session().client("s3", endpoint_url=bucket.server.endpoint)
    client.put_object(Bucket=bucket.name, Key="data/expert.jsonl", Body=b"{}\n")
    client.put_object(Bucket=bucket.name, Key="data/sub/", Body=b"")
    store = bucket.store("data")
    assert [info.key for info in store.list()] == ["expert.jsonl"]
    assert store.get("expert.jsonl") == b"{}\n"
    assert store.get_file("expert.jsonl", tmp_path / "copy").size == 3
    info = store.head("expert.jsonl")
    assert info is not None
    assert (info.size, info.sha256) == (3, None)


def test_lists_go_over_pages(bucket: Bucket) -> None:
    folder = bucket.file_of("many")
    folder.mkdir()
    for n in range(1100):
        (folder / f"{n:05d}").touch()
    assert [info.key for info in bucket.store("many").list()] == [f"{n:05d}" for n in range(1100)]


def test_lists_are_sorted_where_the_server_does_not_sort(bucket: Bucket) -> None:
    store = bucket.store("p")
    for key in ("a", "b", "c"):
        store.put(key, b"1")

    def reverse(parsed: dict[str, list[object]], **_: object) -> None:
        parsed["Contents"].reverse()

    client = store._connection.client("p")
    client.meta.events.register("after-call.s3.ListObjectsV2", reverse)
    assert [info.key for info in store.list()] == ["a", "b", "c"]


def test_stores_share_one_client_between_threads_and_prefixes(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    made = []
    real = boto3.session.Session
    monkeypatch.setattr(boto3.session, "Session", lambda: made.append(1) or real())
    store = bucket.store()
    for n in range(3):
        store.at(f"p{n}").put("k", b"1")
    assert len(made) == 2  # the impatient client of the first contact, then the patient one


def test_a_wrong_bucket_is_a_sentence(bucket: Bucket) -> None:
    for name in ("no-such-bucket-1", "No_Valid_Bucket!"):
        store = open_store(f"s3://{name}/p", endpoint=bucket.server.endpoint)
        with pytest.raises(StoreError) as caught:
            store.get("k")
        assert f"s3://{name}/p" in _sentence(caught)
        assert "storage.uri" in _sentence(caught)


@pytest.mark.parametrize(
    ("variable", "value", "says"),
    [
        ("AWS_SECRET_ACCESS_KEY", "wrong", "does not accept the secret key"),
        ("AWS_ACCESS_KEY_ID", "nobody", "does not know this access key"),
    ],
)
def test_wrong_credentials_are_a_sentence_without_the_secret(
    variable: str, value: str, says: str, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(StoreError) as caught:
        bucket.store("p").put("k", b"1")
    assert says in _sentence(caught)
    assert bucket.server.environment()["AWS_SECRET_ACCESS_KEY"] not in str(caught.value)


@pytest.mark.parametrize("variable", ["AWS_ACCESS_KEY_ID", "AWS_SESSION_TOKEN"])
def test_a_line_break_in_the_credentials_is_a_sentence_that_does_not_quote_them(
    variable: str, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, "t0pSecret\n")
    with pytest.raises(StoreError, match="hold a line break or another character") as caught:
        bucket.store("p").put("k", b"1")
    assert "t0pSecret" not in _sentence(caught)


def test_a_broken_aws_configuration_is_a_sentence(bucket: Bucket, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "config").write_text("[default\n")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    with pytest.raises(StoreError, match=r"AWS configuration of this machine is wrong .*config\); correct that file"):
        bucket.store("p").put("k", b"1")


def test_no_credentials_are_a_sentence(bucket: Bucket, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    for name in ("AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    with pytest.raises(StoreError, match=r"no usable credentials.*set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"):
        bucket.store().get("k")


@pytest.mark.parametrize(
    ("fault", "kind", "says"),
    [
        (Fault("answer", 403, "AccessDenied"), StoreError, "forbids it.*grant these credentials s3:ListBucket"),
        (Fault("answer", 400, "ExpiredToken"), StoreError, "have expired; renew them"),
        (Fault("answer", 403, "RequestTimeTooSkewed"), StoreError, "clock is wrong; set the clock"),
        (Fault("answer", 400, "AuthorizationHeaderMalformed"), StoreError, "another region; set storage.region"),
        (Fault("answer", 507, "XMinioStorageFull"), StoreError, "quota is full; free space"),
        (Fault("answer", 501, "NotImplemented"), StoreError, "use an S3 server with conditional writes"),
        (Fault("answer", 429, "TooManyRequests"), TransientError, "out of order or overloaded"),
    ],
    ids=lambda value: value.code if isinstance(value, Fault) else "",
)
def test_what_the_server_refuses_is_a_sentence(fault: Fault, kind: type[DailError], says: str, bucket: Bucket, proxy: FaultyProxy) -> None:
    proxy.times(10**6, fault)
    store = bucket.store("p", endpoint=proxy.endpoint, attempts=2)
    for work in (lambda: store.get("k"), lambda: store.put("k", b"1"), lambda: list(store.list())):
        with pytest.raises(kind, match=says) as caught:
            work()
        assert type(caught.value) is kind
        assert "/p" in _sentence(caught)


def test_head_says_why_although_its_answer_has_no_body(bucket: Bucket, proxy: FaultyProxy) -> None:
    store = bucket.store("p", endpoint=proxy.endpoint, attempts=2)
    assert store.head("k") is None
    for status, code, says in ((400, "ExpiredToken", "have expired; renew them"), (403, "AccessDenied", "forbids it")):
        proxy.times(10**6, Fault("answer", status, code))
        with pytest.raises(StoreError, match=says):
            store.head("k")
    proxy.plan = lambda method, _path: Fault("answer", 403, "AccessDenied") if method == "HEAD" else None
    with pytest.raises(StoreError, match=r"forbids it \(403\)"):
        store.head("k")


def test_who_may_not_list_may_still_read(bucket: Bucket, proxy: FaultyProxy) -> None:
    bucket.store("p").put("k", b"data")
    proxy.plan = lambda _method, path: Fault("answer", 403, "AccessDenied") if "list-type" in path else None
    assert bucket.store("p", endpoint=proxy.endpoint).get("k") == b"data"


def test_an_endpoint_that_cannot_be_reached_is_a_sentence_within_ten_seconds(bucket: Bucket) -> None:
    (port,) = ports(1)

    def get(endpoint: str) -> None:
        with pytest.raises(TransientError) as caught:
            open_store(f"{bucket.uri}/p", endpoint=endpoint).get("k")
        assert f"{bucket.uri}/p: {endpoint} cannot be reached; check storage.endpoint" in _sentence(caught)

    assert_takes_less(10, lambda: get(f"http://127.0.0.1:{port}"))
    # How long a name server takes to say that there is no such host is its own affair.
    get("http://no-such-host.invalid:9000")


def test_an_endpoint_that_never_answers_is_a_sentence_within_ten_seconds(bucket: Bucket, proxy: FaultyProxy) -> None:
    proxy.times(10**6, Fault("hang", seconds=600))

    def put() -> None:
        with pytest.raises(TransientError) as caught:
            open_store(f"{bucket.uri}/p", endpoint=proxy.endpoint).put("k", b"1")
        assert "does not answer" in _sentence(caught)

    assert_takes_less(10, put)


@pytest.mark.parametrize("endpoint", ["localhost:9000", "nonsense", "http://", "ftp://x"])
def test_an_endpoint_that_is_no_address_is_a_sentence(endpoint: str, bucket: Bucket) -> None:
    with pytest.raises(StoreError) as caught:
        open_store(bucket.uri, endpoint=endpoint).get("k")
    assert "storage.endpoint" in _sentence(caught)
    assert endpoint in str(caught.value)


@pytest.mark.parametrize("status", [200, 404, 405])
def test_a_web_server_that_is_no_s3_server_is_a_sentence(status: int, bucket: Bucket, proxy: FaultyProxy) -> None:
    proxy.times(10**6, Fault("web_page", status))
    with pytest.raises(StoreError) as caught:
        bucket.store("p", endpoint=proxy.endpoint).get("k")
    assert "so it is no S3 server; correct storage.endpoint" in _sentence(caught)
