"""From graded answers to figures: pass@k, lengths, budgets, and paired comparisons of two models."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from dail_runtime.evaluate.passk import intervals, paired_difference, problem_values
from dail_runtime.evaluate.records import BudgetFigure, Interval, ProblemResult, SetFigures
from dail_runtime.spec.evaluate import EvaluateSpec


def set_figures(results: Sequence[ProblemResult], spec: EvaluateSpec) -> SetFigures:
    """The figures of one model on one set.

    Raises:
        ValueError: there is no result.
    """
    answers = [answer for result in results for answer in result.answers]
    right = {result.id: result.right for result in results}
    # pass@1 is what verdicts and the lenient figure are about, whatever else is asked for.
    ks = sorted({1, *spec.ks()})
    values = np.stack([problem_values(list(right.values()), spec.samples, k) for k in ks], axis=1)
    return SetFigures(
        problems=len(results),
        samples=spec.samples,
        pass_at=dict(zip(ks, intervals(values), strict=True)),
        right=right,
        mean_tokens=_mean(answer.tokens for answer in answers),
        unparsed=_mean(answer.verdict == "unparsed" for answer in answers),
        truncated=_mean(answer.finish == "length" for answer in answers),
        lenient=_mean(answer.lenient for answer in answers),
        budgets={budget: _budget(results, budget) for budget in spec.budgets},
    )


def difference(tuned: SetFigures, base: SetFigures, k: int) -> Interval:
    """pass@k of one model minus that of another on the problems both were measured on, with its 95% interval.

    Raises:
        SpecError: k is over the number of answers.
        ValueError: the two were measured with different numbers of answers, or share no problem.
    """
    if tuned.samples != base.samples:
        raise ValueError(f"{tuned.samples} and {base.samples} answers to a problem cannot be compared; evaluate both alike")
    shared = [id_ for id_ in base.right if id_ in tuned.right]
    return paired_difference(_counts(tuned.right, shared), _counts(base.right, shared), base.samples, k)


def _counts(right: Mapping[str, int], ids: Iterable[str]) -> list[int]:
    return [right[id_] for id_ in ids]


def _budget(results: Sequence[ProblemResult], budget: int) -> BudgetFigure:
    measured = [(result.budgets or {})[budget] for result in results]
    accuracy = intervals(np.array([[_mean(answer.right for answer in answers)] for answers in measured]))[0]
    return BudgetFigure(
        accuracy=accuracy.value,
        low=accuracy.low,
        high=accuracy.high,
        mean_tokens=_mean(answer.tokens for answers in measured for answer in answers),
        forced=_mean(answer.forced for answers in measured for answer in answers),
    )


def _mean(values: Iterable[float]) -> float:
    numbers = list(values)
    return sum(numbers) / len(numbers)
