"""Whose solution is shown: one's own, or a derangement."""

from __future__ import annotations

import pytest

from dail_runtime.errors import DataError
from dail_runtime.prompts import references
from dail_runtime.records import Problem


def problems(count: int) -> list[Problem]:
    return [Problem(id=f"p{index}", problem=f"problem {index}", solutions=(f"solution {index}",)) for index in range(count)]


def test_own_shows_each_its_own() -> None:
    three = problems(3)
    assert references(three, "own", 0) == {problem.id: problem for problem in three}


@pytest.mark.parametrize("count", [2, 3, 50])
@pytest.mark.parametrize("seed", [0, 1, 2**62])
def test_other_never_shows_ones_own_and_uses_each_solution_once(count: int, seed: int) -> None:
    many = problems(count)
    shown = references(many, "other", seed)
    assert shown.keys() == {problem.id for problem in many}
    assert all(id_ != reference.id for id_, reference in shown.items())
    assert {reference.id for reference in shown.values()} == shown.keys()


def test_other_depends_on_the_seed_and_not_on_the_order() -> None:
    many = problems(50)
    assert references(many, "other", 7) == references(many[::-1], "other", 7)
    assert references(many, "other", 7) != references(many, "other", 8)


@pytest.mark.parametrize("count", [0, 1])
def test_other_with_a_single_problem_is_refused_in_a_sentence(count: int) -> None:
    with pytest.raises(DataError, match=f"needs at least two problems, and there are {count}; add problems, or use reference: own"):
        references(problems(count), "other", 0)
