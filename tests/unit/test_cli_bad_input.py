"""Whatever is wrong is told in sentences with a place and a remedy, ends with an exit code of its kind, and changes nothing."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.support.cli import dailctl, tree

Prepare = Callable[[Path], object]

JOB = """\
apiVersion: dail/v1alpha1
kind: DailJob
metadata:
  name: play
spec:
  model: {id: some/model}
  data:
    solutions: expert.jsonl
    evaluation:
      - {name: test, path: test.jsonl}
"""
ROW = '{"problem": "1+1?", "solution": "two. \\\\boxed{2}", "answer": "2"}\n'


def good_job(folder: Path) -> None:
    """A folder whose job has nothing wrong."""
    (folder / "job.yaml").write_text(JOB)
    (folder / "expert.jsonl").write_text(ROW + ROW.replace("1+1", "2+0"))
    (folder / "test.jsonl").write_text('{"problem": "3+4?", "answer": "7"}\n')


def replace(old: str, new: str, file: str = "job.yaml") -> Prepare:
    """Change the file."""

    def change(folder: Path) -> None:
        text = (folder / file).read_text()
        assert old in text
        (folder / file).write_text(text.replace(old, new))

    return change


def write(file: str, content: str | bytes) -> Prepare:
    """Put a file there."""

    def put(folder: Path) -> None:
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).write_bytes(content if isinstance(content, bytes) else content.encode())

    return put


def under_spec(text: str) -> Prepare:
    """Add lines to the job's spec."""
    return lambda folder: (folder / "job.yaml").write_text(JOB + text)


def remove(file: str) -> Prepare:
    """Take a file away."""
    return lambda folder: (folder / file).unlink()


def folder_at(name: str) -> Prepare:
    """An empty folder."""
    return lambda folder: (folder / name).mkdir(parents=True)


def nothing(folder: Path) -> None:
    """The good job as it is."""


@dataclass(frozen=True)
class Row:
    """One way to be wrong."""

    name: str
    prepare: Prepare
    argv: str
    code: int
    told: str
    """What the first line must say about place and matter."""


RUN = "run -f job.yaml"
ROWS = [
    # The command line.
    Row("unknown verb", nothing, "rnu", 2, "No such command 'rnu'"),
    Row("unknown option", nothing, "run --frobnicate", 2, "No such option: --frobnicate"),
    Row("option without its value", nothing, "run -f", 2, "'-f' requires an argument"),
    Row("stray word", nothing, "run job.yaml", 2, "unexpected extra argument"),
    Row("unknown form of output", nothing, "status -o xml", 2, "'xml' is not one of 'wide', 'json', 'yaml', 'name'"),
    Row("unknown kind of result", nothing, "fetch play --what weights", 2, "'weights' is not one of 'adapter'"),
    Row("no job file here", remove("job.yaml"), "run", 2, "no job is named and there is no job.yaml here"),
    Row("unknown stage", nothing, f"{RUN} --from trian", 2, "--from trian: this job has no such stage or task"),
    Row("from and force", nothing, f"{RUN} --from train --force", 2, "--from and --force exclude each other"),
    Row("name and file", nothing, "status play -f job.yaml", 2, "both the run 'play' and the job file job.yaml are given"),
    Row("all and one", nothing, "status play -A", 2, "-A shows all runs"),
    Row("a run that never was", nothing, "status play", 2, "no run was started at"),
    Row("a name that leads out", nothing, "status ../play", 2, "'../play' is no name of a run"),
    Row("a report that is not there yet", nothing, "report -f job.yaml", 2, "run play has no report yet"),
    Row("an adapter that is not there yet", nothing, "fetch -f job.yaml", 2, "train/tuned of run play has not finished"),
    Row("an unknown variant", nothing, "fetch -f job.yaml --variant b", 2, "run play has no variant 'b'; it has tuned"),
    Row("init over a job", nothing, "init", 2, "job.yaml, expert.jsonl, test.jsonl is there already"),
    Row("init with a bad name", nothing, "init new --name My_Run", 2, "--name My_Run: a name holds lower-case letters"),
    Row("schema where nothing can be written", nothing, "schema --to job.yaml/x", 2, "job.yaml/x: cannot be written"),
    # The job file.
    Row("no such job file", nothing, "run -f jbo.yaml", 3, "jbo.yaml: there is no such file; did you mean job.yaml?"),
    Row("a folder for a job file", nothing, "run -f .", 3, ".: this is a folder"),
    Row("an empty job file", write("job.yaml", ""), RUN, 3, "job.yaml: the file is empty"),
    Row("a tab", replace("  name:", "\tname:"), RUN, 3, "job.yaml:4:1: "),
    Row("not UTF-8", write("job.yaml", JOB.encode().replace(b"play", b"pl\xe4y")), RUN, 3, "job.yaml:4:11: the byte 0xE4 is not UTF-8"),
    Row("another kind", replace("DailJob", "Pod"), RUN, 3, "job.yaml:2:7: kind: 'Pod' is not what dail reads"),
    Row("an unknown field", under_spec("  sede: 1\n"), RUN, 3, "job.yaml:11:3: spec.sede: no such field here; did you mean seed?"),
    Row("a missing field", replace("  model: {id: some/model}\n", ""), RUN, 3, "spec.model: is missing; add it"),
    Row("a field twice", under_spec("  seed: 1\n  seed: 2\n"), RUN, 3, "job.yaml:12:3: seed: the key is already on line 11"),
    Row("a word for a number", under_spec("  train: {epochs: many}\n"), RUN, 3, "job.yaml:11:19: spec.train.epochs"),
    Row("an unbounded objective", under_spec("  train: {gamma: 1}\n"), RUN, 3, "job.yaml:11:18: spec.train.gamma: 1 is out of range"),
    Row("forward KL", under_spec("  train: {direction: forward}\n"), RUN, 3, "spec.train.direction: 'forward'"),
    Row("k over n", under_spec("  evaluate: {samples: 4, passAt: [8]}\n"), RUN, 3, "pass@8 needs at least 8 samples"),
    Row("an unknown policy", under_spec("  rewrite: {policy: {kind: mixde}}\n"), RUN, 3, "write kind: mixed"),
    Row("a variant's override", under_spec("  variants: {a: {train: {gama: 0}}}\n"), RUN, 3, "did you mean gamma?"),
    Row("an unknown target", under_spec("  evaluate: {targets: [tunde]}\n"), RUN, 3, "'tunde'"),
    Row("a prompt without the problem", under_spec("  prompts: {student: hello}\n"), RUN, 3, "put {problem} where"),
    Row("an unknown store", under_spec("  storage: {uri: gs://bucket}\n"), RUN, 3, "gs:// is no store dail knows"),
    Row("a key in the address", under_spec("  storage: {uri: s3://key:word@bucket}\n"), RUN, 3, "spec.storage.uri"),
    Row("an override that is none", nothing, f"{RUN} --set epochs", 3, "override 'epochs': is not FIELD=VALUE"),
    Row(
        "an override out of range", nothing, f"{RUN} --set train.gamma=2", 3, "override 'train.gamma': spec.train.gamma: 2 is out of range"
    ),
    # The data.
    Row("no such data file", remove("expert.jsonl"), RUN, 4, "expert.jsonl: there is no such file"),
    Row("a folder for data", replace("test.jsonl", "runs.d"), RUN, 4, "data.evaluation.0.path: "),
    Row("an unknown ending", nothing, f"{RUN} --set data.solutions=job.yaml", 4, "job.yaml: the ending .yaml is none of"),
    Row("no rows", write("expert.jsonl", ""), RUN, 4, "expert.jsonl: the file has no rows"),
    Row("a broken row", write("expert.jsonl", ROW + '{"problem": \n'), RUN, 4, "expert.jsonl:2: "),
    Row("a list for a row", write("expert.jsonl", ROW + "[1]\n"), RUN, 4, "expert.jsonl:2: "),
    Row("data not UTF-8", write("expert.jsonl", ROW.encode() + ROW.encode().replace(b"1+1", b"\xff")), RUN, 4, "expert.jsonl:2: "),
    Row("an empty solution", write("expert.jsonl", ROW + '{"problem": "3+3?", "solution": " "}\n'), RUN, 4, "expert.jsonl:2: "),
    Row("an unknown column", nothing, f"{RUN} --set data.columns.problem=question", 4, "expert.jsonl"),
    Row(
        "an id twice",
        write(
            "expert.jsonl", '{"id": 1, "problem": "a", "solution": "\\\\boxed{1}"}\n{"id": 1, "problem": "b", "solution": "\\\\boxed{2}"}\n'
        ),
        RUN,
        4,
        "expert.jsonl:2: ",
    ),
    Row(
        "nothing to grade by",
        write("expert.jsonl", '{"problem": "a", "solution": "clear"}\n{"problem": "b", "solution": "so"}\n'),
        RUN,
        4,
        "no problem has an answer",
    ),
    Row("a test without answers", write("test.jsonl", '{"problem": "a"}\n'), RUN, 4, "test.jsonl"),
    Row("parquet that is none", write("expert.parquet", b"PAR0"), f"{RUN} --set data.solutions=expert.parquet", 4, "expert.parquet"),
    Row("all rows bad, and skipped", write("expert.jsonl", "x\ny\n"), f"{RUN} --set data.onBadRow=skip", 4, "expert.jsonl"),
    # The store, the model, this machine.
    Row("a store below a file", nothing, f"{RUN} --set storage.uri=job.yaml/runs", 5, "cannot be written (Not a directory)"),
    Row("no such model folder", nothing, f"{RUN} --set model.id=./model", 6, "model.id: "),
    Row("a model folder without a model", folder_at("model"), f"{RUN} --set model.id=./model", 6, "holds no model files"),
    Row(
        "no such model package",
        nothing,
        f"{RUN} --set model.id=python:no-such-model",
        6,
        "python:no-such-model: the package is not installed",
    ),
]


def check(row: Row, code: int, out: str, err: str) -> None:
    lines = err.splitlines()
    assert code == row.code, err
    assert 2 <= code <= 63
    assert out == ""
    assert lines, "nothing was said"
    assert all(line.startswith("error: ") for line in lines), err
    assert row.told in lines[0], err
    assert ";" in lines[0], "no remedy"
    assert "Traceback" not in err


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_bad_input_gets_a_sentence_and_changes_nothing(row: Row, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dailctl.backends.local.LocalBackend.execute", _never if row.name != "a store below a file" else _execute())
    good_job(tmp_path)
    row.prepare(tmp_path)
    before = tree(tmp_path)
    said = dailctl(*row.argv.split(), cwd=tmp_path)
    check(row, said.code, said.out, said.err)
    assert tree(tmp_path) == before


def _never(*_: object) -> None:
    pytest.fail("a stage would have been started")


def _execute() -> Any:
    from dailctl.backends.local import LocalBackend

    return LocalBackend.execute


def test_the_table_is_as_long_as_it_claims_and_names_every_kind_of_fault() -> None:
    assert len(ROWS) >= 50
    assert {row.code for row in ROWS} == {2, 3, 4, 5, 6}
    assert len({row.name for row in ROWS}) == len(ROWS)


def test_a_run_without_the_runtime_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    good_job(tmp_path)
    before = tree(tmp_path)
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *more: None if name == "torch" else find(name, *more))
    said = dailctl("run", cwd=tmp_path)
    check(
        Row("", nothing, "", 7, "dailctl run needs torch, which this Python lacks; install it with: pip install 'dail[runtime]'"),
        *_parts(said),
    )
    assert tree(tmp_path) == before


def test_every_fault_of_a_job_file_is_told_at_once(tmp_path: Path) -> None:
    good_job(tmp_path)
    under_spec("  train: {gamma: 1, epochs: 0}\n  sead: 3\n")(tmp_path)
    said = dailctl("validate", cwd=tmp_path)
    assert said.code == 3
    assert [line.split(":")[:3] for line in said.errors] == [["error", " job.yaml", "11"]] * 2 + [["error", " job.yaml", "12"]]


@pytest.mark.parametrize("row", [row for row in ROWS if row.name in ("unknown option", "a tab", "a broken row")], ids=lambda row: row.name)
def test_a_real_process_does_the_same(row: Row, tmp_path: Path) -> None:
    good_job(tmp_path)
    row.prepare(tmp_path)
    before = tree(tmp_path)
    run = subprocess.run(
        [sys.executable, "-m", "dailctl", *row.argv.split()], cwd=tmp_path, capture_output=True, text=True, env=_plain(), check=False
    )
    check(row, run.returncode, run.stdout, run.stderr)
    assert tree(tmp_path) == before


def test_the_traceback_is_shown_on_demand_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    good_job(tmp_path)
    argv = ("run", "--set", "model.id=./none")
    assert "Traceback" not in dailctl(*argv, cwd=tmp_path).err
    for words in (("--debug", *argv), (*argv, "--debug")):
        said = dailctl(*words, cwd=tmp_path)
        assert (said.code, "Traceback" in said.err, said.errors[-1].startswith("error: model.id")) == (6, True, True)
    monkeypatch.setenv("DAIL_DEBUG", "1")
    assert "Traceback" in dailctl(*argv, cwd=tmp_path).err


def test_an_unexpected_exception_is_one_line_with_the_way_to_its_traceback(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    good_job(tmp_path)

    def fail(*_: object) -> None:
        raise ZeroDivisionError("by zero\nand more")

    monkeypatch.setattr("dailctl.runs.load_job", fail)
    said = dailctl("validate", cwd=tmp_path)
    assert (said.code, said.out) == (1, "")
    assert said.errors == ["error: unexpected ZeroDivisionError: by zero; run the same command with --debug to see where"]


def test_text_of_the_users_files_cannot_steer_the_terminal(tmp_path: Path) -> None:
    good_job(tmp_path)
    write(
        "expert.jsonl",
        json.dumps({"problem": "a", "solution": "b", "id": "\x1b[2J"})
        + "\n"
        + json.dumps({"problem": "c", "solution": "d", "id": "\x1b[2J"}),
    )(tmp_path)
    said = dailctl("validate", cwd=tmp_path)
    assert said.code == 4
    assert "\x1b" not in said.err


def _parts(said: Any) -> tuple[int, str, str]:
    return said.code, said.out, said.err


def _plain() -> dict[str, str]:
    """The environment with the repository on the path and nothing that colours."""
    drop = ("FORCE_COLOR", "DAIL_DEBUG")
    return {**{name: value for name, value in os.environ.items() if name not in drop}, "PYTHONPATH": str(Path(__file__).parents[2])}
