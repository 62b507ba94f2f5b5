"""Tables of runs look as their goldens do, and nothing in them can steer a terminal."""

from __future__ import annotations

import re
import unicodedata

import pytest

from tests.golden.tables import HOSTILE, TABLES, WIDTHS, drawn, golden


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("table", TABLES)
def test_the_golden_is_what_is_drawn(table: str, width: str) -> None:
    assert drawn(table, width) == golden(table, width).read_text(encoding="utf-8"), "look at the difference; make golden accepts it"


@pytest.mark.parametrize("table", ["get", "describe", "events", "gc", "doctor"])
def test_a_terminal_of_160_columns_has_room_for_every_line(table: str) -> None:
    # Sentences with their remedy are never cut.
    lines = [line for line in drawn(table, "160").splitlines() if "->" not in line and ": no node" not in line]
    assert max(map(len, lines)) <= 160


@pytest.mark.parametrize("table", ["get", "events", "gc", "doctor", "plan"])
def test_a_terminal_of_80_columns_has_room_for_every_line(table: str) -> None:
    # Sentences below a plan are told whole.
    assert max(len(line) for line in drawn(table, "80").splitlines() if not re.match("from: |to do: ", line)) <= 80


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("table", TABLES)
def test_no_table_lets_a_control_character_through(table: str, width: str) -> None:
    assert any(unicodedata.category(c) == "Cc" for c in HOSTILE)
    assert {c for c in drawn(table, width) if unicodedata.category(c) == "Cc"} == {"\n"}


@pytest.mark.parametrize("table", ["get", "get-wide", "watch", "events", "gc"])
def test_the_name_comes_first_and_the_age_last(table: str) -> None:
    head = drawn(table, "piped").splitlines()[0].split()
    assert head[1 if head[0] == "NAMESPACE" else 0] == "NAME"
    assert head[-1] == "AGE"
