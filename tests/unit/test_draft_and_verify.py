"""Draft-and-verify: its bounds against whole distributions, and its loop against the closed form, over a server of known tables."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dail_runtime.errors import SetupError
from dail_runtime.rewrite.policies import Shaping, distribution
from dail_runtime.rewrite.vllm_http.bounds import bounds
from dail_runtime.rewrite.vllm_http.draft import TOLD, Drafting, draft_and_verify
from dail_runtime.rewrite.vllm_http.wire import GarbledReply

VOCABULARY = 40


def logits(seed: int, spread: float, size: int = VOCABULARY) -> torch.Tensor:
    return spread * torch.randn(1, size, generator=torch.Generator().manual_seed(seed))


def told(values: torch.Tensor, top: int, *others: int) -> dict[int, float]:
    """What a server tells: the most likely tokens and the one asked for."""
    scores = torch.log_softmax(values[0], dim=-1)
    return {id_: float(scores[id_]) for id_ in [*scores.topk(top).indices.tolist(), *others]}


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    spread=st.sampled_from([0.1, 1.0, 3.0, 8.0]),
    top=st.sampled_from([1, 3, 10, VOCABULARY]),
    temperature=st.sampled_from([0.0, 0.3, 0.6, 1.0, 1.5]),
    top_p=st.sampled_from([0.3, 0.8, 0.95, 1.0]),
    suppress=st.sampled_from([(), (3,), (0, 1, 2)]),
)
def test_the_truth_lies_within_the_bounds(
    seed: int, spread: float, top: int, temperature: float, top_p: float, suppress: tuple[int, ...]
) -> None:
    values = logits(seed, spread)
    exact = distribution(values, Shaping.of([temperature], [top_p], suppress=suppress))[0]
    for token in range(VOCABULARY):
        for others in ((token,), ()):
            low, high = bounds(
                told(values, top, *others),
                token,
                top=top,
                vocabulary=VOCABULARY,
                temperature=temperature,
                top_p=top_p,
                suppress=suppress,
            )
            assert low - 1e-5 <= float(exact[token]) <= high + 1e-5
            if top == VOCABULARY:
                assert high - low < 1e-3


def test_the_likely_tokens_decide_most_cases() -> None:
    open_cases = cases = 0
    for seed in range(100):
        values = logits(seed, 5.0, 2000)
        for token in values[0].topk(3).indices.tolist():
            low, high = bounds(told(values, TOLD, token), token, top=TOLD, vocabulary=2000, temperature=0.6, top_p=0.95)
            cases += 1
            open_cases += low < 0.5 <= high
    assert open_cases < 0.02 * cases


class Tables:
    """A server whose next-token distributions depend on the context and the number of tokens; it speaks vLLM's API."""

    def __init__(self, *, whole: bool, seed: int) -> None:
        self._whole, self._random = whole, random.Random(seed)
        self.calls: list[dict[str, Any]] = []

    def scores(self, ids: list[int]) -> torch.Tensor:
        """Log-probabilities at temperature 1 after `ids`; the first id names the context."""
        return torch.log_softmax(logits(1000 + len(ids), 1.5)[0] + logits(97 * ids[0] + len(ids), 1.0)[0], dim=-1)

    async def ask(self, body: dict[str, Any]) -> Any:
        """A reply of /v1/completions."""
        self.calls.append(body)
        if body["logprobs"] == -1 and not self._whole:
            raise SetupError("HTTP 400: Requested sample logprobs of 40, which is greater than max allowed: 20")
        choices = []
        for _ in range(body.get("n", 1)):
            ids: list[int] = []
            while len(ids) < body["max_tokens"] and not (ids and ids[-1] in body["stop_token_ids"]):
                shaping = Shaping.of([body["temperature"]], [body["top_p"]])
                probs = distribution(self.scores([*body["prompt"], *ids])[None], shaping)[0]
                ids.append(self._random.choices(range(VOCABULARY), probs.tolist())[0])
            choices.append({"token_ids": ids, "finish_reason": "length"})
        if body["logprobs"] == -1:
            scores = self.scores(body["prompt"])
            choices[0]["logprobs"] = {"top_logprobs": [{f"token_id:{id_}": float(value) for id_, value in enumerate(scores)}]}
        if "prompt_logprobs" in body:
            places: list[Any] = [None]
            for place in range(1, len(body["prompt"])):
                told_there = told(self.scores(body["prompt"][:place])[None], body["prompt_logprobs"], body["prompt"][place])
                places.append({str(id_): {"logprob": value, "rank": 1} for id_, value in told_there.items()})
            choices[0]["prompt_logprobs"] = places
        return {"choices": choices}


def drafting(**changes: Any) -> Drafting:
    usual: dict[str, Any] = {
        "model": "m",
        "contexts": ([1], [2]),
        "limit": 2,
        "stop": frozenset(),
        "temperature": 0.7,
        "top_p": 0.9,
        "tau": 0.1,
        "tries": 1,
        "suppress": (),
        "vocabulary": VOCABULARY,
        "seed": lambda number: number,
    }
    return Drafting(**{**usual, **changes})


@pytest.mark.parametrize(("tau", "tries"), [(0.1, 1), (0.1, 3), (0.3, 2)])
def test_tokens_and_branches_have_the_policys_distribution(tau: float, tries: int) -> None:
    count = 1500
    server = Tables(whole=True, seed=1)
    shaping = Shaping.of([0.7], [0.9])
    own, shown = (distribution(server.scores([context])[None], shaping)[0].double() for context in (1, 2))
    kept = own * (shown >= tau)
    accept = 1 - (1 - kept.sum()) ** tries
    exact = accept * kept / kept.sum().clamp_min(1e-12) + (1 - accept) * shown
    assert 0.1 < float(accept) < 0.95
    seen, accepted = torch.zeros(VOCABULARY, dtype=torch.double), 0
    for _ in range(count):
        ids, from_student = asyncio.run(draft_and_verify(server.ask, drafting(limit=1, tau=tau, tries=tries)))
        seen[ids[0]] += 1
        accepted += from_student
    assert not seen[exact == 0].any()
    usual = exact * count >= 5
    expected = torch.cat([exact[usual] * count, exact[~usual].sum()[None] * count])
    counted = torch.cat([seen[usual], seen[~usual].sum()[None]])
    freedom = len(expected) - 1
    chi = float(((counted - expected) ** 2 / expected.clamp_min(1e-9)).sum())
    assert chi < freedom + 4 * (2 * freedom) ** 0.5
    assert accepted / count == pytest.approx(float(accept), abs=4 * (float(accept) / count) ** 0.5)


def test_the_ends_of_tau_and_of_a_response() -> None:
    server = Tables(whole=False, seed=2)
    ids, accepted = asyncio.run(draft_and_verify(server.ask, drafting(tau=0.0, limit=30)))
    assert (len(ids), accepted) == (30, 30)
    assert {body["prompt"][0] for body in server.calls} == {1}
    server = Tables(whole=False, seed=2)
    ids, accepted = asyncio.run(draft_and_verify(server.ask, drafting(tau=1.5, limit=30)))
    assert (len(ids), accepted, len(server.calls)) == (30, 0, 1)
    assert server.calls[0]["prompt"] == [2]
    ids, _ = asyncio.run(draft_and_verify(Tables(whole=True, seed=3).ask, drafting(limit=200, stop=frozenset(range(20)))))
    assert len(ids) < 200
    assert ids[-1] < 20
    assert min(ids[:-1], default=20) >= 20


def test_greedy_is_the_greedy_teacher() -> None:
    server = Tables(whole=False, seed=4)
    ids, _ = asyncio.run(draft_and_verify(server.ask, drafting(temperature=0.0, top_p=1.0, limit=40, tau=0.5)))
    said: list[int] = []
    for _ in range(40):
        said.append(int(server.scores([2, *said]).argmax()))
    assert list(ids) == said


def test_a_server_that_hides_what_decides_is_refused_with_the_remedy() -> None:
    hidden = drafting(temperature=1.5, top_p=0.95, tau=0.02, limit=40)
    with pytest.raises(SetupError, match=r"start the servers with --max-logprobs -1 \(HTTP 400"):
        asyncio.run(draft_and_verify(Tables(whole=False, seed=0).ask, hidden))
    asyncio.run(draft_and_verify(Tables(whole=True, seed=0).ask, hidden))


def test_replies_without_log_probabilities_are_garbled() -> None:
    async def bare(body: dict[str, Any]) -> Any:
        reply = await Tables(whole=True, seed=0).ask(body)
        reply["choices"][0].pop("prompt_logprobs", None)
        return reply

    with pytest.raises(GarbledReply, match="no log-probabilities of the prompt"):
        asyncio.run(draft_and_verify(bare, drafting()))
