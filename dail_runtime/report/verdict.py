"""The verdict in one sentence: a gain, a loss, or no gain, with its interval. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from dail_runtime.evaluate.records import Interval
from dail_runtime.report.model import ModelFigures, Verdict


def verdict(set_: str, variant: str, models: Mapping[str, ModelFigures]) -> Verdict:
    """What pass@1 of `variant` against `base` on the same problems says.

    A gain is claimed only where the whole 95% interval of the paired difference lies above zero.
    """
    tuned, base = models.get(variant), models.get("base")
    if tuned is None or base is None:
        lacking = variant if tuned is None else "base"
        return Verdict(gain=None, set=set_, variant=variant, sentence=f"No verdict: {lacking} was not evaluated on {set_}.")
    difference = tuned.over_base[1]
    facts = f"{variant} solves {share(tuned.pass_at[1])} of {set_} at the first try, base {share(base.pass_at[1])}"
    if difference.low > 0:
        gain, sentence = True, f"A gain: {facts}; that is {points(difference)} more."
    elif difference.high < 0:
        gain, sentence = False, f"No gain but a loss: {facts}; that is {points(difference)}."
    else:
        gain, sentence = False, f"No gain shown: {facts}; the difference, {points(difference)}, may be chance."
    return Verdict(gain=gain, set=set_, variant=variant, difference=difference, sentence=sentence)


def rivals(variant: str, models: Mapping[str, ModelFigures]) -> list[str]:
    """A sentence for every other trained model that does better than `variant` beyond chance."""
    return [
        f"{name} does better than {variant}: {points(figures.over_primary[1])} at pass@1."
        for name, figures in models.items()
        if name not in (variant, "base") and 1 in figures.over_primary and figures.over_primary[1].low > 0
    ]


def share(interval: Interval) -> str:
    """`52.3% (47.1 to 57.4)`."""
    return f"{100 * interval.value:.1f}% ({100 * interval.low:.1f} to {100 * interval.high:.1f})"


def points(interval: Interval) -> str:
    """`+51.6 points (+46.4 to +56.8)`."""
    return f"{100 * interval.value:+.1f} points ({100 * interval.low:+.1f} to {100 * interval.high:+.1f})"
