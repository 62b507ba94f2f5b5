"""An engine that says what it is told, and the pieces an evaluation needs around it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from transformers import PreTrainedTokenizerBase

from dail_runtime.records import Sample
from dail_runtime.rewrite.engine import Request, Sampling, Tick

Script = Callable[[str, int, int], str]
"""(prompt text, seed, sample index) -> what the model says."""


@dataclass
class ScriptedEngine:
    """Implements the Engine protocol with a script instead of a model. Text longer than `max_tokens` is cut, as by a real one."""

    tokenizer: PreTrainedTokenizerBase
    script: Script
    eos: int
    requests: list[Request] = field(default_factory=list)
    """Every request it was given."""
    calls: int = 0
    """How often `generate` was called."""
    closed: bool = False

    def generate(
        self, requests: Iterable[Request], sampling: Sampling, *, tick: Tick | None = None
    ) -> Iterator[tuple[Request, tuple[Sample, ...]]]:
        """Two requests are under way at a time, and the later one comes back first."""
        self.calls += 1
        held: list[Request] = []
        done = 0
        for request in requests:
            self.requests.append(request)
            held.append(request)
            if tick is not None:
                tick(done, 10 * done)
            if len(held) == 2:
                done += len(held[1].samples)
                second = held.pop()
                yield second, self._samples(second, sampling)
        for request in held:
            yield request, self._samples(request, sampling)

    def facts(self) -> dict[str, int]:
        """A batch size like that of a real engine."""
        return {"batch_size": 2}

    def close(self) -> None:
        """Nothing to give back."""
        self.closed = True

    def _samples(self, request: Request, sampling: Sampling) -> tuple[Sample, ...]:
        prompt = self.tokenizer.decode(request.contexts[0])
        return tuple(self._sample(prompt, request.seed, index, sampling) for index in request.samples)

    def _sample(self, prompt: str, seed: int, index: int, sampling: Sampling) -> Sample:
        ids = [*self.tokenizer.encode(self.script(prompt, seed, index), add_special_tokens=False), self.eos]
        cut = ids[: sampling.max_tokens]
        text = self.tokenizer.decode([id_ for id_ in cut if id_ != self.eos])
        return Sample(index=index, ids=tuple(cut), text=text, finish="stop" if cut[-1] == self.eos else "length", logprob=-1.0)


def chance(seed: int, index: int) -> float:
    """A number in [0, 1) that belongs to (seed, index)."""
    return int.from_bytes(hashlib.sha256(f"{seed} {index}".encode()).digest()[:4], "big") / 2**32


@dataclass
class Notes:
    """A Progress that remembers."""

    updates: list[tuple[float, float, str]] = field(default_factory=list)
    said: list[str] = field(default_factory=list)

    def update(self, done: float, total: float, unit: str, **figures: float) -> None:
        """Remember."""
        assert all(value >= 0 for value in figures.values())
        self.updates.append((done, total, unit))

    def say(self, sentence: str) -> None:
        """Remember."""
        self.said.append(sentence)
