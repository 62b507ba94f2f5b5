"""pass@k without bias, and 95% intervals by resampling problems."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from dail_runtime.errors import SpecError
from dail_runtime.evaluate.records import Interval

RESAMPLES = 10_000
LEVEL = 0.95
_SEED = 20_602
"""One seed for every interval: figures of the same problems are compared over the same resamples."""
_AT_ONCE = 1 << 21
"""Draws held in memory together (about 50 MB)."""


def pass_at_k(n: int, c: int, k: int) -> float:
    """Probability that at least one of k answers, drawn without replacement from n of which c are right, is right.

    1 - C(n-c, k) / C(n, k), the unbiased estimate of pass@k (Chen et al. 2021, arXiv 2107.03374), as a product that neither
    overflows nor cancels.

    Raises:
        SpecError: k is over n.
        ValueError: c is not within 0..n.
    """
    return float(_table(n, k)[_checked(n, c)])


def problem_values(right: Sequence[int], n: int, k: int) -> NDArray[np.float64]:
    """pass@k of each problem, [problems], from its number of right answers among n.

    Raises:
        SpecError: k is over n.
        ValueError: a count is not within 0..n.
    """
    return _table(n, k)[[_checked(n, count) for count in right]]


def intervals(values: NDArray[np.float64], *, bounds: tuple[float, float] = (0.0, 1.0), resamples: int = RESAMPLES) -> list[Interval]:
    """The mean over problems of each column of `values`, [problems, figures], with its 95% interval.

    Percentile bootstrap over problems: they are what the set was drawn from, and answers to one problem are not independent.
    Where all problems have the same value (all solved, none solved, one problem) there is nothing to resample and the
    bootstrap would claim certainty. There the interval is the exact one for a quantity within `bounds`: were the true mean m,
    then P(X >= v) <= m / v by Markov's inequality, so P problems all at v or above have at most (m / v)^P; m below
    v * 0.025^(1/P) is excluded, and the other end in the same way. For all right (v = 1) and none right (v = 0) this is
    the Clopper-Pearson interval.

    Raises:
        ValueError: there is no problem.
    """
    problems, figures = values.shape
    if problems == 0:
        raise ValueError("an interval needs at least one problem")
    tail = (1 - LEVEL) / 2
    least, most = values.min(axis=0), values.max(axis=0)
    # The mean of equal values may differ from them in the last bit.
    centres = np.where(least == most, least, values.mean(axis=0))
    ends = np.quantile(_resampled(values, resamples), [tail, 1 - tail], axis=0)
    out = []
    for figure in range(figures):
        value, low, high = float(centres[figure]), float(ends[0, figure]), float(ends[1, figure])
        if least[figure] == most[figure]:
            factor = tail ** (1 / problems)
            low, high = bounds[0] + (value - bounds[0]) * factor, bounds[1] - (bounds[1] - value) * factor
        out.append(Interval(value=value, low=low, high=high))
    return out


def paired_difference(tuned: Sequence[int], base: Sequence[int], n: int, k: int) -> Interval:
    """pass@k of one model minus that of another on the same problems in the same order, with its 95% interval.

    Args:
        tuned, base: right answers of n, per problem.

    The difference is taken per problem and then resampled, so that how hard the problems are cancels out.

    Raises:
        SpecError: k is over n.
        ValueError: not the same number of problems, or none.
    """
    if len(tuned) != len(base):
        raise ValueError(f"a paired difference needs the same problems, and there are {len(tuned)} and {len(base)}")
    difference = problem_values(tuned, n, k) - problem_values(base, n, k)
    return intervals(difference[:, None], bounds=(-1.0, 1.0))[0]


def _table(n: int, k: int) -> NDArray[np.float64]:
    """pass@k for c = 0..n."""
    if not 1 <= k <= n:
        raise SpecError(f"pass@{k} needs at least {k} answers to a problem, and there are {n}; raise evaluate.samples or lower passAt")
    # C(n-c, k) / C(n, k) is the product of 1 - k/i over i = n, n-1, ..., n-c+1; it reaches 0 at i = k and stays there.
    factors = np.clip(1 - k / np.arange(n, 0, -1), 0, None)
    return 1 - np.concatenate([[1.0], np.cumprod(factors)])


def _checked(n: int, c: int) -> int:
    if not 0 <= c <= n:
        raise ValueError(f"{c} right answers of {n} cannot be")
    return c


def _resampled(values: NDArray[np.float64], resamples: int) -> NDArray[np.float64]:
    """Means of `values` over problems drawn with replacement, [resamples, figures]."""
    problems = len(values)
    random = np.random.default_rng(_SEED)
    means = np.empty((resamples, values.shape[1]))
    step = max(1, _AT_ONCE // problems)
    for start in range(0, resamples, step):
        rows = min(step, resamples - start)
        drawn = random.integers(problems, size=(rows, problems)) + np.arange(rows)[:, None] * problems
        times = np.bincount(drawn.ravel(), minlength=rows * problems).reshape(rows, problems)
        means[start : start + rows] = times @ values / problems
    return means
