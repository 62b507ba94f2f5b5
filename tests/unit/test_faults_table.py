"""docs/faults.md says what the table says, and the table names tests that exist."""

from __future__ import annotations

import re

import pytest

from tests.faults.table import HEAD, PAGE, REPOSITORY, ROWS, Row, page


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.fault)
def test_every_fault_names_tests_that_exist(row: Row) -> None:
    assert row.tests
    for test in row.tests:
        file, name = test.split("::")
        assert re.search(rf"^def {name}\(", (REPOSITORY / file).read_text(), re.MULTILINE), test


def test_the_page_is_the_tables() -> None:
    def but_figures(text: str) -> list[str]:
        table = text[text.index("| Fault |") :]
        return [re.sub(r"\| [^|]* \|$", "|", line) for line in table.splitlines()]

    assert HEAD.partition("{machine}")[0].splitlines()[0] == "# Faults"
    assert but_figures(PAGE.read_text()) == but_figures(page({}, ""))
