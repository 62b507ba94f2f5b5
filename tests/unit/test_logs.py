"""Logs: which task and pod is meant, and what a person sees of a line."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dail_runtime.errors import UsageError
from dailctl.cli.logs import since_time
from dailctl.observe.logs.choose import Wanted, archived, chosen_pods, chosen_task
from dailctl.observe.logs.lines import readable, unseen, unstamped
from dailctl.observe.logs.stored import shown_lines
from tests.golden.tables import a_run
from tests.support.recorded import pod


def names(pods: list[dict]) -> list[str]:
    return [one["metadata"]["name"] for one in pods]


def rank(kind: str, index: int) -> dict:
    one = pod(f"r-train-{kind}-{index}")
    one["metadata"]["labels"] |= {"training.kubeflow.org/replica-type": kind, "training.kubeflow.org/replica-index": str(index)}
    return one


def test_a_log_goes_on_where_it_was_whatever_a_nodes_clock_does() -> None:
    set_back = [("10:00:01", "a"), ("10:00:02", "b"), ("09:59:00", "c"), ("09:59:01", "d")]
    assert [text for _, text in unseen(set_back, "")] == ["a", "b", "c", "d"]
    # Taken up again after "b", which came last.
    assert [text for _, text in unseen([set_back[1], ("10:00:03", "e"), set_back[2]], "10:00:02")] == ["e", "c"]


RANKS = [rank("worker", 10), rank("worker", 0), rank("master", 0), rank("worker", 9)]
SERVED = [pod("r-rewrite-b", component="server"), pod("r-rewrite-driver", component="driver"), pod("r-rewrite-a", component="server")]


@pytest.mark.parametrize(
    ("pods", "replica", "expected"),
    [
        (RANKS, None, ["r-train-master-0"]),
        (RANKS, "0", ["r-train-master-0"]),
        (RANKS, "2", ["r-train-worker-9"]),
        (RANKS, "3", ["r-train-worker-10"]),
        (RANKS, "4", []),
        (RANKS, "r-train-worker-9", ["r-train-worker-9"]),
        (SERVED, None, ["r-rewrite-driver"]),
        (SERVED, "0", ["r-rewrite-a"]),
        (SERVED, "1", ["r-rewrite-b"]),
        (SERVED, "all", ["r-rewrite-a", "r-rewrite-b", "r-rewrite-driver"]),
        (SERVED, "../x", []),
    ],
)
def test_the_pods_that_are_meant(pods: list[dict], replica: str | None, expected: list[str]) -> None:
    assert names(chosen_pods(pods, replica)) == expected


KEYS = [
    "attempt-1/r-train-master-0.pytorch.log",
    "attempt-2/r-train-worker-10.pytorch.log",
    "attempt-2/r-train-worker-9.pytorch.log",
    "attempt-2/r-train-master-0.pytorch.log",
    "attempt-10/r-train-master-0.pytorch.log",
]
SERVER_KEYS = ["attempt-1/a.server.log", "attempt-1/a.server.restart-0.log", "attempt-1/b.server.log", "attempt-1/d.stage.log"]


@pytest.mark.parametrize(
    ("keys", "replica", "attempt", "previous", "expected"),
    [
        (KEYS, None, None, False, KEYS[4:]),
        (KEYS, None, None, True, [KEYS[3]]),
        (KEYS, "1", 2, False, [KEYS[2]]),
        (KEYS, "2", 2, False, [KEYS[1]]),
        (KEYS, None, 1, True, []),
        (SERVER_KEYS, None, None, False, [SERVER_KEYS[3]]),
        (SERVER_KEYS, "0", None, False, SERVER_KEYS[:2]),
        (SERVER_KEYS, "1", None, False, [SERVER_KEYS[2]]),
        (SERVER_KEYS, "all", None, False, SERVER_KEYS),
        ([], None, None, False, []),
    ],
)
def test_the_archived_logs_that_are_meant(
    keys: list[str], replica: str | None, attempt: int | None, previous: bool, expected: list[str]
) -> None:
    assert archived(keys, replica, attempt, previous=previous) == expected


def test_the_task_that_is_meant() -> None:
    held = a_run()
    assert chosen_task(held, None) == "rewrite/tuned"
    assert [chosen_task(held, one) for one in ("prepare", "train", "train/tuned", "train-tuned", "conductor")] == [
        *("prepare", "train/tuned", "train/tuned", "train/tuned", "conductor")
    ]
    with pytest.raises(UsageError, match=r"has no task or stage 'nope': prepare, .*conductor"):
        chosen_task(held, "nope")


def test_events_become_sentences() -> None:
    progress = {"event": "progress", "done": 901, "total": 1000, "unit": "problems", "figures": {"tokens_per_s": 1234.0}}
    assert readable('{"event": "start", "task": "rewrite", "attempt": 2}') == "rewrite: attempt 2 started"
    assert readable(json.dumps(progress)) == "901/1 000 problems, 1 234 tokens/s"
    assert readable('{"event": "error", "kind": "DataError", "message": "no rows", "exit": 4}') == "error: no rows (exit code 4)"
    assert readable("an ordinary line") == "an ordinary line"
    assert readable('{"event": "progress", "done": "x"}') == '{"event": "progress", "done": "x"}'
    assert readable('{"event": broken') == '{"event": broken'


@pytest.mark.parametrize(
    "line",
    [
        '{"event": "done", "seconds": "x"}',
        '{"event": "done", "seconds": Infinity}',
        '{"event": "progress", "done": NaN, "total": 1}',
        '{"event": "progress", "done": 1e999, "total": 1, "unit": "x"}',
        '{"event": "progress", "done": 1, "total": 2, "figures": [1]}',
        '{"event": "progress", "done": 1, "total": 2, "figures": {"tokens_per_s": NaN}}',
        '{"event": "error"}',
        '{"event": ["x"]}',
        '{"event": ' + "[" * 5000,
    ],
)
def test_what_only_looks_like_an_event_is_shown_as_it_is(line: str) -> None:
    assert readable(line).startswith('{"event": ')


@given(
    st.dictionaries(
        st.sampled_from([*("done", "total", "unit", "figures", "seconds", "message", "exit", "sentence", "task", "attempt")]),
        st.recursive(
            st.none() | st.floats() | st.text(), lambda one: st.lists(one, max_size=2) | st.dictionaries(st.text(), one, max_size=2)
        ),
    )
)
def test_no_event_ends_logs(fields: dict) -> None:
    for word in ("start", "say", "skipped", "done", "error", "progress", "other"):
        assert "\n" not in readable(json.dumps({"event": word, **fields}))


def test_a_terminal_does_not_obey_a_log_and_progress_bars_show_their_last_state() -> None:
    assert readable("\x1b]0;owned\x07 10%\r 90%\r") == " 90%"
    assert readable("\x1b[2Jcleared") == "\\x1b[2Jcleared"
    assert readable("\x1b[2Jcleared", raw=True) == "\x1b[2Jcleared"
    assert readable(json.dumps({"event": "say", "sentence": "\x1b[31mred"})) == "\\x1b[31mred"


def test_the_time_that_the_api_puts_before_a_line_is_taken_off() -> None:
    assert unstamped(b"2026-11-24T08:00:00.123456789Z hello there") == ("2026-11-24T08:00:00.123456789Z", "hello there")
    assert unstamped(b"2026-11-24T08:00:00Z ") == ("2026-11-24T08:00:00Z", "")
    assert unstamped(b"no time \xff") == ("", "no time \ufffd")


def test_a_line_of_ten_megabytes_is_shown_whole() -> None:
    line = b"x" * 10_000_000
    assert [len(shown) for shown in shown_lines(line + b"\nlast\n", Wanted())] == [10_000_000, 4]
    assert list(shown_lines(b"a\nb\nc\n", Wanted(tail=2))) == ["b", "c"]
    assert list(shown_lines(b"a\nb", Wanted(tail=0))) == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("5m", "2026-11-24T07:55:00Z"),
        ("1h30m", "2026-11-24T06:30:00Z"),
        ("2d", "2026-11-22T08:00:00Z"),
        ("999999999d", "1970-01-01T00:00:00Z"),
        ("2026-01-31T09:00:00+01:00", "2026-01-31T08:00:00Z"),
    ],
)
def test_since(text: str, expected: str) -> None:
    assert since_time(text, datetime(2026, 11, 24, 8, tzinfo=UTC)) == expected


@pytest.mark.parametrize("text", ["", "5", "m", "yesterday", "-5m"])
def test_a_wrong_since_is_refused_in_a_sentence(text: str) -> None:
    with pytest.raises(UsageError, match="write a span such as 5m"):
        since_time(text)
