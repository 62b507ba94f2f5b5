"""The held-out set: a seeded tenth that neither the order of rows nor their ids can move."""

from __future__ import annotations

import random

import pytest

from dail_runtime.data import hold_out
from dail_runtime.errors import DataError
from dail_runtime.records import Problem


def problems(n: int, answered: int | None = None) -> list[Problem]:
    known = n if answered is None else answered
    return [Problem(id=f"i{k}", problem=f"text {k}", solutions=("s",), answer="1" if k < known else None, hint="h") for k in range(n)]


def texts(found: list[Problem]) -> set[str]:
    return {one.problem for one in found}


@pytest.mark.parametrize(("n", "held"), [(2, 1), (9, 1), (10, 1), (29, 2), (300, 30)])
def test_a_tenth_but_at_least_one_is_held_out(n: int, held: int) -> None:
    training, measured = hold_out(problems(n), seed=0)
    assert (len(training), len(measured)) == (n - held, held)
    assert texts(training) | texts(measured) == texts(problems(n))


def test_held_out_problems_keep_their_answer_and_nothing_of_the_solution() -> None:
    _, measured = hold_out(problems(30), seed=0)
    assert {(one.set, one.solutions, one.hint, one.answer) for one in measured} == {("heldout", (), None, "1")}


def test_order_and_ids_do_not_move_the_set_but_the_seed_does() -> None:
    rows = problems(200)
    renamed = [one.model_copy(update={"id": f"x{n}"}) for n, one in enumerate(random.Random(1).sample(rows, len(rows)))]
    assert texts(hold_out(rows, 3)[1]) == texts(hold_out(renamed, 3)[1])
    assert texts(hold_out(rows, 3)[1]) != texts(hold_out(rows, 4)[1])


def test_only_problems_with_an_answer_can_measure() -> None:
    _, measured = hold_out(problems(100, answered=5), seed=0)
    assert len(measured) == 5
    assert all(one.answer for one in measured)


@pytest.mark.parametrize(("rows", "said"), [(problems(1), "one problem"), (problems(5, answered=0), "no problem .* has an answer")])
def test_without_anything_to_hold_out_the_remedy_is_named(rows: list[Problem], said: str) -> None:
    with pytest.raises(DataError, match=said + r".*; name a file of problems with answers in data\.evaluation"):
        hold_out(rows, 0)
