"""Runs job.yaml with several seeds and prints one table with intervals: `python -m examples.tinymath.compare`.

A seed changes everything random: traces, choice, order of training, answers. Intervals are 95% bootstraps over problems of the
mean over seeds; the range of the seeds stands beside them, since three seeds say little about their own spread.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from dail_runtime.evaluate.passk import intervals, problem_values
from dail_runtime.evaluate.records import Interval
from examples.tinymath.experiment import Outcome, measure, variation

SEEDS = (1, 2, 3)
CLOSER = {"evaluate.samples": 8, "evaluate.budgets": [16, 32, 48, 64, 96], "evaluate.budgetSamples": 2}
"""Measured more closely than by the job file, which is there to be quick."""


def over_seeds(outcomes: Sequence[Outcome], k: int) -> Interval:
    """pass@k, the mean over the seeds."""
    return intervals(np.mean([_values(outcome, k) for outcome in outcomes], axis=0)[:, None])[0]


def gain(tuned: Sequence[Outcome], other: Sequence[Outcome], k: int) -> Interval:
    """pass@k of one model minus another's, per problem and seed, with its interval."""
    differences = [_values(one, k) - _values(two, k) for one, two in zip(tuned, other, strict=True)]
    return intervals(np.mean(differences, axis=0)[:, None], bounds=(-1.0, 1.0))[0]


def _values(outcome: Outcome, k: int) -> np.ndarray:
    right = outcome.figures.right
    return problem_values([right[id_] for id_ in sorted(right)], outcome.figures.samples, k)


def table(found: Sequence[dict[str, dict[str, Outcome]]]) -> str:
    """Markdown: a row for each model; `found` holds target -> set -> outcome for each seed."""
    samples = found[0]["base"]["test"].figures.samples
    lines = [
        f"| model | test pass@1 | seeds | test pass@{samples} | gain over nll, pass@1 | jumps | tokens | ordinary pass@1 |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for target in found[0]:
        test = [seed[target]["test"] for seed in found]
        firsts = [outcome.figures.pass_at[1].value for outcome in test]
        nll = [seed["nll"]["test"] for seed in found]
        cells = [
            target,
            _show(over_seeds(test, 1)),
            f"{min(firsts):.1%} to {max(firsts):.1%}",
            _show(over_seeds(test, samples)),
            "" if target == "nll" else _show(gain(test, nll, 1), sign="+"),
            f"{np.mean([outcome.jumps for outcome in test]):.1%}",
            f"{np.mean([outcome.figures.mean_tokens for outcome in test]):.0f}",
            _show(over_seeds([seed[target]["ordinary"] for seed in found], 1)),
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _show(interval: Interval, sign: str = "") -> str:
    return f"{interval.value:{sign}.1%} [{interval.low:{sign}.1%}, {interval.high:{sign}.1%}]"


def main() -> None:
    """Run the seeds and print the table."""
    parser = argparse.ArgumentParser(description="Runs job.yaml with several seeds and prints one table with intervals.")
    parser.add_argument("--runs", type=Path, required=True, help="folder for what the runs make; run again to go on with it")
    runs = parser.parse_args().runs.resolve()
    print(table([measure(variation(f"seed-{seed}", {"seed": seed, **CLOSER}), runs) for seed in SEEDS]))


if __name__ == "__main__":
    main()
