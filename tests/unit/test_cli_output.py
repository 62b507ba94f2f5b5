"""How dailctl prints: tables, durations, ages, progress lines and estimates."""

from __future__ import annotations

import io
import json
import string
from datetime import UTC, datetime, timedelta

import pytest
import yaml

from dailctl import output
from dailctl.progress import Eta, View
from dailctl.summary import models_table


class Clock:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_table_has_aligned_columns_and_nothing_at_its_lines_ends() -> None:
    assert (
        output.table(["NAME", "AGE"], [["a-long-name", "5m"], ["b", "12d"]]) == "NAME          AGE\na-long-name   5m\nb             12d\n"
    )


def test_a_cell_cannot_break_its_line_or_steer_the_terminal() -> None:
    assert output.table(["ERROR"], [["one\ntwo\x1b[31m"]]) == "ERROR\none two\\x1b[31m\n"


STEERING = "\x1b]0;title\x07 \x9b2J \x7f \u202egpj.exe\u2066 \u200f"


def test_neither_controls_nor_the_direction_of_writing_reach_a_terminal() -> None:
    assert output.printable(STEERING) == r"\x1b]0;title\x07 \x9b2J \x7f \u202egpj.exe\u2066 \u200f"
    assert output.printable("naïve 你好 👩‍🔬\n\t") == "naïve 你好 👩‍🔬\n\t"


@pytest.mark.parametrize("form", list(output.Document))
def test_documents_hold_every_character_and_steer_no_terminal(form: output.Document, capsys: pytest.CaptureFixture[str]) -> None:
    value = {"message": STEERING, "name": "你好"}
    output.document(value, form)
    said = capsys.readouterr().out
    assert not set(said) & set(STEERING.replace(" ", "")) - set(string.printable)
    assert (json.loads if form is output.Document.JSON else yaml.safe_load)(said) == value
    output.document({"name": "你好"}, form)
    assert "你好" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("seconds", "told"),
    [(0, "0.0s"), (9.94, "9.9s"), (9.96, "10s"), (59.4, "59s"), (59.6, "1m00s"), (190, "3m10s"), (7500, "2h05m"), (273600, "3d4h")],
)
def test_durations_read_as_people_say_them(seconds: float, told: str) -> None:
    assert output.duration(seconds) == told


@pytest.mark.parametrize(("seconds", "told"), [(5, "5s"), (119, "119s"), (121, "2m"), (7199, "119m"), (7201, "2h"), (200_000, "2d")])
def test_ages_read_as_kubectl_has_them(seconds: float, told: str) -> None:
    now = datetime.now(UTC)
    assert output.age(now - timedelta(seconds=seconds), now) == told


def test_an_age_that_never_began_or_lies_ahead_is_told_too() -> None:
    assert output.age(None) == "-"
    assert output.age(datetime.now(UTC) + timedelta(hours=1)) == "0s"


@pytest.mark.parametrize(("count", "told"), [(0, "0 B"), (999, "999 B"), (4200, "4.2 kB"), (3.1e9, "3.1 GB"), (5e15, "5000.0 TB")])
def test_sizes_read_as_people_say_them(count: float, told: str) -> None:
    assert output.size(count) == told


def test_a_terminal_that_cannot_show_a_character_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    buffer = io.BytesIO()
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(buffer, encoding="ascii", write_through=True))
    output.tolerant_streams()
    output.data("Σ")
    assert buffer.getvalue() == b"\\u03a3\n"


def test_a_terminal_that_is_gone_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    closed = io.StringIO()
    closed.close()
    monkeypatch.setattr("sys.stderr", closed)
    output.talk("still here")


def test_the_estimate_counts_only_what_this_attempt_did() -> None:
    clock = Clock()
    eta = Eta(clock)
    assert eta.left(80, 100) is None  # An earlier attempt did these 80.
    clock.now += 10
    assert eta.left(85, 100) == 30
    clock.now += 10
    assert eta.left(100, 100) == 0


def test_the_estimate_begins_anew_where_the_count_does() -> None:
    clock = Clock()
    eta = Eta(clock)
    eta.left(50, 100)
    clock.now += 10
    assert eta.left(0, 10) is None
    clock.now += 5
    assert eta.left(5, 10) == 5


def test_plain_progress_speaks_at_first_and_then_every_ten_seconds(capsys: pytest.CaptureFixture[str]) -> None:
    clock = Clock()
    view = View(clock)
    view.task("rewrite/a", 2, 14)
    view.started(1)
    for second in range(21):
        clock.now = 100 + second
        view.progress(second, 4000, "problems", {"tokens_per_s": 1234.4, "loss": 0.41234})
    view.done(190, {"problems": 4000, "accept_rate": 0.8412, "merged": 0, "dropped": {"prompt_too_long": 3, "none": 0}, "notes": ["x"]})
    assert capsys.readouterr().err.splitlines() == [
        "[ 2/14] rewrite/a: started",
        "[ 2/14] rewrite/a: 0/4 000 problems, 1 234 tokens/s, loss 0.412",
        "[ 2/14] rewrite/a: 10/4 000 problems, 1 234 tokens/s, loss 0.412, 1h06m left",
        "[ 2/14] rewrite/a: 20/4 000 problems, 1 234 tokens/s, loss 0.412, 1h06m left",
        "[ 2/14] rewrite/a: done in 3m10s: 4 000 problems, accept rate 0.841, 3 dropped (prompt too long)",
    ]


def test_a_resumed_task_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    view = View()
    view.task("train/a", 3, 9)
    view.started(2)
    assert capsys.readouterr().err == "[3/9] train/a: goes on (attempt 2)\n"


def test_a_wide_range_of_k_is_shown_by_four_of_them_or_by_all() -> None:
    passed = {str(2**i): {"value": 0.1, "low": 0.05, "high": 0.2} for i in range(8)}
    models = {"base": {"passAt": passed, "meanTokens": 10, "unparsed": 0}}
    assert models_table(models).splitlines()[0].split()[1:-2] == ["PASS@1", "PASS@4", "PASS@32", "PASS@128"]
    assert models_table(models, every_k=True).splitlines()[0].count("PASS@") == 8
