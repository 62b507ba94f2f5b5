"""Mixed rewriting on servers without dail's plugin: the student drafts some tokens, the teacher verifies them in one request.

The loop of the method, written out with vLLM's public API: a drafted token is kept while M_T gives it at least tau; where it does
not, the student may propose `tries - 1` others, and then the teacher draws. Temperature and nucleus are vLLM's own, so the
responses have exactly the distribution of the policy, up to ties at the border of a nucleus. What a server tells about M_T are its
most likely tokens at temperature 1 (`prompt_logprobs`); where they leave open on which side of tau a token lies, the server is
asked for the whole distribution, for which it must have been started with `--max-logprobs -1`.

Slower than the plugin by far: the teacher's context is read anew for every draft. The log-probability of a response and the
distance to the teacher are not known.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from dail_runtime.errors import SetupError
from dail_runtime.rewrite.policies import Shaping, distribution
from dail_runtime.rewrite.vllm_http.bounds import bounds
from dail_runtime.rewrite.vllm_http.wire import GarbledReply, drawn_by_vllm, read_choices, read_prompt_logprobs, read_top_logprobs

TOLD = 20
"""Log-probabilities asked for at each position; more are refused by servers that were started without --max-logprobs."""
SHORTEST, LONGEST = 4, 64
"""Tokens of a draft."""

Ask = Callable[[dict[str, Any]], Awaitable[Any]]
"""Takes the body of a request; returns the parsed reply. Raises SetupError where the server refuses it."""


@dataclass(frozen=True)
class Drafting:
    """What is drawn, and how."""

    model: str
    contexts: tuple[Sequence[int], Sequence[int]]
    """Student and teacher."""
    limit: int
    """Most tokens of the response."""
    stop: frozenset[int]
    temperature: float
    top_p: float
    tau: float
    tries: int
    suppress: tuple[int, ...]
    vocabulary: int
    seed: Callable[[int], int]
    """Number of the request -> its seed; no other response has it."""


async def draft_and_verify(ask: Ask, what: Drafting) -> tuple[tuple[int, ...], int]:
    """The response's token ids and how many of them the student drew."""
    work = _Work(ask, what)
    while not work.ended():
        await work.advance()
    return tuple(work.ids), work.accepted


class _Work:
    """A response under way."""

    def __init__(self, ask: Ask, what: Drafting) -> None:
        self._ask, self._what = ask, what
        self.ids: list[int] = []
        self.accepted = 0
        self._length = 2 * SHORTEST
        self._asked = 0

    def ended(self) -> bool:
        """Whether the response is whole."""
        return len(self.ids) >= self._what.limit or bool(self.ids and self.ids[-1] in self._what.stop)

    async def advance(self) -> None:
        """Draft, verify, and add what is decided by that."""
        if self._what.tau > 1:
            self.ids += await self._drawn(1, self._what.limit)  # nothing the student says can be kept
            return
        room = self._what.limit - len(self.ids)
        draft = await self._drawn(0, min(self._length, room))
        if self._what.tau <= 0:
            self._keep(draft)
            return
        told = await self._verified(draft)
        for place, token in enumerate(draft):
            if not await self._accepts(told[place], token):
                self._length = min(LONGEST, max(SHORTEST, 2 * place))
                await self._replace(told[place])
                return
            self._keep([token])
        self._length = min(LONGEST, 2 * self._length)

    async def _replace(self, told: Mapping[int, float]) -> None:
        """Another token in place of one that was turned down."""
        if self._what.tries > 1:
            for token in await self._proposals(self._what.tries - 1):
                if await self._accepts(told, token):
                    self._keep([token])
                    return
        self.ids += await self._drawn(1, 1)

    def _keep(self, ids: Sequence[int]) -> None:
        self.ids += ids
        self.accepted += len(ids)

    async def _accepts(self, told: Mapping[int, float], token: int) -> bool:
        """Whether M_T(token) >= tau at the end of what there is."""
        what = self._what
        low, high = bounds(
            told, token, top=TOLD, vocabulary=what.vocabulary, temperature=what.temperature, top_p=what.top_p, suppress=what.suppress
        )
        if low >= what.tau:
            return True
        if high < what.tau:
            return False
        return await self._whole(token) >= what.tau

    async def _whole(self, token: int) -> float:
        """M_T(token) from the whole distribution."""
        body = self._body(1, 1, temperature=1.0, top_p=1.0, logprobs=-1)
        try:
            told = read_top_logprobs(await self._ask(body))
        except SetupError as err:
            raise SetupError(
                "draft-and-verify must see a whole distribution, because the most likely tokens leave open whether one reaches tau; "
                f"start the servers with --max-logprobs -1 ({err})"
            ) from None
        if len(told) < self._what.vocabulary // 2:
            raise GarbledReply(f"the reply holds {len(told)} log-probabilities of {self._what.vocabulary}")
        logits = torch.full((1, self._what.vocabulary), -math.inf, dtype=torch.float32)
        for id_, value in told.items():
            if id_ < self._what.vocabulary:
                logits[0, id_] = value
        shaping = Shaping.of([self._what.temperature], [self._what.top_p], suppress=self._what.suppress)
        return float(distribution(logits, shaping)[0, token])

    async def _drawn(self, context: int, tokens: int) -> list[int]:
        (ids,) = read_choices(await self._ask(self._body(context, tokens)), tokens, self._what.vocabulary)
        return ids

    async def _proposals(self, count: int) -> list[int]:
        reply = await self._ask({**self._body(0, 1), "n": count})
        return [ids[0] for ids in read_choices(reply, 1, self._what.vocabulary)]

    async def _verified(self, draft: Sequence[int]) -> list[Mapping[int, float]]:
        """For each drafted token, what the teacher tells about its place."""
        body = self._body(1, 1)
        told = read_prompt_logprobs(await self._ask({**body, "prompt": [*body["prompt"], *draft], "prompt_logprobs": TOLD}))
        if len(told) != len(body["prompt"]) + len(draft) or not all(
            token in one for token, one in zip(draft, told[-len(draft) :], strict=True)
        ):
            raise GarbledReply("the reply lacks log-probabilities of the prompt")
        return told[-len(draft) :]

    def _body(self, context: int, tokens: int, **changes: Any) -> dict[str, Any]:
        what = self._what
        self._asked += 1
        settings = {"temperature": what.temperature, "top_p": what.top_p, **changes}
        ids = [*what.contexts[context], *self.ids]
        return drawn_by_vllm(what.model, ids, tokens, sorted(what.stop), seed=what.seed(self._asked), suppress=what.suppress, **settings)
