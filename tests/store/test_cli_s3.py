"""dailctl on a run in a bucket of a real S3 server: run, status, report, fetch, and the lease between two machines."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from tests.support.cli import dailctl
from tests.support.playing import TASKS, Play, warm
from tests.support.s3 import Bucket

pytestmark = pytest.mark.store


@pytest.fixture
def play(tmp_path: Path, bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> Play:
    """A job with played stages whose results go to the bucket; the endpoint stands in the job alone."""
    monkeypatch.setattr("dailctl.backends.local.START", warm)
    monkeypatch.setattr("dailctl.cli.run.LIBRARIES", ())
    for name in ("XDG_CACHE_HOME", "XDG_STATE_HOME"):
        monkeypatch.setenv(name, str(tmp_path / name))
    play = Play(tmp_path)
    storage = f"  storage: {{uri: {bucket.uri}/team, endpoint: '{bucket.server.endpoint}'}}\n"
    (tmp_path / "job.yaml").write_text((tmp_path / "job.yaml").read_text() + storage)
    play.says()
    monkeypatch.setenv("SCRIPT", str(play.script))
    return play


def test_a_run_in_a_bucket_is_run_watched_and_fetched_from_there(play: Play, bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    play.says(**{"train/b": ["kill", "ok"]})
    assert dailctl("run", cwd=play.folder).code == 137
    ran = dailctl("run", cwd=play.folder)
    assert ran.code == 0, ran.err
    assert play.started == [*TASKS[:5], *TASKS[4:]]
    report = Path(ran.out.splitlines()[-1].removeprefix("report: "))
    assert report.read_text() == "<p>report</p>"
    root = bucket.store("team/play")
    assert root.get("report.html") == b"<p>report</p>"
    assert [b"attempt %d" % number in root.get(f"logs/train/b/attempt-{number}.log") for number in (1, 2)] == [True, True]
    assert not (play.folder / "runs").exists()

    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", bucket.server.endpoint)
    store = ("--store", f"{bucket.uri}/team")
    listed = json.loads(dailctl("status", "-A", *store, "-o", "json", cwd=play.folder).out)
    assert [(run["name"], run["state"], run["gain"]) for run in listed["items"]] == [("play", "done", True)]
    assert dailctl("report", "play", *store, cwd=play.folder).out == ran.out
    fetched = dailctl("fetch", "play", *store, "--what", "all", cwd=play.folder)
    assert fetched.code == 0, fetched.err
    assert (play.folder / "play/a/adapter/adapter_model.safetensors").read_text() == "weights"


def test_two_machines_cannot_work_on_one_run_in_a_bucket(play: Play, bucket: Bucket) -> None:
    root = bucket.store("team/play")
    holder = {"host": "far-away", "pid": 1, "since": "2026-01-01", "beat": time.time()}
    root.put("locks/000001.json", json.dumps(holder).encode())
    said = dailctl("run", cwd=play.folder)
    assert (said.code, play.started) == (2, [])
    assert "another dailctl is at work on it (process 1 on far-away, since 2026-01-01)" in said.err
    root.put("locks/000001.json", json.dumps({**holder, "released": True}).encode())
    play.says(prepare=["error:4:one stage is enough here; end"])
    assert dailctl("run", cwd=play.folder).code == 4
    assert play.started == ["prepare"]


def test_a_bucket_that_does_not_exist_is_a_sentence(play: Play, bucket: Bucket) -> None:
    said = dailctl("run", "--set", f"storage.uri={bucket.uri}-other/team", cwd=play.folder)
    assert (said.code, said.out, len(said.errors)) == (5, "", 1), said.err
    assert f"{bucket.name}-other" in said.err
