"""`dailctl render`: the same objects in every form, files for Git that keep their names, and refusals in a sentence."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from dailctl.render.chart import render as render_values
from tests.support.cli import dailctl, tree

ROW = '{"problem": "1+1?", "solution": "It is \\\\boxed{2}."}\n'
JOB = """\
apiVersion: dail/v1alpha1
kind: DailJob
metadata: {name: one}
spec:
  model: {id: Qwen/Qwen2.5-0.5B-Instruct}
  data: {solutions: x.jsonl}
  storage: {uri: "s3://bucket/runs"}
  cluster: {image: "registry.example.org/dail@sha256:SHA", namespace: research}
""".replace("SHA", "a" * 64)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "job.yaml").write_text(JOB)
    (tmp_path / "x.jsonl").write_text(ROW)
    return tmp_path


def test_every_form_holds_the_same_objects(folder: Path) -> None:
    said = dailctl("render", cwd=folder)
    assert said.code == 0, said.err
    objects = list(yaml.safe_load_all(said.out))
    assert json.loads(dailctl("render", "-o", "json", cwd=folder).out)["items"] == objects
    names = dailctl("render", "-o", "name", cwd=folder).out.splitlines()
    assert names == [f"{one['kind'].lower()}/{one['metadata']['name']}" for one in objects]
    values = yaml.safe_load(dailctl("render", "-o", "values", cwd=folder).out)
    assert render_values(values, "research") == objects
    assert {one["metadata"]["namespace"] for one in objects} == {"research"}
    assert objects[0]["kind"] == "ConfigMap"
    assert objects[-1]["kind"] == "Job"


def test_names_go_by_content(folder: Path) -> None:
    first = dailctl("render", "-o", "name", cwd=folder).out
    assert dailctl("render", "-o", "name", cwd=folder).out == first
    assert dailctl("render", "-o", "name", "--set", "seed=1", cwd=folder).out != first
    assert dailctl("render", "-o", "name", "-n", "elsewhere", cwd=folder).out == first
    (folder / "x.jsonl").write_text(ROW + ROW.replace("1+1", "2+2"))
    assert dailctl("render", "-o", "name", cwd=folder).out != first


def test_a_moved_folder_renders_the_same(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    other = tmp_path_factory.mktemp("other")
    for name in ("job.yaml", "x.jsonl"):
        (other / name).write_bytes((folder / name).read_bytes())
    assert dailctl("render", cwd=other).out == dailctl("render", cwd=folder).out
    assert str(folder) not in dailctl("render", cwd=folder).out


def test_files_for_git_keep_their_names_when_the_job_changes(folder: Path) -> None:
    out = folder / "git"
    said = dailctl("render", "--to", out, cwd=folder)
    assert (said.code, said.out) == (0, "")
    first = tree(out)
    assert sorted(first) == [
        "job-conductor.yaml",
        "kustomization.yaml",
        "networkpolicy.yaml",
        "record.yaml",
        "role.yaml",
        "rolebinding.yaml",
        "serviceaccount.yaml",
    ]
    assert yaml.safe_load(first["kustomization.yaml"] or b"")["resources"][0] == "record.yaml"
    dailctl("render", "--to", out, cwd=folder)
    assert tree(out) == first
    (out / "mine.yaml").write_text("kind: Mine\n")
    dailctl("render", "--to", out, "--set", "cluster.networkPolicy=false", cwd=folder)
    assert sorted(tree(out)) == sorted((set(first) - {"networkpolicy.yaml"}) | {"mine.yaml"})
    assert first["record.yaml"] != tree(out)["record.yaml"]


def test_local_data_is_told_and_a_moving_tag_is_warned_of(folder: Path) -> None:
    said = dailctl("render", "--set", "cluster.image=registry.example.org/dail:latest", cwd=folder)
    assert said.code == 0
    assert any(line.startswith("warning: spec.cluster.image: registry.example.org/dail:latest has no digest") for line in said.errors)
    assert any("x.jsonl" in line and "--upload" in line for line in said.errors)


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (("--set", "storage.uri=./runs"), 3, "spec.storage.uri: "),
        (("--set", "cluster.image=null"), 3, "spec.cluster.image: is missing"),
        (("-n", "Not_One"), 2, "--namespace: 'Not_One' cannot be the name of a namespace"),
        (("--to", "/dev/null/x"), 2, "cannot be written"),
        (("-o", "table"), 2, "is not one of"),
        (("-f", "nowhere.yaml"), 3, "there is no such file"),
    ],
)
def test_bad_input_is_one_sentence(folder: Path, words: tuple[str, ...], code: int, told: str) -> None:
    before = tree(folder)
    said = dailctl("render", *words, cwd=folder)
    assert said.code == code
    assert told in said.err
    assert said.out == ""
    assert "Traceback" not in said.err
    assert tree(folder) == before


def test_ctrl_c_is_honoured_after_helms_library_was_loaded(folder: Path) -> None:
    script = (
        "import pathlib, sys, time\nfrom dailctl.cli.main import main\nfrom dailctl import output\n"
        "output.data = lambda text: (print('rendered', file=sys.stderr, flush=True), time.sleep(900))\n"
        "sys.exit(main(['render']))\n"
    )
    command = [sys.executable, "-c", script]
    with subprocess.Popen(command, cwd=folder, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        while "rendered" not in process.stderr.readline():
            assert process.poll() is None
        # Where it is not heard, the command ends well, much later.
        process.send_signal(signal.SIGINT)
        assert process.wait() == 130
