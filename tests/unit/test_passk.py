"""pass@k and its intervals, against brute force and simulation."""

from __future__ import annotations

import itertools
import tracemalloc
from fractions import Fraction
from math import comb

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dail_runtime.errors import SpecError
from dail_runtime.evaluate.passk import intervals, paired_difference, pass_at_k, problem_values


@pytest.mark.parametrize("n", [1, 2, 5, 7])
def test_pass_at_k_is_the_share_of_draws_that_hold_a_right_answer(n: int) -> None:
    for c, k in itertools.product(range(n + 1), range(1, n + 1)):
        draws = list(itertools.combinations([True] * c + [False] * (n - c), k))
        assert pass_at_k(n, c, k) == pytest.approx(sum(any(draw) for draw in draws) / len(draws), abs=1e-12)


@given(st.integers(1, 4096).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, n), st.integers(1, n))))
def test_pass_at_k_agrees_with_exact_arithmetic_at_any_size(sizes: tuple[int, int, int]) -> None:
    n, c, k = sizes
    exact = 1 - Fraction(comb(n - c, k), comb(n, k))
    assert pass_at_k(n, c, k) == pytest.approx(float(exact), rel=1e-9, abs=1e-12)


def test_pass_at_k_at_its_ends() -> None:
    assert pass_at_k(128, 0, 128) == 0
    assert pass_at_k(128, 1, 128) == 1
    assert pass_at_k(128, 128, 1) == 1
    assert pass_at_k(4, 1, 1) == 0.25


@pytest.mark.parametrize("k", [0, 5])
def test_more_tries_than_answers_is_an_error_with_a_remedy(k: int) -> None:
    with pytest.raises(SpecError, match=r"raise evaluate\.samples or lower passAt"):
        pass_at_k(4, 1, k)


def test_impossible_counts_are_refused() -> None:
    with pytest.raises(ValueError, match="5 right answers of 4"):
        problem_values([1, 5], 4, 1)


def test_intervals_are_those_of_a_plain_bootstrap() -> None:
    values = np.random.default_rng(1).random((40, 3))
    random = np.random.default_rng(2)
    means = np.stack([values[random.integers(40, size=40)].mean(axis=0) for _ in range(20_000)])
    for column, interval in enumerate(intervals(values)):
        assert interval.value == pytest.approx(values[:, column].mean())
        assert interval.low == pytest.approx(np.quantile(means[:, column], 0.025), abs=0.005)
        assert interval.high == pytest.approx(np.quantile(means[:, column], 0.975), abs=0.005)


def test_intervals_hold_the_truth_about_as_often_as_they_say() -> None:
    random = np.random.default_rng(3)
    held = 0
    for _ in range(200):
        chances = random.beta(1, 2, size=60)  # the population's mean is 1/3
        (interval,) = intervals((random.binomial(8, chances) / 8)[:, None], resamples=1000)
        held += interval.low <= 1 / 3 <= interval.high
    assert 0.9 <= held / 200 <= 0.99


def test_intervals_are_the_same_every_time() -> None:
    values = np.random.default_rng(4).random((25, 2))
    assert intervals(values) == intervals(values)
    # A figure's interval does not depend on what else is asked for (but for the order of additions in a matrix product).
    assert intervals(values)[1].low == pytest.approx(intervals(values[:, 1:])[0].low, rel=1e-12)


@pytest.mark.parametrize(
    ("value", "problems", "low", "high"),
    [(1.0, 100, 0.025 ** (1 / 100), 1.0), (0.0, 100, 0.0, 1 - 0.025 ** (1 / 100)), (1.0, 1, 0.025, 1.0), (0.5, 1, 0.0125, 0.9875)],
)
def test_equal_values_never_give_certainty(value: float, problems: int, low: float, high: float) -> None:
    (interval,) = intervals(np.full((problems, 1), value))
    assert (interval.value, interval.low, interval.high) == (value, pytest.approx(low), pytest.approx(high))


def test_a_third_in_every_problem_is_still_recognised_as_equal() -> None:
    (interval,) = intervals(np.full((7, 1), 1 / 3))
    assert interval.value == 1 / 3
    assert interval.low < 0.2
    assert interval.high > 0.5


def test_without_problems_there_is_no_interval() -> None:
    with pytest.raises(ValueError, match="at least one problem"):
        intervals(np.empty((0, 1)))


def test_pairing_takes_the_difficulty_of_the_problems_out() -> None:
    base = [0, 8, 1, 7, 0, 8, 2, 6] * 5
    tuned = [min(8, right + 1) for right in base]
    apart = [intervals(problem_values(counts, 8, 1)[:, None])[0] for counts in (tuned, base)]
    paired = paired_difference(tuned, base, 8, 1)
    assert paired.value == pytest.approx(apart[0].value - apart[1].value)
    assert paired.low > 0
    assert apart[1].high > apart[0].low  # the intervals of the two models overlap all the same


def test_two_equal_models_differ_by_nothing_within_bounds() -> None:
    interval = paired_difference([3, 0, 8], [3, 0, 8], 8, 1)
    assert interval.value == 0
    assert interval.low == pytest.approx(-interval.high)
    assert 0 < interval.high < 1


def test_a_pair_needs_the_same_problems() -> None:
    with pytest.raises(ValueError, match="the same problems"):
        paired_difference([1], [1, 2], 4, 1)


def test_memory_does_not_grow_with_the_number_of_problems() -> None:
    values = np.random.default_rng(5).random((20_000, 4))
    tracemalloc.start()
    intervals(values, resamples=500)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 200 << 20
