"""Four trials for every arm, on the development split: `python -m examples.tinymath.tune --runs FOLDER`.

All arms get the same number of trials and the same number of passes over the traces. The first two are about the learning rate,
which every arm has; the last two, at the better of those, about the one knob that is the arm's own. Prints pass@1 of every trial;
the test split is not touched.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from examples.tinymath.experiment import Outcome, measure, variation

EPOCHS = 8
SAMPLES = 4
"""Answers to each problem."""
RATES = (2e-3, 4e-3)

Settings = Mapping[str, Any]
"""What a trial changes in the job's `train` section."""


@dataclass(frozen=True)
class Arm:
    """One way to learn from the traces."""

    fixed: Settings
    """What sets it apart."""
    own: Mapping[str, Settings]
    """The trials of its own knob, by what they are called."""


_RANKED = {f"alpha {alpha}": {"lora": {"r": 32, "alpha": alpha}} for alpha in (32, 128)}

ARMS: dict[str, Arm] = {
    "contrastive": Arm({}, {f"gamma {gamma}": {"gamma": gamma} for gamma in (0.3, 0.5)}),
    # Reverse KL learns little where the student gives the teacher's token almost no mass: cross-entropy first may help.
    "distill": Arm(
        {"objective": "distill"},
        {f"{warm} epochs of nll first": {"epochs": EPOCHS - warm, "warmup": {"objective": "nll", "epochs": warm}} for warm in (2, 4)},
    ),
    "nll": Arm({"objective": "nll"}, _RANKED),
    "sft": Arm({"objective": "sft"}, _RANKED),
}
"""The control is no arm of its own: it is `contrastive` with its settings, and another problem's solution as reference."""

Trial = tuple[Settings, float]
"""Settings and the pass@1 they led to."""


def rounds(arm: Arm) -> Sequence[Callable[[Settings], Sequence[Settings]]]:
    """The rounds of a search; each makes of the best settings so far those that it tries."""
    return (
        lambda best: [{**best, "learningRate": rate} for rate in RATES],
        lambda best: [{**best, **own} for own in arm.own.values()],
    )


def search(arm: Arm, measure: Callable[[int, Sequence[Settings]], Sequence[float]]) -> list[Trial]:
    """All trials of an arm, in order; `measure` is given how many came before, and gives the pass@1 of each of some settings."""
    trials: list[Trial] = []
    best: Settings = {**arm.fixed, "epochs": EPOCHS}
    for propose in rounds(arm):
        asked = propose(best)
        trials += zip(asked, measure(len(trials), asked), strict=True)
        best = max(trials, key=lambda trial: trial[1])[0]
    return trials


def table(found: Mapping[str, Sequence[Trial]]) -> str:
    """Markdown: a row for each trial, the arm's best in bold."""
    lines = ["| arm | learning rate | own knob | dev pass@1 |", "|---|---|---|---|"]
    for arm, trials in found.items():
        best = max(value for _, value in trials)
        for settings, value in trials:
            own = next((name for name, own in ARMS[arm].own.items() if own.items() <= settings.items()), "")
            shown = f"**{value:.1%}**" if value == best else f"{value:.1%}"
            lines.append(f"| {arm} | {settings['learningRate']:g} | {own} | {shown} |")
    return "\n".join(lines)


def main() -> None:
    """Search for every arm and print the table."""
    parser = argparse.ArgumentParser(description="The same number of trials for every arm, on the development split.")
    parser.add_argument("--runs", type=Path, required=True, help="folder for what the runs make; run again to go on with it")
    parser.add_argument("--arm", choices=ARMS, action="append", help="only this arm (again for another); all where none is named")
    arguments = parser.parse_args()
    runs = arguments.runs.resolve()

    def measured(arm: str) -> Callable[[int, Sequence[Settings]], Sequence[float]]:
        def pass_at_1(before: int, asked: Sequence[Settings]) -> Sequence[float]:
            names = [f"{arm}-{before + number}" for number in range(1, len(asked) + 1)]
            changes = {
                "data.evaluation": [{"name": "dev", "path": "./dev.jsonl"}],
                "variants": {name: {"train": dict(one)} for name, one in zip(names, asked, strict=True)},
                "evaluate.samples": SAMPLES,
                "evaluate.budgets": [],
                "evaluate.primary": None,
                "evaluate.teacherCheck": False,
            }
            found: dict[str, dict[str, Outcome]] = measure(variation("tune", changes), runs)
            return [found[name]["dev"].figures.pass_at[1].value for name in names]

        return pass_at_1

    print(table({arm: search(ARMS[arm], measured(arm)) for arm in arguments.arm or ARMS}))


if __name__ == "__main__":
    main()
