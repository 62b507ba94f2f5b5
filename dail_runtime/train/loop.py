"""The training loop: steps, curves, checkpoints; stops when asked and goes on where it was, on one rank or on many."""

from __future__ import annotations

import json
import math
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, NoReturn

import torch
from torch import Tensor

from dail_runtime.errors import Interrupted, ResultError
from dail_runtime.spec.train import Objective, TrainSpec
from dail_runtime.stages.base import Progress
from dail_runtime.store import digest_of
from dail_runtime.train.adapter import Student
from dail_runtime.train.batches import Course, Step, collate, micro_batches, shares
from dail_runtime.train.checkpoint import Checkpoint, Checkpoints
from dail_runtime.train.data import REFERENCES, Row
from dail_runtime.train.form import Form, HiddenStates, MostProbable
from dail_runtime.train.keeping import Place, choose_keeping
from dail_runtime.train.lockstep import rounds
from dail_runtime.train.loss import PrefixMask, TokenFigures, fused_loss
from dail_runtime.train.memory import out_of_memory_says
from dail_runtime.train.plan import remedy
from dail_runtime.train.references import References
from dail_runtime.train.saving import Saving
from dail_runtime.train.schedule import learning_rate
from dail_runtime.train.world import World

FIGURES = ("kl_teacher", "kl_negative", "entropy", "teacher_top_mass", "supervised", "clipped")
"""Token figures of `TokenFigures` that the curves show as means over all response tokens."""


class Training:
    """One training of one student. Every rank has one; all do the same but for the rows they compute, and rank 0 alone saves.

    What a step draws at random (dropout) follows from the seed, the step and the rank: a resumed training draws what an undisturbed
    one would have drawn. Without dropout the number of ranks changes nothing but the order in which float32 numbers are added.
    """

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
        world: World,
    ) -> None:
        """
        Args:
            student: The model with its fresh adapter.
            rows: The traces, at least one.
            spec: Objective and settings.
            seed: Of the order of the traces and of dropout.
            checkpoints: Where to save, and where to go on from.
            progress: Told after every step.
            stop: When set on any rank, all save a checkpoint together and raise `Interrupted`.
            world: All ranks.
        """
        self._student, self._rows, self._spec, self._seed, self._world = student, rows, spec, seed, world
        self._checkpoints, self._progress, self._stop = checkpoints, progress, stop
        self._saving = Saving(checkpoints, progress.say)
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
        step = self.resumed_at = self._resume()
        self._world.share(self._student.trainable.values())
        references = self.references()
        while step < self.course.total:
            plan = self.course[step]
            with self._explaining_memory():
                if REFERENCES[plan.objective] and not references.prepare(self._preparing, self._stop.is_set):
                    self._stopped(step)
                line = self._step(step, plan, references)
            if line is None:
                self._stopped(step)
            self.curves.append(line)
            step += 1
            figures = {name: line[name] for name in ("loss", "tokens_per_s")}
            self._progress.update(step, self.course.total, "steps", **figures)
            if step % self._spec.checkpoint_every == 0 or step == self.course.total:
                self._save(step, wait=step == self.course.total)

    def accumulate(self, plan: Step, references: References) -> dict[str, float] | None:
        """Add the gradient of a step's loss to the adapter; returns the loss (`value`) and the mean figures of its response tokens.

        Exact by tokens: the result does not depend on how the traces are split over ranks and micro-batches. None: a rank was asked
        to stop before the end, and the gradient is worth nothing.
        """
        spec, student, compared = self._spec, self._student, bool(REFERENCES[plan.objective])
        tokens = sum(len(self._rows[one].response) for one in plan.rows)
        costs = [self._cost(one, references, compared=compared) for one in plan.rows]
        dealt = [[plan.rows[one] for one in share] for share in shares(costs, self._world.size)]
        if compared:
            references.deal(dealt)
        own = dealt[self._world.place.rank]
        sums: dict[str, Tensor] = {name: torch.zeros((), dtype=torch.float64, device=student.device) for name in ("value", *FIGURES)}
        lengths = [len(self._rows[one].prompts["student"]) + len(self._rows[one].response) - 1 for one in own]
        groups = micro_batches(lengths, spec.micro_batch_tokens)
        # `sum` adds up over a trace and is the mean over the traces; `mean` is over all tokens.
        weight = 1 / (len(plan.rows) if spec.reduction == "sum" else tokens)
        for number in rounds(self._world, len(groups), together=student.sharded, stop=self._stop.is_set):
            chosen = [] if number is None else [own[one] for one in groups[number]]
            if not chosen:
                if compared:
                    references.of([], torch.empty(0))
                student.idle(learning=True)
                continue
            figures = self._learn(plan.objective, chosen, weight, references if compared else None)
            for name, total in sums.items():
                figure = getattr(figures, name)
                if figure is not None:
                    total += figure.sum(dtype=torch.float64)
        stopped = torch.tensor(float(self._stop.is_set()), dtype=torch.float64, device=student.device)
        # One sum for all numbers, before that of the gradient: after it either all ranks go on, or none does.
        self._world.sum([stopped, *sums.values()])
        if stopped > 0:
            return None
        self._sum_gradients()
        there = {"entropy"}
        if compared:
            there |= {"teacher_top_mass", *(f"kl_{name}" for name in REFERENCES[plan.objective])}
            there |= {name for name, option in (("supervised", spec.prefix_mask), ("clipped", spec.kl_clip)) if option is not None}
        if "supervised" in there and spec.reduction == "mean":
            # Only now is it known how many tokens the mean is over.
            share = float(sums["supervised"]) / tokens
            for one in student.trainable.values():
                if one.grad is not None:
                    one.grad.div_(share)
            weight /= share
        return {"value": float(sums["value"]) * weight, **{name: float(total) / tokens for name, total in sums.items() if name in there}}

    def _learn(self, objective: Objective, chosen: Sequence[int], weight: float, references: References | None) -> TokenFigures:
        """Forward and backward of one micro-batch, each token with this weight; returns the figures of its tokens."""
        spec, student = self._spec, self._student
        rows = [self._rows[one] for one in chosen]
        batch = collate([row.prompts["student"] for row in rows], [row.response for row in rows], student.device)
        options: dict[str, Any] = {}
        if references is not None:
            options = {**references.of(chosen, batch.labels), "clip": spec.kl_clip}
            if spec.prefix_mask is not None:
                options |= {"prefix": PrefixMask(spec.prefix_mask.margin, spec.prefix_mask.window), "starts": batch.starts}
        hidden = student.hidden(batch)
        output = fused_loss(
            hidden,
            student.head,
            objective=objective,
            labels=batch.labels,
            gamma=spec.gamma,
            weights=torch.full((len(batch.labels),), weight, device=student.device),
            reduction="sum",
            chunk_tokens=spec.chunk_tokens,
            update=student.update(hidden),
            **options,
        )
        torch.autograd.backward(output.loss)
        return output.tokens

    def _sum_gradients(self) -> None:
        """All ranks get the whole step's gradient. A rank without a row has none of its own."""
        if self._world.size > 1:
            for weight in self._student.trainable.values():
                if weight.grad is None:
                    weight.grad = torch.zeros_like(weight)
        self._world.sum([weight.grad for weight in self._student.trainable.values() if weight.grad is not None])

    def _cost(self, row: int, references: References, *, compared: bool) -> int:
        """What a row costs a rank, in tokens of a forward pass; the references' passes count where they are not kept."""
        prompts, response = self._rows[row].prompts, len(self._rows[row].response)
        others = [one for name, one in prompts.items() if name != "student"] if compared and not references.kept else []
        return 3 * (len(prompts["student"]) + response) + sum(len(one) + response for one in others)

    def _step(self, number: int, plan: Step, references: References) -> dict[str, Any] | None:
        """One optimiser step; returns its line of the curves, or None where it was cut off and nothing is changed."""
        began = time.perf_counter()
        spec, weights = self._spec, list(self._student.trainable.values())
        torch.manual_seed(int(digest_of([self._seed, "step", number, self._world.place.rank])[:15], 16))
        means = self.accumulate(plan, references)
        if means is None:
            self._optimizer.zero_grad(set_to_none=True)
            return None
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
        form: Form = HiddenStates(contexts, self._student.width, self._student.dtype)
        if self._spec.reference_top_k is not None and contexts:
            form = MostProbable(contexts, self._spec.reference_top_k, self._student.head, self._spec.chunk_tokens)
        setting = self._spec.cache_references
        if setting == "auto" and self._keep is not None:
            setting = "off" if self._keep == "none" else "on"
        size = form.columns() * form.dtype.itemsize * sum(len(row.response) for row in self._rows)
        place = self._world.place
        keeping = choose_keeping(setting, size=size, epochs=self.course.reference_epochs, machines=place.size // place.local_size)
        # Machines may have different room: where one has none, none keeps them; where one needs its disk, all use theirs.
        places: list[Place] = ["memory", "disk", "none"]
        keeping = replace(keeping, place=places[self._world.most(places.index(keeping.place))])
        self._keep = keeping.place
        sentence = keeping.sentence()
        if sentence is not None:
            self._progress.say(sentence)
        return References(self._student, self._rows, contexts, self._spec.micro_batch_tokens, keeping, self._world, form)

    def _preparing(self, done: int, total: int) -> None:
        self._progress.update(done, total, "reference responses")

    def _stopped(self, step: int) -> NoReturn:
        self._save(step, wait=True)
        raise Interrupted(f"training was asked to stop after step {step} of {self.course.total}; a checkpoint is saved, run again to go on")

    def _save(self, step: int, *, wait: bool) -> None:
        if not self._world.lead:
            return
        optimizer = {
            f"{name}.{key}": value
            for name, weight in self._student.trainable.items()
            for key, value in self._optimizer.state.get(weight, {}).items()
        }
        tensors = {"adapter": dict(self._student.trainable), "optimizer": optimizer}
        self._saving.save(Checkpoint(step, tensors, {"keep": self._keep}, self.curves_jsonl()), wait=wait)

    def _resume(self) -> int:
        """Take over the newest checkpoint; returns its step, 0 where there is none."""
        found = self._checkpoints.newest(self._progress.say) if self._world.lead else None
        step = self._world.same(None if found is None else found.step)
        if step is None:
            return 0
        found = found or self._checkpoints.load(step)
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
        self._keep = found.facts["keep"]
        self.curves = [json.loads(line) for line in found.curves.splitlines()]
        return step

    def curves_jsonl(self) -> bytes:
        """The curves, one JSON object a line."""
        return "".join(json.dumps(line) + "\n" for line in self.curves).encode()

    @contextmanager
    def _explaining_memory(self) -> Iterator[None]:
        with out_of_memory_says(remedy(self._spec, recompute=self._student.causal.is_gradient_checkpointing)):
            yield
