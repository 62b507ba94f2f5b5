"""The training loop: steps, curves, checkpoints; stops when asked and goes on where it was."""

from __future__ import annotations

import json
import math
import random
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from dail_runtime.errors import Interrupted, ResultError
from dail_runtime.spec.train import TrainSpec
from dail_runtime.stages.base import Progress
from dail_runtime.train.adapter import Student
from dail_runtime.train.batches import Course, Step, collate, micro_batches
from dail_runtime.train.checkpoint import Checkpoint, Checkpoints, random_states, restore_random_states
from dail_runtime.train.data import REFERENCES, Row
from dail_runtime.train.loss import fused_loss
from dail_runtime.train.memory import out_of_memory_says
from dail_runtime.train.references import References, choose_keeping
from dail_runtime.train.schedule import learning_rate

FIGURES = ("kl_teacher", "kl_negative", "entropy", "teacher_top_mass")
"""Token figures of `TokenFigures` that the curves show as means."""


class Training:
    """One training of one student."""

    def __init__(
        self,
        student: Student,
        rows: Sequence[Row],
        spec: TrainSpec,
        *,
        seed: int,
        checkpoints: Checkpoints,
        progress: Progress,
        stop: threading.Event,
    ) -> None:
        """
        Args:
            student: The model with its fresh adapter.
            rows: The traces, at least one.
            spec: Objective and settings.
            seed: Of the order of the traces and of dropout.
            checkpoints: Where to save, and where to go on from.
            progress: Told after every step.
            stop: When set, the training saves a checkpoint and raises `Interrupted`.
        """
        self._student, self._rows, self._spec, self._seed = student, rows, spec, seed
        self._checkpoints, self._progress, self._stop = checkpoints, progress, stop
        self.course = Course(spec, len(rows), seed)
        # Fused: one pass over all adapter weights instead of a dozen.
        self._optimizer = torch.optim.AdamW(
            student.trainable.values(), lr=spec.learning_rate, betas=spec.betas, weight_decay=spec.weight_decay, fused=True
        )
        self.curves: list[dict[str, Any]] = []
        """One line a step (see the stage)."""
        self.resumed_at = 0
        """Steps that an earlier attempt had done."""
        self._keep: str | None = None

    def run(self) -> None:
        """Train to the last step.

        Raises:
            Interrupted: asked to stop; a checkpoint is saved.
            ResultError: the loss or its gradient is no finite number.
            SetupError: memory ran out.
        """
        random.seed(self._seed)
        torch.manual_seed(self._seed)
        step = self.resumed_at = self._resume()
        references = self.references()
        while step < self.course.total:
            self._stop_if_asked(step)
            plan = self.course[step]
            with self._explaining_memory():
                if REFERENCES[plan.objective]:
                    references.prepare(lambda done, total, at=step: self._preparing(done, total, at))  # type: ignore[misc]
                self.curves.append(self._step(step, plan, references))
            step += 1
            line = self.curves[-1]
            figures = {name: line[name] for name in ("loss", "tokens_per_s")}
            self._progress.update(step, self.course.total, "steps", **figures)
            if step % self._spec.checkpoint_every == 0 or step == self.course.total:
                self._save(step)

    def accumulate(self, plan: Step, references: References) -> dict[str, float]:
        """Add the gradient of a step's loss, the mean over all its response tokens, to the adapter; returns the mean figures.

        Exact by tokens: the result does not depend on how the traces are split into micro-batches.
        """
        spec, student, names = self._spec, self._student, REFERENCES[plan.objective]
        rows = [self._rows[one] for one in plan.rows]
        tokens = sum(len(row.response) for row in rows)
        sums: dict[str, Tensor] = {}
        lengths = [len(row.prompts["student"]) + len(row.response) - 1 for row in rows]
        for group in micro_batches(lengths, spec.micro_batch_tokens):
            batch = collate([rows[one].prompts["student"] for one in group], [rows[one].response for one in group], student.device)
            states = references.of([plan.rows[one] for one in group], names, batch.labels)
            output = fused_loss(
                student.hidden(batch),
                student.head,
                objective=plan.objective,
                labels=batch.labels,
                teacher=states.get("teacher"),
                negative=states.get("negative"),
                gamma=spec.gamma,
                weights=torch.full((len(batch.labels),), 1 / tokens, device=student.device),
                reduction="sum",
                chunk_tokens=spec.chunk_tokens,
            )
            torch.autograd.backward(output.loss)
            for name in ("value", *FIGURES):
                figure = getattr(output.tokens, name)
                if figure is not None:
                    sums[name] = sums.get(name, 0) + figure.sum(dtype=torch.float64)
        return {name: float(total) / tokens for name, total in sums.items()}

    def _step(self, number: int, plan: Step, references: References) -> dict[str, Any]:
        """One optimiser step; returns its line of the curves."""
        began = time.perf_counter()
        spec, weights = self._spec, list(self._student.trainable.values())
        means = self.accumulate(plan, references)
        norm = float(torch.nn.utils.clip_grad_norm_(weights, spec.max_grad_norm))
        if not math.isfinite(means["value"]) or not math.isfinite(norm):
            raise ResultError(
                f"training step {number + 1}: the loss is {means['value']} and the norm of its gradient {norm}; "
                "lower train.learningRate, or set model.dtype to float32"
            )
        rate = learning_rate(number, total=self.course.total, warmup=spec.warmup_steps, peak=spec.learning_rate, schedule=spec.schedule)
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        tokens = sum(len(self._rows[one].response) for one in plan.rows)
        return {
            "step": number + 1,
            "epoch": plan.epoch,
            "objective": plan.objective,
            "loss": means["value"],
            **{name: means.get(name) for name in FIGURES},
            "learning_rate": rate,
            "grad_norm": norm,
            "tokens": tokens + (self.curves[-1]["tokens"] if self.curves else 0),
            "tokens_per_s": tokens / (time.perf_counter() - began),
        }

    def references(self) -> References:
        """The references, kept as an earlier attempt kept them: the choice depends on free memory, and must not change half-way."""
        contexts = REFERENCES[self._spec.objective]
        per_token = self._student.head.weight.shape[1] * self._student.dtype.itemsize * len(contexts)
        setting = self._spec.cache_references
        if setting == "auto" and self._keep is not None:
            setting = "off" if self._keep == "none" else "on"
        size = per_token * sum(len(row.response) for row in self._rows)
        keeping = choose_keeping(setting, size=size, epochs=self.course.reference_epochs)
        self._keep = keeping.place
        sentence = keeping.sentence()
        if sentence is not None:
            self._progress.say(sentence)
        return References(self._student, self._rows, contexts, self._spec.micro_batch_tokens, keeping)

    def _preparing(self, done: int, total: int, step: int) -> None:
        self._progress.update(done, total, "reference responses")
        self._stop_if_asked(step)

    def _stop_if_asked(self, step: int) -> None:
        if self._stop.is_set():
            self._save(step)
            raise Interrupted(
                f"training was asked to stop after step {step} of {self.course.total}; a checkpoint is saved, run again to go on"
            )

    def _save(self, step: int) -> None:
        random_tensors, python = random_states(self._student.device)
        optimizer = {
            f"{name}.{key}": value
            for name, weight in self._student.trainable.items()
            for key, value in self._optimizer.state.get(weight, {}).items()
        }
        tensors = {"adapter": dict(self._student.trainable), "optimizer": optimizer, "rng": random_tensors}
        facts = {"python": python, "keep": self._keep}
        self._checkpoints.save(Checkpoint(step, tensors, facts, self.curves_jsonl()))

    def _resume(self) -> int:
        """Take over the newest checkpoint; returns its step, 0 where there is none."""
        found = self._checkpoints.newest(self._progress.say)
        if found is None:
            return 0
        with torch.no_grad():
            for name, weight in self._student.trainable.items():
                weight.copy_(found.tensors["adapter"][name])
        state = self._optimizer.state_dict()
        state["state"] = {
            number: {key: found.tensors["optimizer"][f"{name}.{key}"] for key in ("step", "exp_avg", "exp_avg_sq")}
            for number, name in enumerate(self._student.trainable)
            if f"{name}.step" in found.tensors["optimizer"]
        }
        self._optimizer.load_state_dict(state)
        restore_random_states(self._student.device, found.tensors["rng"], found.facts["python"])
        self._keep = found.facts["keep"]
        self.curves = [json.loads(line) for line in found.curves.splitlines()]
        return found.step

    def curves_jsonl(self) -> bytes:
        """The curves, one JSON object a line."""
        return "".join(json.dumps(line) + "\n" for line in self.curves).encode()

    @contextmanager
    def _explaining_memory(self) -> Iterator[None]:
        spec = self._spec
        change = f"lower train.microBatchTokens (now {spec.micro_batch_tokens}) or train.chunkTokens (now {spec.chunk_tokens})"
        if spec.gradient_checkpointing != "on":
            change += ", or set train.gradientCheckpointing to on"
        with out_of_memory_says(change):
            yield
