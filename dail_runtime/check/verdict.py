"""From the teacher's figures to a sentence: is M_T good enough that its whole distribution should be learned?"""

from __future__ import annotations

from dail_runtime.check.records import Accuracy, TraceFigures

WEAK_BELOW = 0.5
"""Accuracy at temperature 1 under which a teacher counts as weak: most of what a KL objective learns is then wrong. Where
distilling failed while nll on graded traces did not, it was .1 to .3."""
COLD_ABOVE = 0.05
"""Share of cold tokens from which a KL objective should not start without a warm-up."""


def verdict(accuracy: Accuracy | None, at_one: Accuracy | None, traces: TraceFigures | None, *, control: bool = False) -> tuple[bool, str]:
    """(weak, the sentence or sentences for the user).

    Args:
        accuracy: At the rewrite's settings; the same object as `at_one` where they are the same.
        control: The solutions shown are those of other problems, so that a bad teacher is what is wanted.
    """
    weak = at_one is not None and at_one.right.value < WEAK_BELOW
    if at_one is None:
        return weak, "The teacher could not be graded, as no problem has an answer."
    figures = _figures(at_one) + (f", and {_figures(accuracy)}" if accuracy is not None and accuracy is not at_one else "")
    if control:
        return weak, f"The control's teacher, which is shown another problem's solution, answers {figures}."
    if weak:
        parts = [
            f"The teacher is weak: shown the solution, it answers {figures}.",
            "KL objectives (contrastive, distill) learn its whole distribution, errors included: prefer train.objective nll, "
            "which learns from graded traces only, or begin with train.warmup.",
        ]
    else:
        parts = [f"The teacher is sound: shown the solution, it answers {figures}."]
    if traces is not None and traces.cold_tokens > COLD_ABOVE:
        parts.append(
            f"At {traces.cold_tokens:.0%} of the traces' tokens the student gives the teacher's first choice less than 1%, where "
            "reverse KL has almost no gradient: set train.warmup for the KL objectives."
        )
    return weak, " ".join(parts)


def _figures(accuracy: Accuracy) -> str:
    right = accuracy.right
    how = f"temperature {accuracy.temperature:g}" + (f" and top-p {accuracy.top_p:g}" if accuracy.top_p < 1 else "")
    return f"{right.value:.0%} right ({100 * right.low:.0f} to {100 * right.high:.0f}) at {how}"
