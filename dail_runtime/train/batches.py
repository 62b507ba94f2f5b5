"""Which traces each step learns from, and how they lie in memory: seeded order, micro-batches by tokens, rows that predict."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from dail_runtime.spec.train import Objective, TrainSpec


@dataclass(frozen=True)
class Step:
    """One optimiser step."""

    objective: Objective
    """What it minimises."""
    epoch: float
    """Epochs done when it is over, warm-up epochs included."""
    rows: tuple[int, ...]
    """Indices of its traces."""


class Course:
    """Every step of a training, known beforehand: step n follows from the settings and the seed alone, so a resumed run needs only n."""

    def __init__(self, spec: TrainSpec, rows: int, seed: int) -> None:
        """`rows`: number of traces, at least 1."""
        self._spec, self._rows, self._seed = spec, rows, seed
        self.per_epoch = math.ceil(rows / spec.batch_size)
        """Steps of one epoch; the last one is smaller where the traces do not divide evenly."""
        self.warmup = 0 if spec.warmup is None else max(1, round(spec.warmup.epochs * self.per_epoch))
        """Steps of the warm-up objective; they come first."""
        self.total = self.warmup + max(1, round(spec.epochs * self.per_epoch))
        """Steps in all."""
        self.reference_epochs = (self.total - self.warmup) / self.per_epoch
        """Epochs that come after the warm-up, and compare with references where the objective does."""
        self._order: tuple[int, tuple[int, ...]] = (-1, ())

    def __getitem__(self, step: int) -> Step:
        """Step number `step`, counted from 0."""
        epoch, position = divmod(step, self.per_epoch)
        if self._order[0] != epoch:
            order = list(range(self._rows))
            random.Random(f"{self._seed}/order/{epoch}").shuffle(order)
            self._order = (epoch, tuple(order))
        rows = self._order[1][position * self._spec.batch_size : (position + 1) * self._spec.batch_size]
        warming = self._spec.warmup is not None and step < self.warmup
        objective = self._spec.warmup.objective if warming and self._spec.warmup is not None else self._spec.objective
        return Step(objective, (step + 1) / self.per_epoch, rows)


def micro_batches(lengths: Sequence[int], budget: int) -> list[list[int]]:
    """Groups of positions in `lengths` of which none, padded to its longest, has more than `budget` tokens; longest first.

    A sequence longer than `budget` goes alone. Similar lengths share a group, so little is padding.
    """
    groups: list[list[int]] = []
    for position in sorted(range(len(lengths)), key=lambda one: (-lengths[one], one)):
        # Sorted: the first of a group is its longest.
        if groups and (len(groups[-1]) + 1) * lengths[groups[-1][0]] <= budget:
            groups[-1].append(position)
        else:
            groups.append([position])
    return groups


def shares(costs: Sequence[int], size: int) -> list[list[int]]:
    """Positions in `costs` dealt to `size` ranks so that their sums are nearly equal: the largest first, each to whoever has least."""
    dealt: list[list[int]] = [[] for _ in range(size)]
    sums = [0] * size
    for position in sorted(range(len(costs)), key=lambda one: (-costs[one], one)):
        rank = sums.index(min(sums))
        dealt[rank].append(position)
        sums[rank] += costs[position]
    return [sorted(share) for share in dealt]


@dataclass(frozen=True)
class Batch:
    """Sequences padded on the right, and where in them the response is predicted."""

    ids: Tensor
    """[sequences, longest]: prompt and response without its last token, which predicts nothing. Padding repeats id 0; no real
    position ever attends to it, because attention is causal and padding comes last. So no mask is needed."""
    rows: Tensor
    """[tokens] places in the flattened [sequences * longest] whose output predicts a response token: prompt_len - 1 .. T - 2 of
    each sequence, in order."""
    labels: Tensor
    """[tokens] ids of the response tokens predicted there."""
    counts: tuple[int, ...]
    """Response tokens of each sequence."""

    @property
    def starts(self) -> Tensor:
        """[tokens] place in `rows` at which the response of each token begins."""
        counts = torch.tensor(self.counts, device=self.rows.device)
        return torch.repeat_interleave(counts.cumsum(0) - counts, counts, output_size=len(self.rows))


def collate(prompts: Sequence[tuple[int, ...]], responses: Sequence[tuple[int, ...]], device: torch.device) -> Batch:
    """A batch of prompts [n], each with its response."""
    sequences = [(*prompt, *response) for prompt, response in zip(prompts, responses, strict=True)]
    longest = max(len(sequence) for sequence in sequences) - 1
    ids = torch.zeros(len(sequences), longest, dtype=torch.long)
    rows: list[Tensor] = []
    labels: list[Tensor] = []
    for number, (prompt, sequence) in enumerate(zip(prompts, sequences, strict=True)):
        whole = torch.tensor(sequence)
        ids[number, : len(sequence) - 1] = whole[:-1]
        rows.append(torch.arange(len(prompt) - 1, len(sequence) - 1) + number * longest)
        labels.append(whole[len(prompt) :])
    return Batch(ids.to(device), torch.cat(rows).to(device), torch.cat(labels).to(device), tuple(len(response) for response in responses))
