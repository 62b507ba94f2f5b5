"""Mixed rollouts through vLLM as it comes, for bench/rewrite.py: for each token a request to each context.

It is how one draws from two contexts without a plugin, and what the method's authors do: every response goes its own way, asks
the student's context and the teacher's for a token and the best 20 log-probabilities each, and keeps the student's token or takes
the teacher's. Requests find what they have in common with the last one in vLLM's prefix cache.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from itertools import count
from typing import Any

TOP = 20
"""Log-probabilities per context: vLLM's most unless told otherwise."""


class PerToken:
    """One stock engine for both contexts, or one for each; each in a process of its own."""

    def __init__(self, settings: dict[str, Any], *, tau: float) -> None:
        """
        Args:
            settings: Arguments of vLLM's EngineArgs.
            tau: Least probability that the teacher gives to a kept token of the student.
        """
        self._settings, self._tau = settings, tau
        self._runner = asyncio.Runner()
        self._engines: list[Any] = []
        self._numbers = count()

    def prepare(self, engines: int, prompts: Sequence[Sequence[Sequence[int]]]) -> None:
        """Has all these prompts (a list per context) in the prefix caches of one or two engines."""
        self._runner.run(self._read(engines, prompts))

    def draw(self, engines: int, prompts: Sequence[Sequence[Sequence[int]]], tokens: int) -> int:
        """Draws so many tokens after every pair of prompts; returns how many in all."""
        return self._runner.run(self._draw(engines, prompts, tokens))

    def close(self) -> None:
        """Ends the engines."""
        while self._engines:
            self._engines.pop().shutdown()
        self._runner.close()

    async def _read(self, engines: int, prompts: Sequence[Sequence[Sequence[int]]]) -> None:
        for engine, context in zip(self._two(engines), prompts, strict=True):
            await asyncio.gather(*(self._ask(engine, ids) for ids in context))

    async def _draw(self, engines: int, prompts: Sequence[Sequence[Sequence[int]]], tokens: int) -> int:
        student, teacher = self._two(engines)

        async def respond(proposer: list[int], validator: list[int]) -> int:
            for _ in range(tokens):
                proposed, own = await asyncio.gather(self._ask(student, proposer), self._ask(teacher, validator))
                [token], [judged] = proposed.token_ids, own.logprobs
                if token not in judged or judged[token].logprob < math.log(self._tau):
                    [token] = own.token_ids
                proposer.append(token)
                validator.append(token)
            return tokens

        return sum(await asyncio.gather(*(respond(list(one), list(other)) for one, other in zip(*prompts, strict=True))))

    async def _ask(self, engine: Any, ids: Sequence[int]) -> Any:
        from vllm import SamplingParams
        from vllm.inputs.engine import tokens_input
        from vllm.sampling_params import RequestOutputKind

        settings = SamplingParams(
            temperature=1.0, max_tokens=1, ignore_eos=True, detokenize=False, logprobs=TOP, output_kind=RequestOutputKind.FINAL_ONLY
        )
        answers = [answer async for answer in engine.generate(tokens_input(list(ids)), settings, str(next(self._numbers)))]
        return answers[-1].outputs[0]

    def _two(self, engines: int) -> tuple[Any, Any]:
        from vllm.engine.arg_utils import AsyncEngineArgs
        from vllm.v1.engine.async_llm import AsyncLLM

        while len(self._engines) < engines:
            self._engines.append(AsyncLLM.from_engine_args(AsyncEngineArgs(**self._settings, disable_log_stats=True)))
        return self._engines[0], self._engines[engines - 1]
