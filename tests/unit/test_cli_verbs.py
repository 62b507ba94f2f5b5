"""The verbs around a run: init, validate, status, report, fetch, schema, version; completion and exit codes."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

import dail_runtime
from dail_runtime import errors
from dail_runtime.spec.schema import job_schema
from dailctl import exits
from dailctl.backends.lock import hold
from tests.support.cli import Said, dailctl, tree
from tests.support.playing import FILES, REPORT, TASKS, Play, warm

SCHEMA = json.dumps(job_schema(), indent=2, ensure_ascii=False) + "\n"


@pytest.fixture
def play(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Play:
    """A job with played stages."""
    monkeypatch.setattr("dailctl.backends.local.START", warm)
    monkeypatch.setattr("dailctl.cli.run.LIBRARIES", ())
    play = Play(tmp_path)
    monkeypatch.setenv("SCRIPT", str(play.script))
    return play


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Play:
    """A finished run, for tests that only look at it."""
    play = Play(tmp_path_factory.mktemp("finished"))
    process = play.process("run")
    _, err = process.communicate(timeout=900)
    assert process.returncode == 0, err
    return play


def say(play: Play, *argv: str) -> Said:
    """Run dailctl in the folder; it must succeed."""
    said = dailctl(*argv, cwd=play.folder)
    assert said.code == 0, said.err
    return said


def cells(line: str) -> list[str]:
    """The columns of a table's line."""
    return re.split(r" {2,}", line)


def test_init_writes_a_job_that_is_valid_as_it_stands(tmp_path: Path) -> None:
    said = dailctl("init", "My Problems", "--model", "org/mo: del", cwd=tmp_path)
    assert said.code == 0, said.err
    assert said.out.splitlines() == [f"My Problems/{name}" for name in ("job.yaml", "expert.jsonl", "test.jsonl", "job.schema.json")]
    valid = dailctl("validate", "-f", "My Problems/job.yaml", "-o", "json", cwd=tmp_path)
    assert valid.code == 0, valid.err
    job = json.loads(valid.out)
    assert (job["metadata"]["name"], job["spec"]["model"]["id"]) == ("my-problems", "org/mo: del")
    assert (tmp_path / "My Problems" / "job.schema.json").read_text() == SCHEMA


def test_init_replaces_nothing_unless_forced(tmp_path: Path) -> None:
    (tmp_path / "test.jsonl").write_text("mine")
    assert dailctl("init", cwd=tmp_path).code == 2
    assert tree(tmp_path) == {"test.jsonl": b"mine"}
    assert dailctl("init", "--force", "--name", "x", cwd=tmp_path).code == 0
    assert (tmp_path / "test.jsonl").read_text() != "mine"


def test_every_line_of_the_starters_comments_is_a_valid_job_too(tmp_path: Path) -> None:
    dailctl("init", "--name", "x", cwd=tmp_path)
    text = (tmp_path / "job.yaml").read_text()
    before, after = text.split("  # variants:\n")
    block, rest = after.split("\n\n", 1)
    variants = "  variants:\n" + "\n".join(line.replace("  # ", "  ", 1) for line in block.splitlines())
    (tmp_path / "job.yaml").write_text(before + variants + "\n\n" + rest)
    said = dailctl("validate", "-o", "json", cwd=tmp_path)
    assert said.code == 0, said.err
    assert list(json.loads(said.out)["spec"]["variants"]) == ["tuned", "expert-text", "control"]


def test_validate_says_what_the_data_holds_and_writes_nothing(play: Play) -> None:
    before = tree(play.folder)
    said = say(play, "validate")
    assert [cells(line)[:4] for line in said.out.splitlines()] == [
        ["NAME", "PROBLEMS", "SOLUTIONS", "DROPPED"],
        ["solutions", "2", "2", "0"],
        ["odd", "1", "-", "0"],
        ["ordinary", "1", "-", "0"],
    ]
    assert said.err == f"job.yaml is valid: 9 tasks ({', '.join(TASKS)})\n"
    assert tree(play.folder) == before


def test_servers_that_nobody_names_are_told_by_validate_and_end_a_run_before_it_begins(play: Play) -> None:
    engine = ("--set", "rewrite.engine={kind: vllm-http}")
    before = tree(play.folder)
    said = say(play, "validate", *engine)
    assert "no server is named: start one with python -m dail_runtime.serve" in said.err
    assert "on a cluster, dailctl submit starts them" in said.err
    refused = dailctl("run", *engine, cwd=play.folder)
    assert refused.code == 7
    assert "no server is named" in refused.err
    wrong = dailctl("validate", "--set", "rewrite.engine={kind: vllm-http, servers: [gpu-7]}", cwd=play.folder)
    assert wrong.code == 3
    assert "'gpu-7' is no address of a server; write http://HOST:PORT" in wrong.err
    assert tree(play.folder) == before


def test_validate_says_what_keeps_a_job_with_an_image_from_a_cluster(play: Play) -> None:
    said = say(play, "validate", "--set", "cluster.image=localhost/dail:1")
    assert said.err.splitlines()[0].startswith("warning: A cluster cannot run this job: spec.storage.uri: ")


def test_validate_prints_the_resolved_job_which_is_a_job_file_again(play: Play) -> None:
    for form, read in (("json", json.loads), ("yaml", yaml.safe_load)):
        job: Any = read(say(play, "validate", "-o", form, "--set", "train.epochs=7").out)
        assert job["spec"]["train"]["epochs"] == 7
        assert job["spec"]["data"]["solutions"] == str(play.folder / "expert.jsonl")
        (play.folder / f"resolved.{form}").write_text(yaml.safe_dump(job))
        assert read(say(play, "validate", "-f", f"resolved.{form}", "-o", form).out) == job


def test_status_shows_the_stages_of_a_run_name_first_and_age_last(play: Play) -> None:
    waiting = [cells(line) for line in say(play, "status", "-f", "job.yaml").out.splitlines()]
    assert waiting[0] == ["NAME", "STATE", "PROGRESS", "TIME", "ATTEMPTS", "AGE"]
    assert [line[:2] for line in waiting[1:]] == [[task, "waiting"] for task in TASKS]
    play.says(train_a=["kill"])
    assert dailctl("run", cwd=play.folder).code == 137
    for argv in ((), ("-f", "job.yaml"), ("play",), ("play", "--store", str(play.folder / "runs"))):
        lines = [cells(line) for line in say(play, "status", *argv).out.splitlines()]
        assert [line[1] for line in lines[1:]] == ["done"] * 3 + ["waiting"] * 6


def test_status_lists_the_runs_and_their_state(play: Play) -> None:
    told = "no runs below ./runs; start one with dailctl run, or say with --store where they are\n"
    assert dailctl("status", "-A", cwd=play.folder) == Said(0, "", told)
    say(play, "run")
    lines = [cells(line) for line in say(play, "status", "--all").out.splitlines()]
    assert lines[0] == ["NAME", "STATE", "DONE", "NOW", "TIME", "AGE"]
    assert lines[1][:4] == ["play", "done", "9/9", "-"]
    assert say(play, "status", "-A", "-o", "name").out == "play\n"
    wide = [cells(line) for line in say(play, "status", "-A", "-o", "wide").out.splitlines()]
    (play.folder / "job.yaml").unlink()
    assert cells(say(play, "status").out.splitlines()[1])[:2] == ["play", "done"]
    assert wide[1][-3:-1] == ["yes", (play.folder / "runs" / "play").as_uri()]


def test_status_is_the_same_data_for_programs(finished: Play) -> None:
    one = json.loads(say(finished, "status", "play", "-o", "json").out)
    assert (one["name"], one["state"], one["done"], one["total"]) == ("play", "done", 9, 9)
    assert [task["name"] for task in one["tasks"]] == list(TASKS)
    assert yaml.safe_load(say(finished, "status", "-A", "-o", "yaml").out)["items"] == [one]
    assert json.loads(say(finished, "status", "-o", "json").out) == one
    assert say(finished, "status", "play", "-o", "name").out.split() == list(TASKS)


def test_a_run_is_shown_as_it_was_started_whatever_became_of_its_job_file(play: Play) -> None:
    job = (play.folder / "job.yaml").read_text()
    (play.folder / "job.yaml").write_text(job + "  train: {epochs: 7}\n")
    play.says()
    (play.folder / "job.yaml").write_text(job)
    said = say(play, "run", "--set", "train.epochs=7")
    (play.folder / "expert.jsonl").unlink()
    assert json.loads(say(play, "status", "-f", "job.yaml", "-o", "json").out)["state"] == "done"
    assert say(play, "report").out == said.out


def test_status_tells_a_run_at_work_from_one_that_was_killed(play: Play) -> None:
    root = play.run.root
    task = play.run.tasks[1]
    attempt = {"number": 1, "started": "2026-01-01T00:00:00Z", "seconds": 61, "progress": {"done": 40, "total": 300, "unit": "problems"}}
    root.put(f"{task.prefix}/_attempts/0001.json", json.dumps(attempt).encode())
    line = cells(say(play, "status", "-f", "job.yaml").out.splitlines()[2])
    assert line[:5] == ["rewrite/a", "interrupted", "40/300 problems", "1m01s", "1"]
    with hold(root, lambda: None):
        line = cells(say(play, "status", "-f", "job.yaml").out.splitlines()[2])
    assert line[:2] == ["rewrite/a", "running"]


def test_report_prints_the_result_again(finished: Play) -> None:
    said = say(finished, "report", "play").out
    assert said.startswith("odd: 30 problems")
    assert said.endswith(f"a beats base by 12.0 points.\nreport: {finished.root}/report.html\n")
    assert say(finished, "report").out == said
    assert json.loads(say(finished, "report", "-o", "json").out) == REPORT
    assert say(finished, "report", "-o", "name").out == f"{finished.root}/report.html\n"


def test_report_opens_the_browser_on_demand(finished: Play, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    monkeypatch.setattr("webbrowser.open", lambda url: opened.append(url) or len(opened) == 1)
    assert say(finished, "report", "--open").err == ""
    assert opened == [(finished.root / "report.html").as_uri()]
    assert "no browser could be started; open " in say(finished, "report", "--open").err


def test_the_report_of_an_earlier_job_is_found_where_a_later_one_has_the_runs_root(play: Play) -> None:
    say(play, "run")
    (play.root / "report.html").write_text("<p>of a later job</p>")
    prefix = play.run.task("report").prefix
    assert say(play, "report", "-o", "name").out == f"{play.root}/{prefix}/report.html\n"


def test_fetch_brings_adapters_and_report_checked_and_a_second_time_nothing(finished: Play) -> None:
    said = say(finished, "fetch", "play")
    wanted = [
        "a/adapter/adapter_config.json",
        "a/adapter/adapter_model.safetensors",
        "b/adapter/adapter_config.json",
        "report.html",
        "report.json",
    ]
    assert sorted(said.out.splitlines()) == [f"play/{name}" for name in wanted]
    assert (finished.folder / "play/a/adapter/adapter_model.safetensors").read_text() == "weights"
    assert said.errors[-1].startswith("fetched 5 files (")
    (finished.folder / "play/report.html").unlink()
    again = say(finished, "fetch", "play")
    assert again.out == said.out
    assert re.fullmatch(r"fetched 1 files \(.* in all\), 4 were there already", again.errors[-1])


@pytest.mark.parametrize(
    ("argv", "files"),
    [
        (["--what", "model"], ["a/model/config.json", "b/model/config.json"]),
        (["--what", "traces", "--variant", "a"], ["a/kept.jsonl", "a/verdicts.jsonl"]),
        (["--what", "adapter", "--variant", "b"], ["b/adapter/adapter_config.json"]),
        (["--what", "report"], ["report.html", "report.json"]),
    ],
)
def test_fetch_brings_what_is_named_where_it_is_named(finished: Play, tmp_path: Path, argv: list[str], files: list[str]) -> None:
    said = say(finished, "fetch", "-f", "job.yaml", *argv, "--to", str(tmp_path))
    assert sorted(said.out.splitlines()) == [f"{tmp_path}/{name}" for name in files]
    assert sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()) == files


def test_fetch_replaces_no_other_file_unless_forced(play: Play) -> None:
    say(play, "run")
    (play.folder / "play").mkdir()
    (play.folder / "play/report.html").write_text("mine")
    said = dailctl("fetch", "play", cwd=play.folder)
    assert (said.code, said.out) == (2, "")
    assert "play/report.html is there with other content; fetch into another folder with --to" in said.err
    assert [path.name for path in (play.folder / "play").rglob("*")] == ["report.html"]
    say(play, "fetch", "play", "--force")
    assert (play.folder / "play/report.html").read_text() == FILES["report"]["report.html"]


def test_fetch_refuses_what_differs_from_the_manifest(play: Play) -> None:
    say(play, "run")
    stored = play.root / play.run.tasks[3].prefix / "adapter/adapter_model.safetensors"
    stored.write_text("weightz")
    said = dailctl("fetch", "play", cwd=play.folder)
    assert said.code == 65
    assert "adapter/adapter_model.safetensors is not what its manifest lists" in said.err
    assert not (play.folder / "play/a/adapter/adapter_model.safetensors").exists()


def test_fetch_writes_nothing_outside_its_folder(play: Play) -> None:
    say(play, "run")
    manifest = play.root / play.run.tasks[-1].prefix / "_manifest.json"
    manifest.write_text(manifest.read_text().replace('"report.json"', '"../../out.json"'))
    said = dailctl("fetch", "play", "--what", "report", cwd=play.folder)
    assert (said.code, "leads out of play" in said.err) == (65, True)
    assert not (play.folder / "play").exists()


def test_fetch_says_what_stands_in_its_way(play: Play) -> None:
    say(play, "run")
    (play.folder / "play/report.html").mkdir(parents=True)
    said = dailctl("fetch", "play", "--what", "report", "--force", cwd=play.folder)
    assert said.code == 2
    assert said.errors == [
        "error: play/report.html: there already, and no file that can be read (Is a directory); choose another folder with --to"
    ]
    assert tree(play.folder / "play") == {"report.html": None}


def test_fetch_follows_the_users_own_links(play: Play) -> None:
    say(play, "run")
    (play.folder / "elsewhere").mkdir()
    (play.folder / "play").mkdir()
    (play.folder / "play/a").symlink_to("../elsewhere")
    assert dailctl("fetch", "play", "--variant", "a", cwd=play.folder).code == 0
    assert (play.folder / "elsewhere/adapter/adapter_model.safetensors").is_file()


def test_schema_goes_to_standard_output_or_a_file(tmp_path: Path) -> None:
    assert dailctl("schema").out == SCHEMA
    assert dailctl("schema", "--to", "s.json", cwd=tmp_path).code == 0
    assert (tmp_path / "s.json").read_text() == SCHEMA


def test_version_names_dail_first_and_is_readable_by_programs() -> None:
    assert dailctl("version").out.startswith(f"dail {dail_runtime.__version__}\npython 3.")
    found = json.loads(dailctl("version", "-o", "json").out)
    assert found["dail"] == dail_runtime.__version__
    assert yaml.safe_load(dailctl("version", "-o", "yaml").out) == found


def test_help_lists_every_verb_and_every_exit_code() -> None:
    said = dailctl("--help")
    assert (said.code, dailctl().out) == (0, said.out)
    for verb in ("init", "validate", "run", "status", "report", "fetch", "schema", "version"):
        assert re.search(rf"^  {verb} +[A-Z]", said.out, re.MULTILINE), verb
        assert dailctl(verb, "-h").out.startswith(f"Usage: dailctl {verb} ")
    for code, meaning in exits.exit_codes():
        assert re.search(rf"^ +{re.escape(code)}  {re.escape(meaning)}$", said.out, re.MULTILINE)


def test_the_table_of_exit_codes_is_complete_and_its_document_is_current() -> None:
    codes = {code for code, _ in exits.exit_codes()}
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.DailError)]
    assert {str(kind.exit_code) for kind in kinds} <= codes
    document = Path(__file__).parents[2] / "docs" / "exit-codes.md"
    assert document.read_text() == exits.as_markdown(), "run python -m dailctl.exits > docs/exit-codes.md"


@pytest.mark.parametrize(
    ("words", "expected"),
    [("dailctl sta", ["status"]), ("dailctl run --from ", ["prepare", "rewrite", "train"]), ("dailctl status pl", ["play"])],
)
def test_the_shell_completes_verbs_stages_and_names(play: Play, words: str, expected: list[str]) -> None:
    (play.root / "latest.json").parent.mkdir(parents=True)
    (play.root / "latest.json").write_text("{}")
    environment = {"_DAILCTL_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(words.count(" ")), "HOME": str(play.folder)}
    process = play.process(**environment)
    out, err = process.communicate(timeout=900)
    assert set(expected) <= set(out.split()), err


@pytest.mark.parametrize("variables", [{}, {"FORCE_COLOR": "1"}, {"FORCE_COLOR": "1", "NO_COLOR": "1"}])
def test_errors_are_red_only_where_color_is_wanted(play: Play, variables: dict[str, str]) -> None:
    _, err = play.process("status", "nobody", **variables).communicate(timeout=900)
    assert err.startswith("\x1b[31merror: ") == (variables == {"FORCE_COLOR": "1"})


def test_a_folder_that_was_removed_under_the_shell_is_a_sentence(tmp_path: Path) -> None:
    code = "import os, sys; os.rmdir(os.getcwd()); from dailctl.cli.main import main; sys.exit(main(['status', '-A']))"
    (tmp_path / "gone").mkdir()
    environment = {"PYTHONPATH": str(Path(__file__).parents[2]), "PATH": "/usr/bin:/bin"}
    run = subprocess.run([sys.executable, "-c", code], cwd=tmp_path / "gone", capture_output=True, text=True, env=environment)
    assert (run.returncode, run.stderr) == (2, "error: the folder that this shell is in was removed; change into one that exists\n")


@pytest.mark.parametrize("verb", ["version", "schema"])
def test_output_that_finds_no_room_is_a_sentence(verb: str) -> None:
    environment = {"PYTHONPATH": str(Path(__file__).parents[2]), "PATH": "/usr/bin:/bin"}
    with Path("/dev/full").open("wb") as full:
        run = subprocess.run([sys.executable, "-m", "dailctl", verb], stdout=full, stderr=subprocess.PIPE, text=True, env=environment)
    assert (run.returncode, run.stderr) == (
        2,
        "error: standard output cannot be written (No space left on device); make room there, or let it lead elsewhere\n",
    )


@pytest.mark.parametrize("verb", ["version", "schema", "--help"])
def test_a_reader_that_goes_away_is_no_error(verb: str) -> None:
    # It went before anything was written; what `version` prints fits into a buffer until the end.
    reader, writer = os.pipe()
    os.close(reader)
    environment = {"PYTHONPATH": str(Path(__file__).parents[2]), "PATH": "/usr/bin:/bin"}
    command = [sys.executable, "-m", "dailctl", verb]
    with open(writer, "wb") as output:  # noqa: PTH123
        run = subprocess.run(command, stdout=output, stderr=subprocess.PIPE, text=True, env=environment)
    assert (run.returncode, run.stderr) == (exits.OUTPUT_CLOSED, "")
