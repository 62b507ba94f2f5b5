"""Training against the loop one would write first: the same model, rows, steps and optimiser, on random weights.

The plain loop pads every batch to its longest row, runs the three contexts through the whole model with full logits, takes three
log-softmaxes and lets autograd do the rest; it recomputes the references in every epoch. Both train all epochs once, in turn.

tokens_per_s_vs_plain_loop: response tokens a second of the whole training, computing the references included, over the plain loop's.
cached_epoch_vs_first: time of an epoch that finds the references kept, over that of the first, which computes them.
lora_step_mfu: what a step with kept references has to compute, over what the device could compute meanwhile (see bench.mfu).

Beside these it prints what checkpoints cost the loop: a training that saves after every step against one that saves at the end.
On a GPU, in bfloat16 with gradient checkpointing, `--shape 8b` is Qwen3-8B with long traces; the plain loop, whose logits would not fit
there, is then left out.

    python -m bench.train [--shape tiny|8b] [--rows 16] [--epochs 3] [--repeats 3]
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from typing import Any

import torch
from transformers import Qwen3Config, Qwen3ForCausalLM

from bench.common import interleaved, last_line
from bench.mfu import peak_flops, step_flops
from dail_runtime.models import free_device_memory, pick_device
from dail_runtime.spec.train import TrainSpec
from dail_runtime.stages.follow import Silent
from dail_runtime.store import open_store
from dail_runtime.train.adapter import Student
from dail_runtime.train.batches import Course
from dail_runtime.train.checkpoint import Checkpoints
from dail_runtime.train.data import Row
from dail_runtime.train.loop import Training
from dail_runtime.train.ranks import Place
from dail_runtime.train.schedule import learning_rate
from dail_runtime.train.world import World

SEED = 7
CLOSE = 2e-2
"""Relative difference of the two loops' last losses that is still the same training: sums in another order, passed on by Adam."""


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m bench.train", description="Training against a plain loop.")
    parser.add_argument("--shape", choices=SHAPES, default="tiny")
    parser.add_argument("--rows", type=int, default=16)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    bench = _Bench(SHAPES[arguments.shape], arguments)
    cases = {"saving": lambda: bench.dail(checkpoint_every=1), "dail": bench.dail}
    if SHAPES[arguments.shape].plain:
        cases["plain"] = bench.plain
    speeds = interleaved(cases, arguments.repeats)
    ratios: dict[str, float] = {}
    print(f"response tokens a second over {arguments.epochs} epochs: {', '.join(f'{name} {speed:.0f}' for name, speed in speeds.items())}")
    if "plain" in cases:
        ours, theirs = bench.losses["dail"], bench.losses["plain"]
        if abs(ours - theirs) > CLOSE * abs(theirs):
            sys.exit(f"the two loops do not train the same: last losses {ours:.6g} and {theirs:.6g}")
        ratios["tokens_per_s_vs_plain_loop"] = speeds["dail"] / speeds["plain"]
    print(f"a checkpoint after every step: {100 * (speeds['dail'] / speeds['saving'] - 1):.1f}% longer than one at the end")
    first, cached = bench.epochs
    print(f"epochs: the first {first:.2f} s, with references kept {cached:.2f} s")
    done, (peak, source) = bench.flops / cached, peak_flops(bench.device, bench.dtype)
    print(f"a LoRA step: {done / 1e12:.3g} of {peak / 1e12:.3g} TFLOP/s ({source})")
    last_line("train", {**ratios, "cached_epoch_vs_first": cached / first, "lora_step_mfu": done / peak})


@dataclass(frozen=True)
class _Shape:
    """A model and the traces it learns from."""

    config: dict[str, Any]
    """Of Qwen3."""
    longer: int
    """Traces and prompts are so many times as long."""
    settings: dict[str, Any]
    """How it is trained."""
    plain: bool
    """Whether there is room for the plain loop."""


SHAPES = {
    "tiny": _Shape(
        {
            "vocab_size": 32_768,
            "hidden_size": 256,
            "intermediate_size": 768,
            "num_hidden_layers": 4,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "head_dim": 64,
            "tie_word_embeddings": True,
            "initializer_range": 0.1,
        },
        1,
        {"microBatchTokens": 4096},
        True,
    ),
    "8b": _Shape(
        {
            "vocab_size": 151_936,
            "hidden_size": 4096,
            "intermediate_size": 12_288,
            "num_hidden_layers": 36,
            "num_attention_heads": 32,
            "num_key_value_heads": 8,
            "head_dim": 128,
            "tie_word_embeddings": False,
        },
        10,
        {"gradientCheckpointing": "on"},
        False,
    ),
}


class _Bench:
    """One model and its rows; every training starts from the same fresh adapter."""

    def __init__(self, shape: _Shape, arguments: argparse.Namespace) -> None:
        self.device = pick_device()
        self.dtype = torch.bfloat16 if self.device.type == "cuda" else torch.float32
        self._config = Qwen3Config(**shape.config)
        self._rows = _rows(arguments.rows, self._config.vocab_size, shape.longer)
        self._spec = TrainSpec.model_validate({"batchSize": 8, "epochs": arguments.epochs, "cacheReferences": "on", **shape.settings})
        self._course = Course(self._spec, len(self._rows), SEED)
        self.losses: dict[str, float] = {}
        """Loop -> loss of its last step."""
        self.epochs = (0.0, 0.0)
        """Seconds of the first epoch and of a later one, in the last training."""
        self.flops = step_flops(self._config, self._rows)
        """What a later epoch has to compute."""

    def _student(self, spec: TrainSpec) -> Student:
        free_device_memory()
        torch.manual_seed(SEED)
        with self.device:
            model = Qwen3ForCausalLM._from_config(self._config, dtype=self.dtype).requires_grad_(False).eval()
        return Student(model, spec.lora, seed=SEED, recompute=spec.gradient_checkpointing == "on")

    def dail(self, checkpoint_every: int = 1000) -> float:
        """Train; response tokens a second."""
        spec = self._spec.model_copy(update={"checkpoint_every": checkpoint_every})
        student, clock = self._student(spec), _Clock(self._course.per_epoch)
        with tempfile.TemporaryDirectory(prefix="dail-bench-") as folder:
            checkpoints = Checkpoints(open_store(folder), keep=1)
            training = Training(
                student,
                self._rows,
                spec,
                seed=SEED,
                checkpoints=checkpoints,
                progress=clock,
                stop=threading.Event(),
                world=World(Place(), student.device),
            )
            began = time.perf_counter()
            training.run()
            seconds = time.perf_counter() - began
        ends = [began, *clock.epochs]
        self.epochs = (ends[1] - ends[0], (ends[-1] - ends[1]) / (len(ends) - 2))
        self.losses["dail"] = training.curves[-1]["loss"]
        return float(training.curves[-1]["tokens"]) / seconds

    def plain(self) -> float:
        """Train in the plain way; response tokens a second."""
        spec, student = self._spec, self._student(self._spec)
        weights = list(student.trainable.values())
        optimizer = torch.optim.AdamW(weights, lr=spec.learning_rate, betas=spec.betas, weight_decay=spec.weight_decay)
        began, tokens = time.perf_counter(), 0
        for step in range(self._course.total):
            rows = [self._rows[one] for one in self._course[step].rows]
            mask = _padded([row.response for row in rows])[1].bool().to(self.device)
            student.peft.train()
            log_student = torch.log_softmax(_logits(student, rows, "student"), -1)
            with torch.no_grad(), student.peft.disable_adapter():
                log_teacher, log_negative = (torch.log_softmax(_logits(student, rows, name), -1) for name in ("teacher", "negative"))
            p = log_student.exp()
            values = (p * (log_student - log_teacher)).sum(-1) - spec.gamma * (p * (log_student - log_negative)).sum(-1)
            loss = values[mask].mean()
            torch.autograd.backward(loss)
            torch.nn.utils.clip_grad_norm_(weights, spec.max_grad_norm)
            rate = learning_rate(step, total=self._course.total, warmup=spec.warmup_steps, peak=spec.learning_rate, schedule=spec.schedule)
            optimizer.param_groups[0]["lr"] = rate
            optimizer.step()
            optimizer.zero_grad()
            tokens += int(mask.sum())
        self.losses["plain"] = float(loss.detach())
        return tokens / (time.perf_counter() - began)


class _Clock(Silent):
    """Progress that notes when each epoch ends."""

    def __init__(self, per_epoch: int) -> None:
        self._per_epoch = per_epoch
        self.epochs: list[float] = []

    def update(self, done: float, total: float, unit: str, **figures: float) -> None:
        """See `Progress.update`."""
        del total, figures
        if unit == "steps" and done % self._per_epoch == 0:
            self.epochs.append(time.perf_counter())


def _rows(count: int, vocabulary: int, longer: int) -> list[Row]:
    """Ragged rows, `longer` times as long as the shortest sensible ones: references see a solution beside the problem."""
    draw = random.Random(SEED)

    def ids(low: int, high: int) -> tuple[int, ...]:
        return tuple(draw.randrange(vocabulary) for _ in range(draw.randint(longer * low, longer * high)))

    return [
        Row(f"p{number}", {"student": ids(40, 160), "teacher": ids(120, 400), "negative": ids(60, 200)}, ids(30, 200))
        for number in range(count)
    ]


def _padded(sequences: list[tuple[int, ...]]) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids and mask [sequences, longest], padded on the right."""
    longest = max(map(len, sequences))
    ids, mask = torch.zeros(len(sequences), longest, dtype=torch.long), torch.zeros(len(sequences), longest, dtype=torch.long)
    for number, one in enumerate(sequences):
        ids[number, : len(one)], mask[number, : len(one)] = torch.tensor(one), 1
    return ids, mask


def _logits(student: Student, rows: list[Row], context: str) -> torch.Tensor:
    """Logits [rows, longest response, V] that predict the responses, from the whole model's logits of the whole padded batch."""
    prompts = [row.prompts[context] for row in rows]  # type: ignore[index]
    ids, mask = (one.to(student.device) for one in _padded([(*prompt, *row.response) for prompt, row in zip(prompts, rows, strict=True)]))
    logits = student.causal(input_ids=ids, attention_mask=mask, use_cache=False).logits
    longest = max(len(row.response) for row in rows)
    starts = torch.tensor([len(prompt) - 1 for prompt in prompts])[:, None]
    places = (starts + torch.arange(longest)).clamp_max(ids.shape[1] - 1).to(student.device)
    chosen: torch.Tensor = logits.gather(1, places[:, :, None].expand(-1, -1, logits.shape[-1]))
    return chosen


if __name__ == "__main__":
    main()
