"""The launcher with real rank processes: one attempt, one result, the exit code of whoever failed, SIGTERM handed on, nobody left over."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load

from dail_runtime.stages.jobs import attempts_of, load_saved_job
from dail_runtime.stages.run import run_task
from dail_runtime.store import read_manifest
from dailctl.backends.local import LocalBackend
from dailctl.progress import View
from dailctl.runs import Run
from tests.lab.components import Process, wait_until
from tests.lab.folders import ports
from tests.support.stage_process import REPOSITORY, SavedRun
from tests.support.tiny import make_tiny_model
from tests.support.training import training_run

TASK = "train/tuned"
LONG = {"objective": "contrastive", "epochs": 1000, "checkpointEvery": 10, "saveMerged": False}
"""With `MANY` problems so long that every machine is in the middle of it when a signal comes."""
MANY = 120


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("model"))


LAUNCHER = ("dail_runtime.train.launch",)
TORCHRUN = (
    "torch.distributed.run",
    "--standalone",
    "--nproc-per-node",
    "2",
    "--max-restarts",
    "2",
    "--module",
    "--",
    "dail_runtime.stages",
)


class Launched:
    """A running launcher."""

    def __init__(self, run: SavedRun, ranks: int, log: Path, launcher: Sequence[str] = LAUNCHER, **variables: str) -> None:
        command = [sys.executable, "-m", *launcher, TASK, "--run", run.root.uri, "--job", run.digest]
        environment = {**os.environ, "PET_NPROC_PER_NODE": str(ranks), "OMP_NUM_THREADS": "1", "DAIL_DEVICE": "cpu", **variables}
        self.log = log
        with log.open("wb") as talk:
            self.process = subprocess.Popen(command, cwd=REPOSITORY, env=environment, stdout=subprocess.PIPE, stderr=talk, text=True)

    def wait_for(self, what: Callable[[], bool], limit: float = 900) -> None:
        """Until `what()` holds; the test fails where the launcher ends before."""
        until = time.monotonic() + limit
        while not what():
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < until, self.log.read_text()
            time.sleep(0.05)

    def ranks(self) -> list[int]:
        """Process ids of the ranks, in order."""
        listed = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text()
        return [int(one) for one in listed.split()]

    def end(self, limit: float = 900) -> tuple[int, list[dict[str, Any]]]:
        """Exit code and events."""
        said, _ = self.process.communicate(timeout=limit)
        return self.process.returncode, [json.loads(line) for line in said.splitlines()]


@pytest.fixture
def launch(tmp_path: Path) -> Iterator[Callable[..., Launched]]:
    started: list[Launched] = []

    def begin(run: SavedRun, ranks: int, launcher: Sequence[str] = LAUNCHER, **variables: str) -> Launched:
        started.append(Launched(run, ranks, tmp_path / f"log-{len(started)}", launcher, **variables))
        return started[-1]

    yield begin
    for one in started:
        if one.process.poll() is None:
            one.process.kill()
        if one.process.stdout is not None and not one.process.stdout.closed:
            one.process.communicate()


def alive(pids: list[int]) -> list[int]:
    return [pid for pid in pids if Process.of(pid)]


def listened_to(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def checkpointed(run: SavedRun) -> bool:
    return any(info.key.endswith("complete.json") for info in run.at(TASK).list("checkpoints/"))


def test_two_ranks_make_one_attempt_and_the_result_of_one_rank(model: Path, tmp_path: Path, launch: Callable[..., Launched]) -> None:
    settings = {"objective": "contrastive", "epochs": 2}
    alone = training_run(model, tmp_path / "alone", train=settings)
    job, content = load_saved_job(alone.root, alone.digest)
    run_task(alone.root, job, content, TASK, lambda _: None)
    run = training_run(model, tmp_path / "many", train=settings)
    code, events = launch(run, 2).end()
    assert code == 0
    assert [event["event"] for event in events if event["event"] not in ("progress", "say")] == ["start", "done"]
    assert [attempt.state for attempt in attempts_of(run.at(TASK))] == ["done"]
    manifests = [read_manifest(one.at(TASK)) for one in (run, alone)]
    assert all(manifests)
    keys = [[info.key for info in one.objects] for one in manifests if one is not None]
    assert keys[0] == keys[1]
    found, expected = (load(one.at(TASK).get("adapter/adapter_model.safetensors")) for one in (run, alone))
    for name, weights in expected.items():
        torch.testing.assert_close(found[name], weights, rtol=1e-3, atol=1e-4)
    # Again: both ranks see that it is done.
    code, events = launch(run, 2).end()
    assert (code, [event["event"] for event in events]) == (0, ["skipped"])


def test_dailctl_run_trains_on_as_many_ranks_as_there_are_for_it(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saved = training_run(model, tmp_path, train={"objective": "contrastive", "epochs": 2})
    job, content = load_saved_job(saved.root, saved.digest)
    upto = [task for name, task in saved.tasks.items() if name.split("/")[0] in ("prepare", "rewrite", "select", "train")]
    # Two processes on a CPU by the setting; where there are GPUs, as many as PyTorch sees.
    for name, value in {"DAIL_DEVICE": "cpu", "PET_NPROC_PER_NODE": "2", "OMP_NUM_THREADS": "1"}.items():
        monkeypatch.setenv(name, value)
    LocalBackend(Run(job, content, tuple(upto), saved.root), View()).execute()
    manifest = read_manifest(saved.at(TASK))
    assert manifest is not None
    assert "2 processes train together." in manifest.counts["notes"]
    assert [attempt.state for attempt in attempts_of(saved.at(TASK))] == ["done"]


def test_a_setting_that_cannot_work_ends_with_its_own_code_and_one_sentence(
    model: Path, tmp_path: Path, launch: Callable[..., Launched]
) -> None:
    run = training_run(model, tmp_path, train={"lora": {"targets": ["c_attn"]}})
    code, events = launch(run, 2).end()
    errors = [event for event in events if event["event"] == "error"]
    assert (code, len(errors), errors[0]["exit"], errors[0]["kind"]) == (6, 1, 6, "ModelError")
    assert "no linear layer 'c_attn'" in errors[0]["message"]


def test_sigterm_reaches_every_rank_which_save_once_and_go_on_later(model: Path, tmp_path: Path, launch: Callable[..., Launched]) -> None:
    run = training_run(model, tmp_path, train=LONG, problems=MANY)
    first = launch(run, 2)
    first.wait_for(lambda: checkpointed(run))
    pids = first.ranks()
    first.process.terminate()
    code, events = first.end()
    assert (code, events[-1]["kind"], events[-1]["exit"]) == (143, "Interrupted", 143)
    assert alive(pids) == []
    assert [attempt.state for attempt in attempts_of(run.at(TASK))] == ["interrupted"]
    # A rank that dies takes the others along, and says so.
    second = launch(run, 2)
    second.wait_for(lambda: len(attempts_of(run.at(TASK))) == 2 and attempts_of(run.at(TASK))[-1].progress.unit == "steps")
    pids = second.ranks()
    os.kill(pids[1], signal.SIGKILL)
    code, events = second.end()
    assert code == 128 + signal.SIGKILL
    assert "rank 1 was killed by SIGKILL, most likely because memory ran out" in events[-1]["message"]
    assert alive(pids) == []
    last = attempts_of(run.at(TASK))[-1]
    assert (last.state, last.exit_code) == ("failed", 75)
    assert "rank" in str(last.error)


def test_ranks_whose_launcher_is_killed_save_and_end(model: Path, tmp_path: Path, launch: Callable[..., Launched]) -> None:
    run = training_run(model, tmp_path, train=LONG, problems=MANY)
    one = launch(run, 2)
    one.wait_for(lambda: checkpointed(run))
    pids = one.ranks()
    one.process.kill()
    assert wait_until(lambda: not alive(pids), 900)
    assert [attempt.state for attempt in attempts_of(run.at(TASK))] == ["interrupted"]


def test_two_machines_meet_by_the_operators_variables(model: Path, tmp_path: Path, launch: Callable[..., Launched]) -> None:
    run = training_run(model, tmp_path, train={"objective": "nll", "epochs": 1})
    operator = {"PET_NNODES": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(ports(1)[0]), "WORLD_SIZE": "2"}
    worker = launch(run, 1, **operator, PET_NODE_RANK="1", RANK="1")
    master = launch(run, 1, **operator, PET_NODE_RANK="0", RANK="0")
    assert master.end()[0] == 0
    code, events = worker.end()
    assert (code, events) == (0, [])
    assert [attempt.state for attempt in attempts_of(run.at(TASK))] == ["done"]


def test_elastic_machines_come_and_go(model: Path, tmp_path: Path, launch: Callable[..., Launched]) -> None:
    run = training_run(model, tmp_path, train={**LONG, "epochs": 10}, problems=MANY)
    (port,) = ports(1)
    policy = {"PET_NNODES": "1:2", "PET_RDZV_BACKEND": "c10d", "PET_RDZV_ENDPOINT": f"127.0.0.1:{port}", "PET_RDZV_ID": "test"}
    stays = launch(run, 1, **policy)
    # The first to come serves the meeting: on one machine nothing but time decides who that is.
    stays.wait_for(lambda: listened_to(port))
    goes = launch(run, 1, **policy)
    # A machine that comes late finds the other at work without it, which then begins again with it.
    stays.wait_for(lambda: checkpointed(run) and bool(goes.ranks()))
    pids = goes.ranks()
    goes.process.kill()
    for pid in pids:
        # Its agent's end may have reached it.
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    code, events = stays.end()
    assert code == 0, stays.log.read_text()
    assert events[-1]["event"] == "done"
    attempts = attempts_of(run.at(TASK))
    assert len(attempts) >= 2
    assert attempts[-2].state in ("failed", "interrupted")
    assert events[-1]["counts"]["resumed_at_step"] > 0


def test_under_torchrun_itself_ranks_are_started_anew_and_go_on(model: Path, tmp_path: Path, launch: Callable[..., Launched]) -> None:
    run = training_run(model, tmp_path, train={**LONG, "epochs": 10}, problems=MANY)
    agent = launch(run, 2, TORCHRUN)
    agent.wait_for(lambda: checkpointed(run))
    os.kill(agent.ranks()[-1], signal.SIGKILL)
    code, events = agent.end()
    assert code == 0, agent.log.read_text()
    ways = [event["event"] for event in events if event["event"] not in ("progress", "say", "error")]
    assert ways == ["start", "start", "done"], [event for event in events if event["event"] == "error"]
    assert events[-1]["counts"]["resumed_at_step"] > 0
    assert len(attempts_of(run.at(TASK))) == 2
