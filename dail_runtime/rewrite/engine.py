"""What every generation engine promises: requests of token ids in, samples out, the same ones however they are batched."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from dail_runtime.errors import SetupError
from dail_runtime.records import Sample
from dail_runtime.spec.model import ModelSpec
from dail_runtime.spec.rewrite import Engine as EngineSpec
from dail_runtime.spec.rewrite import Policy, TransformersEngine, VllmEngine, VllmHttpEngine
from dail_runtime.spec.servers import SERVERS

Tick = Callable[[int, int], None]
"""Called about once a second with (samples finished, tokens drawn) since `generate` began; it may raise to stop the work."""


@dataclass(frozen=True)
class Request:
    """Some samples of one problem. They share its contexts."""

    key: str
    """The caller's name for it; comes back with the samples and stands in messages."""
    contexts: tuple[tuple[int, ...], ...]
    """Prompt token ids: one context for `direct`, two for `mixed` (proposer = student, validator = teacher)."""
    samples: tuple[int, ...]
    """Which sample indices to draw, at least one."""
    seed: int
    """Of the problem, below 2**64. Each (seed, index) has a stream of its own, so that a sample does not depend on its neighbours."""


@dataclass(frozen=True)
class Sampling:
    """How responses are drawn; the same for every request of one `generate`."""

    max_tokens: int
    """Most tokens of one response, EOS included. The model's length may cut it shorter; either way it finishes as `length`."""
    temperature: float
    """Of every distribution involved; 0 is greedy."""
    top_p: float
    """Nucleus of every distribution involved, in (0, 1]."""
    policy: Policy
    """`direct` samples from the one context; `mixed` from both (see rewrite/policies.py)."""
    suppress: tuple[int, ...]
    """Token ids that can never be drawn: masked before the softmax."""
    eos: frozenset[int]
    """Token ids that end a response; the one that did is kept as its last id."""


class Engine(Protocol):
    """Runs one model."""

    def generate(
        self, requests: Iterable[Request], sampling: Sampling, *, tick: Tick | None = None
    ) -> Iterator[tuple[Request, tuple[Sample, ...]]]:
        """Yield each request once, with its samples in the order of `request.samples`, as soon as they are all done.

        Requests come back in any order and are pulled as room appears, so `requests` may be long and lazy. What a sample
        is depends on its request, its index and `sampling` alone (engines name their exceptions).

        Raises:
            ModelError: a prompt leaves no room for a response, or the model gives numbers that are not finite.
        """
        ...

    def facts(self) -> dict[str, int]:
        """What the engine chose by itself and results may depend on, for the counts: `batch_size` where it has one."""
        ...

    def close(self) -> None:
        """Give memory, devices and processes back. Harmless twice."""
        ...


def problem_seed(seed: int, stage: str, set_: str, id_: str) -> int:
    """Seed (63 bits) of one problem in one stage: a digest, so that no two problems share streams and file order plays no part."""
    text = json.dumps([seed, stage, set_, id_], ensure_ascii=False)
    return int.from_bytes(hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()[:8], "big") >> 1


def open_engine(
    engine_spec: EngineSpec,
    model_spec: ModelSpec,
    *,
    adapter: Path | None = None,
    responses: int | None = None,
    say: Callable[[str], None] | None = None,
) -> Engine:
    """The engine that `engine_spec` names, with the model loaded.

    Args:
        adapter: folder of a LoRA adapter that is applied to the model.
        responses: how many responses the whole task draws, those of earlier attempts included. An automatic batch size
            does not exceed it. It must not shrink when a task is resumed, else the batch size would change with it.
        say: takes sentences for the user, for example about servers that are waited for.

    Raises:
        ModelError, SetupError: the model cannot be loaded here.
    """
    if os.environ.get(SERVERS, "").strip() and not isinstance(engine_spec, VllmHttpEngine):
        # What servers draw must not be filed as the results of another engine.
        raise SetupError(
            f"{SERVERS} names servers, but the job's rewrite.engine is {engine_spec.kind}; "
            f"unset {SERVERS}, or set rewrite.engine: {{kind: vllm-http}}"
        )
    if isinstance(engine_spec, TransformersEngine):
        from dail_runtime.rewrite.transformers_engine import TransformersGenerator

        return TransformersGenerator.open(engine_spec, model_spec, adapter=adapter, responses=responses)
    if isinstance(engine_spec, VllmEngine):
        from dail_runtime.rewrite.vllm_engine import VllmGenerator

        return VllmGenerator.open(engine_spec, model_spec, adapter=adapter)
    from dail_runtime.rewrite.vllm_http.engine import VllmHttpGenerator

    return VllmHttpGenerator.open(engine_spec, model_spec, adapter=adapter, say=say)
