"""Tries the same grid of learning rates and epochs for every arm, on the development split: `python -m examples.tinymath.tune`.

Prints pass@1 of every cell; the best of each row is in bold. The test split is not touched.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from examples.tinymath.experiment import Outcome, measure, variation

ARMS: dict[str, dict[str, Any]] = {
    "contrastive": {},
    "contrastive-warm": {"warmup": {"objective": "nll"}},
    "distill": {"objective": "distill"},
    "nll": {"objective": "nll"},
    "sft": {"objective": "sft"},
    "control": {"reference": "other"},
}
"""Name -> what sets it apart in `train`. `contrastive-warm` spends WARM of its epochs on nll first."""
RATES = (2e-3, 4e-3, 8e-3)
EPOCHS = (4, 8)
WARM = 0.25
SAMPLES = 4


def cell(arm: str, epochs: int, rate: float) -> str:
    """Name of the variant."""
    return f"{arm}-e{epochs}-lr{rate:g}".replace(".", "-")


def settings(arm: str, epochs: int, rate: float) -> dict[str, Any]:
    """The `train` overrides of a cell; every arm makes `epochs` passes in all."""
    train = {**ARMS[arm], "epochs": epochs, "learningRate": rate}
    if "warmup" in train:
        train |= {"epochs": epochs * (1 - WARM), "warmup": {**train["warmup"], "epochs": epochs * WARM}}
    return train


def table(found: dict[str, dict[str, Outcome]]) -> str:
    """Markdown: a row for each arm and number of epochs, a column for each learning rate; the row's best in bold."""
    lines = ["| arm | epochs | " + " | ".join(f"lr {rate:g}" for rate in RATES) + " |", "|---" * (2 + len(RATES)) + "|"]
    for arm in ARMS:
        for epochs in EPOCHS:
            values = [found[cell(arm, epochs, rate)]["dev"].figures.pass_at[1].value for rate in RATES]
            shown = [f"**{value:.1%}**" if value == max(values) else f"{value:.1%}" for value in values]
            lines.append(f"| {arm} | {epochs} | " + " | ".join(shown) + " |")
    return "\n".join(lines)


def main() -> None:
    """Run the grid and print its table."""
    parser = argparse.ArgumentParser(description="Tries the same settings for every arm on the development split.")
    parser.add_argument("--runs", type=Path, required=True, help="folder for what the runs make; run again to go on with it")
    runs = parser.parse_args().runs.resolve()
    grid = [(arm, epochs, rate) for arm in ARMS for epochs in EPOCHS for rate in RATES]
    variants = {cell(*one): {"train": settings(*one)} for one in grid}
    changes = {
        "data.evaluation": [{"name": "dev", "path": "./dev.jsonl"}],
        "variants": variants,
        "evaluate.samples": SAMPLES,
        "evaluate.primary": None,
        "evaluate.teacherCheck": False,
    }
    print(table(measure(variation("tune", changes), runs)))


if __name__ == "__main__":
    main()
