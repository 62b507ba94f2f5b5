"""`dailctl run` as a person has it: what it prints, how it ends, how it goes on."""

from __future__ import annotations

import os
import pty
import re
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.cli import Said, dailctl
from tests.support.playing import TASKS, Play, warm

LONG = 900.0
"""Seconds in which whatever is waited for here has happened on any machine."""


@pytest.fixture
def play(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Play:
    """A job with played stages, for dailctl in this process."""
    monkeypatch.setattr("dailctl.backends.local.START", warm)
    monkeypatch.setattr("dailctl.backends.local.WAITS", ())
    monkeypatch.setattr("dailctl.cli.run.LIBRARIES", ())
    play = Play(tmp_path)
    monkeypatch.setenv("SCRIPT", str(play.script))
    return play


def run(play: Play, *argv: str) -> Said:
    """`dailctl run` in the folder."""
    return dailctl("run", *argv, cwd=play.folder)


def test_a_run_ends_with_the_tables_the_verdict_and_the_path_as_the_last_line(play: Play) -> None:
    said = run(play)
    assert said.code == 0, said.err
    lines = said.out.splitlines()
    assert lines[0] == "odd: 30 problems, 8 samples each; pass@k in % with 95% intervals"
    assert re.split(r" {3,}", lines[1]) == ["NAME", "PASS@1", "PASS@2", "PASS@4", "PASS@8", "TOKENS", "UNPARSED"]
    assert re.split(r" {3,}", lines[3]) == ["a", "25.0 [12.5, 100.0]", *["50.0 [25.0, 100.0]", *["100.0 [50.0, 100.0]"] * 2], "25", "1.5%"]
    assert lines[5].startswith("ordinary: ")
    assert lines[-2] == "a beats base by 12.0 points."
    assert lines[-1] == f"report: {play.root}/report.html"
    assert (play.root / "report.html").read_text() == "<p>report</p>"
    assert (play.root / "report.json").exists()


def test_a_second_run_does_nothing_and_says_the_same(play: Play) -> None:
    first, second = run(play), run(play)
    assert play.started == list(TASKS)
    assert second.out == first.out


def test_from_and_force_run_again_what_they_name(play: Play) -> None:
    run(play)
    assert run(play, "--from", "evaluate/b").code == 0
    assert play.started == [*TASKS, "evaluate/b", "report"]
    assert run(play, "--force").code == 0
    assert play.started == [*TASKS, "evaluate/b", "report", *TASKS]


def test_an_override_is_another_job_and_shares_what_it_does_not_touch(play: Play) -> None:
    run(play)
    # Written for the plan of the changed job, so that the played stages find their prefixes.
    (play.folder / "job.yaml").write_text((play.folder / "job.yaml").read_text() + "  train: {epochs: 7}\n")
    play.says()
    assert run(play, "--set", "train.epochs=7").code == 0
    assert play.started == [*TASKS, "train/a", "train/b", "evaluate/a", "evaluate/b", "report"]


def test_a_failed_stage_is_one_line_and_the_next_run_goes_on_there(play: Play) -> None:
    play.says(train_b=["kill", "ok"])
    said = run(play)
    assert (said.code, said.out) == (137, "")
    assert said.errors[-1].startswith("error: train/b: the stage was killed by SIGKILL (signal 9), most likely because memory ran out; ")
    assert run(play).code == 0
    assert play.started == [*TASKS[:5], *TASKS[4:]]


def test_bad_data_is_found_before_the_store_is_touched_but_not_read_again_later(play: Play) -> None:
    run(play)
    content = (play.folder / "expert.jsonl").read_text()
    (play.folder / "expert.jsonl").write_text(content + "nonsense\n")
    before = sorted(path.name for path in play.root.rglob("*"))
    assert run(play).code == 4
    assert sorted(path.name for path in play.root.rglob("*")) == before


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_stopped_run_says_how_to_go_on(tmp_path: Path, number: signal.Signals, code: int) -> None:
    play = Play(tmp_path)
    play.says(rewrite_a=["wait", "ok"])
    process = play.process("run", "-f", "job.yaml", "--set", "seed=0", "--from", "rewrite")
    with process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert any("rewrite/a: 1/4 problems" in line for line in process.stderr), "all that the stage says before it waits"
        process.send_signal(number)
        told, out = process.stderr.read(), process.stdout.read()
    assert (process.returncode, out) == (code, "")
    assert told.splitlines() == [
        "[2/9] rewrite/a: stopping: waiting until the stage has saved (once more, and it is killed)",
        f"stopped by {number.name} at rewrite/a; everything finished so far is saved; go on with: dailctl run -f job.yaml --set seed=0",
    ]
    again = play.process("run", "-f", "job.yaml", "--set", "seed=0")
    assert again.communicate(timeout=LONG)[0].endswith("report.html\n")
    assert play.started == ["prepare", "rewrite/a", *TASKS[1:]]


def on_a_terminal(play: Play, look: Callable[[str], object] = len, **environment: str) -> tuple[str, str]:
    """Standard output of `dailctl run`, and what a terminal gets as its standard error; `look` gets all that is shown as it comes."""
    ours, theirs = pty.openpty()
    process = play.process("run", stderr=theirs, COLUMNS="160", **environment)
    os.close(theirs)
    got = b""
    while True:
        try:
            piece = os.read(ours, 65536)
        except OSError:  # Linux says EIO where the last writer of a terminal is gone.
            break
        if not piece:
            break
        got += piece
        look(got.decode(errors="replace"))
    os.close(ours)
    out, _ = process.communicate(timeout=LONG)
    assert process.returncode == 0, got
    return out, got.decode()


def test_a_terminal_gets_a_live_bar_and_standard_output_stays_plain(tmp_path: Path) -> None:
    play = Play(tmp_path)
    go_on = tmp_path / "go on"
    play.says(train_a=[f"until:{go_on}"])

    def look(shown: str) -> None:
        # The bar is drawn some times a second, on a machine that has the time: the stage waits until it was.
        if re.search(r"\[4/9\] train/a .*2/4 problems {2}1 234 tokens/s .*s left", shown):
            go_on.touch()

    out, err = on_a_terminal(play, look, TERM="xterm-256color")
    assert "\x1b" not in out
    assert re.search(r"[━╸╺]{10}", err)
    assert "[4/9] train/a: done in 0.1s" in err


def test_a_terminal_that_closes_does_not_end_the_run(tmp_path: Path) -> None:
    play = Play(tmp_path)
    go_on = tmp_path / "go on"
    play.says(rewrite_a=[f"until:{go_on}"])
    ours, theirs = pty.openpty()
    process = play.process("run", stderr=theirs, TERM="xterm-256color")
    os.close(theirs)
    while "rewrite/a" not in play.started:
        time.sleep(0.05)
        os.read(ours, 65536)
    os.close(ours)
    go_on.touch()
    out, _ = process.communicate(timeout=LONG)
    assert process.returncode == 0
    assert out.endswith("report.html\n")


def test_a_dumb_terminal_gets_plain_lines(tmp_path: Path) -> None:
    out, err = on_a_terminal(Play(tmp_path), TERM="dumb")
    assert "\x1b" not in out + err
    assert "[4/9] train/a: 1/4 problems, 1 234 tokens/s\r\n[4/9] train/a: all is well\r\n" in err


def test_no_color_leaves_the_bar_without_colors(tmp_path: Path) -> None:
    _, err = on_a_terminal(Play(tmp_path), TERM="xterm-256color", NO_COLOR="1")
    assert not re.search(r"\x1b\[[0-9;]*3[0-9]", err)
