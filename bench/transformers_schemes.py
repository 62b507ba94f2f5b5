"""Rewriting on the engine `transformers`, for bench/rewrite.py.

`generate` is what one would write without dail: prompts padded to one batch, `model.generate`, the next batch when the last row
of this one has ended. `plain` is the engine on the student's prompts, `direct` the same on the longer privileged prompts,
`mixed` both contexts of every response together. All draw the same number of responses, which end at random.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterable

import torch

from dail_runtime.models import load_model, load_tokenizer, pick_device
from dail_runtime.rewrite.engine import Request, Sampling, problem_seed
from dail_runtime.rewrite.transformers_engine import TransformersGenerator
from dail_runtime.spec.model import ModelSpec
from dail_runtime.spec.rewrite import DirectPolicy, MixedPolicy

MIXED = MixedPolicy(kind="mixed", tau=0.8)
FIRST_ID = 32
"""Prompts are random ids from here on: below are special tokens as a rule."""
MEAN_LENGTH = 60
"""Tokens after which a response of the random model ends, on average."""


class TransformersSchemes:
    """The prompts and both ways to run the model."""

    def __init__(self, spec: ModelSpec, *, problems: int, samples: int, max_tokens: int, batch_size: int) -> None:
        self._samples, self._max_tokens, self._batch_size = samples, max_tokens, batch_size
        device = pick_device()
        # Two copies of the weights: the engine takes its model's attention over.
        self._model = load_model(spec, device=device)
        tokenizer = load_tokenizer(spec)
        self._engine = TransformersGenerator(
            load_model(spec, device=device),
            tokenizer,
            length=self._model.config.get_text_config().max_position_embeddings,
            batch_size=batch_size,
        )
        self._pad = tokenizer.pad_token_id
        vocabulary = min(len(tokenizer), self._model.config.get_text_config().vocab_size)
        # A random model picks all ids alike: so many of them as ends give responses of that mean length.
        self._ends = frozenset(range(vocabulary - max(1, vocabulary // MEAN_LENGTH), vocabulary))
        source = random.Random(0)

        def prompts(least: int, most: int) -> list[tuple[int, ...]]:
            return [tuple(source.randrange(FIRST_ID, vocabulary) for _ in range(source.randint(least, most))) for _ in range(problems)]

        self._student, self._privileged = prompts(50, 100), prompts(100, 200)

    def generate(self) -> float:
        """transformers' own sampling, batch after batch."""
        rows = [ids for ids in self._student for _ in range(self._samples)]
        torch.manual_seed(0)
        begin, tokens = time.perf_counter(), 0
        for start in range(0, len(rows), self._batch_size):
            tokens += self._generated(rows[start : start + self._batch_size])
        return tokens / (time.perf_counter() - begin)

    def plain(self) -> float:
        """The engine on the student's prompts."""
        return self._drawn(((ids,) for ids in self._student), DirectPolicy())

    def direct(self) -> float:
        """The engine on the privileged prompts."""
        return self._drawn(((ids,) for ids in self._privileged), DirectPolicy())

    def mixed(self) -> float:
        """The engine on both contexts."""
        return self._drawn(zip(self._student, self._privileged, strict=True), MIXED)

    def _drawn(self, contexts: Iterable[tuple[tuple[int, ...], ...]], policy: DirectPolicy | MixedPolicy) -> float:
        indices = tuple(range(self._samples))
        requests = [Request(str(n), ids, indices, problem_seed(0, "bench", "", str(n))) for n, ids in enumerate(contexts)]
        sampling = Sampling(self._max_tokens, 1.0, 1.0, policy, (), self._ends)
        begin = time.perf_counter()
        tokens = sum(len(sample.ids) for _, samples in self._engine.generate(requests, sampling) for sample in samples)
        return tokens / (time.perf_counter() - begin)

    def _generated(self, rows: list[tuple[int, ...]]) -> int:
        width = max(map(len, rows))
        ids = torch.tensor([[self._pad] * (width - len(row)) + list(row) for row in rows], device=self._model.device)
        mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows], device=self._model.device)
        out = self._model.generate(
            ids,
            attention_mask=mask,
            do_sample=True,
            temperature=1.0,
            top_p=1.0,
            top_k=0,
            max_new_tokens=self._max_tokens,
            eos_token_id=sorted(self._ends),
            pad_token_id=self._pad,
        )
        ended = torch.isin(out[:, width:], torch.tensor(sorted(self._ends), device=out.device))
        # Tokens up to and including the first end; all of them where there is none.
        lengths = torch.where(ended.any(dim=1), ended.to(torch.uint8).argmax(dim=1) + 1, ended.shape[1])
        return int(lengths.sum())
