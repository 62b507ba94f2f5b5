"""A tiny run whose problems and kept traces a test wrote itself, ready for the stage train; and trainings without a store around them."""

from __future__ import annotations

import random
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from dail_runtime.models.load import empty_model
from dail_runtime.records import Kept, Problem, to_jsonl
from dail_runtime.spec import DailJob
from dail_runtime.spec.train import TrainSpec
from dail_runtime.store import Manifest, Store, open_store, write_manifest
from dail_runtime.train.adapter import Student
from dail_runtime.train.checkpoint import Checkpoints
from dail_runtime.train.data import Row
from dail_runtime.train.loop import Training
from dail_runtime.train.ranks import Place
from dail_runtime.train.world import World
from tests.support.stage_process import SavedRun, save_run


@dataclass
class Heard:
    """Progress that remembers, and that can ask the training to stop after its next step."""

    stop: threading.Event | None = None
    said: list[str] = field(default_factory=list)
    updates: list[tuple[float, float, str, dict[str, float]]] = field(default_factory=list)

    def update(self, done: float, total: float, unit: str, **figures: float) -> None:
        """Keep it."""
        self.updates.append((done, total, unit, figures))
        if self.stop is not None and unit == "steps":
            self.stop.set()

    def say(self, sentence: str) -> None:
        """Keep it."""
        self.said.append(sentence)


def tiny_rows(count: int, vocabulary: int = 200, seed: int = 0) -> list[Row]:
    """Rows of random ids, ragged: prompts and responses of different lengths, and the three prompts of a row too."""
    draw = random.Random(seed)

    def ids(low: int, high: int) -> tuple[int, ...]:
        return tuple(draw.randrange(vocabulary) for _ in range(draw.randint(low, high)))

    return [Row(f"p{number}", {"student": ids(2, 9), "teacher": ids(8, 20), "negative": ids(4, 12)}, ids(3, 11)) for number in range(count)]


def train_spec(**fields: Any) -> TrainSpec:
    """Settings that suit tiny models; `fields` as in the job file."""
    small = {
        "batchSize": 4,
        "epochs": 2,
        "learningRate": 1e-2,
        "warmupSteps": 1,
        "lora": {"r": 4, "alpha": 8},
        "gradientCheckpointing": "off",
    }
    return TrainSpec.model_validate({**small, **fields})


def make_student(
    folder: Path, spec: TrainSpec, *, seed: int = 0, dtype: torch.dtype = torch.float32, moved: float = 0.0, empty: bool = False
) -> Student:
    """The model in `folder` with a fresh adapter; with `moved`, noise of that size is added, so that it differs from the references.

    `empty`: its weights have shapes only.
    """
    loaded = empty_model(folder, dtype) if empty else AutoModelForCausalLM.from_pretrained(folder, dtype=dtype)
    model = loaded.requires_grad_(False).eval()
    student = Student(model, spec.lora, seed=seed, recompute=spec.gradient_checkpointing == "on")
    noise = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in student.trainable.values():
            weight.add_(torch.randn(weight.shape, generator=noise), alpha=moved)
    return student


def make_training(
    student: Student,
    rows: Sequence[Row],
    spec: TrainSpec,
    store: Store,
    *,
    progress: Heard | None = None,
    stop: threading.Event | None = None,
    world: World | None = None,
) -> Training:
    """A training with checkpoints below `store`; of one rank, where no other world is given."""
    checkpoints = Checkpoints(store.at("checkpoints"), keep=spec.keep_checkpoints)
    return Training(
        student,
        rows,
        spec,
        seed=3,
        checkpoints=checkpoints,
        progress=progress or Heard(),
        stop=stop or threading.Event(),
        world=world or alone(),
    )


def alone() -> World:
    """The world of one rank."""
    return World(Place(), torch.device("cpu"))


def store_at(folder: Path) -> Store:
    """A file store."""
    return open_store(str(folder))


def training_run(folder: Path, storage: Path, *, train: Mapping[str, Any], problems: int = 6, **sections: Any) -> SavedRun:
    """A saved run whose prepare and select are done: every problem has one kept trace."""
    small = {"batchSize": 4, "epochs": 2, "learningRate": 1e-2, "warmupSteps": 1, "lora": {"r": 4, "alpha": 8}}
    spec = {
        "model": {"id": str(folder), "dtype": "float32"},
        "data": {"solutions": str(storage / "solutions.jsonl")},
        "rewrite": {"maxTokens": 64},
        "evaluate": {"teacherCheck": False},
        "train": {**small, **train},
        **sections,
    }
    job = DailJob.model_validate({"apiVersion": "dail/v1alpha1", "kind": "DailJob", "metadata": {"name": "tiny"}, "spec": spec})
    run = save_run(job, {}, str(storage))
    tokenizer = AutoTokenizer.from_pretrained(folder)
    rows = [
        Problem(id=f"p{n}", problem=f"What is {n} + {n + 1}?", solutions=(f"{n} + {n + 1} = {2 * n + 1}",), answer=str(2 * n + 1))
        for n in range(problems)
    ]
    kept = []
    for n, row in enumerate(rows):
        text = f"First we add {n} and {n + 1}{', step by step' * (n % 3)}: it is \\boxed{{{row.answer}}}."
        ids = (*tokenizer.encode(text, add_special_tokens=False), tokenizer.eos_token_id)
        kept.append(Kept(id=row.id, index=0, ids=ids, text=text, verdict="right"))
    finish(run, "prepare", {"problems.jsonl": to_jsonl(rows)})
    for task in run.tasks:
        if task.startswith("rewrite/"):
            finish(run, task, {})
        if task.startswith("select/"):
            finish(run, task, {"kept.jsonl": to_jsonl(kept)})
    return run


def finish(run: SavedRun, task: str, files: Mapping[str, bytes]) -> None:
    """Leave what a task would have left."""
    out, planned, now = run.at(task), run.tasks[task], datetime.now(UTC)
    objects = tuple(out.put(key, content) for key, content in files.items())
    write_manifest(
        out,
        Manifest(
            task=task,
            digest=planned.digest,
            inputs=dict(planned.inputs),
            objects=objects,
            counts={},
            started=now,
            finished=now,
            seconds=0,
            attempts=1,
            versions={},
        ),
    )
