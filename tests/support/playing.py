"""`dailctl run` with stages that play a script (scripted_stage.py): everything real but the work."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dailctl.backends.starters import Fresh, Starter, Warm
from dailctl.runs import Run, run_of_file

REPOSITORY = Path(__file__).parents[2]
PROGRAM = (
    "import sys, dailctl.backends.local; from tests.support.playing import warm\n"
    "dailctl.backends.local.START = warm\nfrom dailctl.cli.main import main; sys.exit(main())"
)


def fresh(environment: Mapping[str, str], inherit: Sequence[int]) -> Starter:
    """Starts each played stage as a process of its own."""
    return Fresh(environment, inherit, (sys.executable, "-I", str(REPOSITORY / "tests" / "support" / "scripted_stage.py")))


def warm(environment: Mapping[str, str], inherit: Sequence[int]) -> Starter:
    """Forks each played stage from one process."""
    return Warm(environment, inherit, (sys.executable, "-I", str(REPOSITORY / "tests" / "support" / "scripted_warm.py")))


JOB = """\
apiVersion: dail/v1alpha1
kind: DailJob
metadata: {name: play}
spec:
  model: {id: some/model}
  data:
    solutions: expert.jsonl
    evaluation: [{name: odd, path: test.jsonl}, {name: ordinary, path: test.jsonl}]
  evaluate: {samples: 8, teacherCheck: false}
  variants: {a: {}, b: {train: {objective: sft}}}
"""
TASKS = ("prepare", "rewrite/a", "select/a", "train/a", "train/b", "evaluate/base", "evaluate/a", "evaluate/b", "report")


def figures(value: float) -> dict[str, Any]:
    """A model's figures, as report.json has them."""
    passed = {str(k): {"value": min(1, value * k), "low": min(1, value * k) / 2, "high": 1.0} for k in (1, 2, 4, 8)}
    return {"problems": 30, "samples": 8, "passAt": passed, "meanTokens": 100 * value, "unparsed": 0.015}


REPORT = {
    "verdict": {"gain": True, "sentence": "a beats base by 12.0 points.", "set": "odd", "variant": "a"},
    "variants": {"base": figures(0.01), "a": figures(0.25)},
    "sets": {"odd": {"base": figures(0.01), "a": figures(0.25)}, "ordinary": {"base": figures(0.5), "a": figures(0.45)}},
}
FILES = {
    "select/a": {"kept.jsonl": '{"id": "1"}\n', "verdicts.jsonl": "", "other.txt": "x"},
    "train/a": {
        "adapter/adapter_config.json": "{}",
        "adapter/adapter_model.safetensors": "weights",
        "model/config.json": "{}",
        "curves.jsonl": "{}\n",
    },
    "train/b": {"adapter/adapter_config.json": "{ }", "model/config.json": "{ }"},
    "report": {"report.json": json.dumps(REPORT), "report.html": "<p>report</p>"},
}


class Play:
    """A folder with a job whose stages are played."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.script = folder / "script.json"
        (folder / "job.yaml").write_text(JOB)
        (folder / "expert.jsonl").write_text(
            '{"problem": "1+1?", "solution": "\\\\boxed{2}"}\n{"problem": "1+2?", "solution": "\\\\boxed{3}"}\n'
        )
        (folder / "test.jsonl").write_text('{"problem": "3+4?", "answer": "7"}\n')
        self.says()

    @property
    def run(self) -> Run:
        """The run of the job file as it is now."""
        return run_of_file(self.folder / "job.yaml")

    @property
    def root(self) -> Path:
        """The run's folder."""
        return self.folder / "runs" / "play"

    def says(self, **tasks: list[str]) -> None:
        """What the attempts of tasks do, see scripted_stage.py; `_` in a name stands for '/'."""
        says = {name.replace("_", "/"): words for name, words in tasks.items()}
        known = {task.name: {"prefix": task.prefix, "digest": task.digest, "inputs": dict(task.inputs)} for task in self.run.tasks}
        self.script.write_text(json.dumps({"plan": known, "files": FILES, "says": says}))

    @property
    def started(self) -> list[str]:
        """Every stage process so far, in order."""
        marks = Path(f"{self.script}.marks")
        return [line.split()[0] for line in marks.read_text().splitlines()] if marks.exists() else []

    def process(self, *argv: str, stderr: int = subprocess.PIPE, **environment: str) -> subprocess.Popen[str]:
        """`dailctl ARGV` as a process of its own, in the folder."""
        env = {**os.environ, "SCRIPT": str(self.script), "PYTHONPATH": str(REPOSITORY), **environment}
        command = [sys.executable, "-c", PROGRAM, *argv]
        return subprocess.Popen(command, cwd=self.folder, env=env, stdout=subprocess.PIPE, stderr=stderr, text=True)
