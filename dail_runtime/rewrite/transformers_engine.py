"""The engine inside this process: any causal transformers model, continuous batching over a slot cache, CPU or one GPU.

On a CPU a sample is the same to the last bit whatever it is batched with, in which order requests come, and how often the
work is interrupted; the batch size, the number of threads and the kind of CPU are part of that contract.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from dail_runtime.errors import ModelError
from dail_runtime.models import free_device_memory, load_model, load_tokenizer, max_length, pick_device
from dail_runtime.records import Sample
from dail_runtime.rewrite.batch import Batch, Prefill, Response, prefill
from dail_runtime.rewrite.engine import Request, Sampling, Tick
from dail_runtime.rewrite.memory import PROMPT_ROOM, Room, full_tiles
from dail_runtime.rewrite.responses import contexts_of, limit_of
from dail_runtime.rewrite.slots import use_slots
from dail_runtime.rewrite.text import Decoder
from dail_runtime.spec.model import ModelSpec
from dail_runtime.spec.rewrite import TransformersEngine

TICK_SECONDS = 1.0


@dataclass
class _Job:
    """A request under way."""

    request: Request
    prompts: tuple[Prefill, ...]
    limit: int
    unstarted: list[int]
    done: dict[int, Sample] = field(default_factory=dict)


class TransformersGenerator:
    """Implements rewrite/engine.py's Engine."""

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        *,
        length: int,
        batch_size: int | None = None,
        responses: int | None = None,
    ) -> None:
        """Take over `model`: its attention is replaced, so it serves nothing else afterwards.

        Args:
            length: Most tokens of prompt plus response.
            batch_size: Responses decoded at once, rounded up to fill whole tiles of 16 rows. None: chosen by rewrite/memory.py.
            responses: How many responses the task draws in all (see `open_engine`).
        """
        use_slots(model)
        self._model: PreTrainedModel | None = model
        self._decode = Decoder(tokenizer)
        self._length, self._asked, self._responses = length, batch_size, responses
        self._room = Room(model.device, model)
        self._chosen = 0
        self._latest: dict[int, Prefill] = {}

    @classmethod
    def open(
        cls, engine: TransformersEngine, model: ModelSpec, *, adapter: Path | None = None, responses: int | None = None
    ) -> TransformersGenerator:
        """Load the model on the device that `pick_device` names."""
        loaded = load_model(model, device=pick_device(), adapter=adapter)
        length = max_length(model, loaded.config.get_text_config())
        return cls(loaded, load_tokenizer(model), length=length, batch_size=engine.batch_size, responses=responses)

    def facts(self) -> dict[str, int]:
        """`batch_size` of the latest `generate`, once it has pulled a request."""
        return {"batch_size": self._chosen} if self._chosen else {}

    def close(self) -> None:
        """Let go of the model and its memory."""
        self._model = None
        self._latest.clear()
        free_device_memory()

    def generate(
        self, requests: Iterable[Request], sampling: Sampling, *, tick: Tick | None = None
    ) -> Iterator[tuple[Request, tuple[Sample, ...]]]:
        """See Engine.generate. A request that fits nowhere raises SetupError."""
        contexts = contexts_of(sampling)
        feed = iter(requests)
        batch: Batch | None = None
        holders: dict[int, tuple[_Job, int]] = {}
        job: _Job | None = None
        samples = tokens = 0
        told = time.monotonic()
        while True:
            while batch is None or batch.free():
                if job is None:
                    request = next(feed, None)
                    if request is None:
                        break
                    if not request.samples:
                        yield request, ()
                        continue
                    job = self._prepare(request, sampling, contexts)
                if batch is None:
                    batch = self._batch(job, sampling, contexts)
                self._check(job, contexts)
                holders.update(_start(job, batch))
                job = job if job.unstarted else None
            if batch is None or not batch.under_way():
                return
            tokens += batch.under_way()
            for slot, response in batch.step():
                owner, index = holders.pop(slot)
                owner.done[index] = self._sample(index, response, sampling.eos)
                samples += 1
                if len(owner.done) == len(owner.request.samples):
                    yield owner.request, tuple(owner.done[one] for one in owner.request.samples)
            if tick is not None and time.monotonic() - told >= TICK_SECONDS:
                tick(samples, tokens)
                told = time.monotonic()

    def _prepare(self, request: Request, sampling: Sampling, contexts: int) -> _Job:
        if self._model is None:
            raise RuntimeError("the engine is closed")
        limit = limit_of(request, sampling, self._length)
        known, highest = self._model.get_input_embeddings().weight.shape[0], max(map(max, request.contexts))
        if highest >= known:
            raise ModelError(
                f"{request.key}: its prompt holds the token id {highest}, and {self._model.config.name_or_path} knows {known} tokens; "
                "the tokenizer beside the weights is another model's: put their own there"
            )
        for context, ids in enumerate(request.contexts):
            self._latest[context] = prefill(self._model, ids, self._length, self._latest.get(context))
        return _Job(request, tuple(self._latest[context] for context in range(contexts)), limit, list(request.samples))

    def _batch(self, job: _Job, sampling: Sampling, contexts: int) -> Batch:
        assert self._model is not None
        vocabulary = job.prompts[0].logits.shape[-1]
        if self._asked is not None:
            self._chosen = full_tiles(self._asked, contexts)
        else:
            self._chosen = self._room.automatic(
                position=job.prompts[0].cache.bytes_per_position(),
                length=min(self._length, PROMPT_ROOM + sampling.max_tokens),
                vocabulary=vocabulary,
                contexts=contexts,
                responses=self._responses,
            )
        return Batch(self._model, self._chosen, contexts, sampling, vocabulary)

    def _check(self, job: _Job, contexts: int) -> None:
        self._room.check(
            job.request.key,
            self._chosen,
            position=job.prompts[0].cache.bytes_per_position(),
            length=max(len(prompt.ids) for prompt in job.prompts) + job.limit,
            vocabulary=job.prompts[0].logits.shape[-1],
            contexts=contexts,
        )

    def _sample(self, index: int, response: Response, eos: frozenset[int]) -> Sample:
        return Sample(
            index=index,
            ids=response.ids,
            text=self._decode(response.ids),
            finish="stop" if response.ids[-1] in eos else "length",
            logprob=response.logprob,
            accepted=response.accepted,
            distance=response.distance,
        )


def _start(job: _Job, batch: Batch) -> dict[int, tuple[_Job, int]]:
    """Put as many samples of `job` into `batch` as it has room for; returns slot -> (job, sample index)."""
    slots = batch.free()[: len(job.unstarted)]
    indices, job.unstarted = job.unstarted[: len(slots)], job.unstarted[len(slots) :]
    batch.admit(slots, job.prompts, job.request.seed, indices, job.limit)
    return {slot: (job, index) for slot, index in zip(slots, indices, strict=True)}
