"""What travels: the bodies of requests to vLLM's /v1/completions and what is read from the replies. Token ids both ways; pure."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dail_runtime.rewrite.vllm_plugin.requests import RESULTS, Row

COMPLETIONS = "/v1/completions"
MODELS = "/v1/models"
HEALTH = "/health"

_NEUTRAL: Mapping[str, Any] = {
    # Named one by one: what a request leaves out, the server fills in from the model's own files.
    "top_k": 0,
    "min_p": 0.0,
    "repetition_penalty": 1.0,
    "presence_penalty": 0.0,
    "frequency_penalty": 0.0,
    "ignore_eos": True,
    "return_token_ids": True,
    "return_tokens_as_token_ids": True,
}


class GarbledReply(Exception):
    """A reply that is no completion: cut, changed, or from something else than vLLM."""


@dataclass(frozen=True)
class Completion:
    """One finished request."""

    ids: tuple[int, ...]
    """Response token ids, the one that ended it included."""
    values: tuple[float, ...]
    """What the plugin tells about each; empty where vLLM drew them."""
    finish: str
    """`stop`, `length` or `abort`."""
    reason: str | None
    """Why it was aborted, where the plugin did it."""


def drawn_by_plugin(model: str, ids: Sequence[int], limit: int, stop: Sequence[int], row: Row) -> dict[str, Any]:
    """A request whose tokens the plugin draws."""
    return {
        **_NEUTRAL,
        "model": model,
        "prompt": list(ids),
        "max_tokens": limit,
        "stop_token_ids": list(stop),
        "temperature": 0.0,
        "top_p": 1.0,
        "vllm_xargs": row.to_args(),
    }


def drawn_by_vllm(
    model: str,
    ids: Sequence[int],
    limit: int,
    stop: Sequence[int],
    *,
    temperature: float,
    top_p: float,
    seed: int,
    suppress: Sequence[int] = (),
    logprobs: int | None = None,
) -> dict[str, Any]:
    """A request that vLLM's own sampler serves.

    The seed keeps servers that were started anew from drawing again what they drew before; what vLLM's CPU build must be told for
    it is in the README. `suppress` lowers logits by 100, the most the API offers: never, for all purposes.
    """
    body = {
        **_NEUTRAL,
        "model": model,
        "prompt": list(ids),
        "max_tokens": limit,
        "stop_token_ids": list(stop),
        "temperature": temperature,
        "top_p": top_p,
        "seed": seed,
        "logprobs": logprobs,
    }
    return {**body, "logit_bias": {str(id_): -100 for id_ in suppress}} if suppress else body


def read_completion(reply: Any, *, plugin: bool) -> Completion:
    """The one choice of a reply.

    Args:
        plugin: Whether the plugin drew it.

    Raises:
        GarbledReply: it lacks something.
    """
    try:
        (choice,) = reply["choices"]
        ids = tuple(choice["token_ids"] or ())
        values = tuple((reply.get("kv_transfer_params") or {}).get(RESULTS) or ()) if plugin else ()
        finish, reason = choice["finish_reason"], choice.get("stop_reason")
    except (KeyError, TypeError, ValueError, AttributeError) as err:
        raise GarbledReply(f"the reply is no completion with token ids ({type(err).__name__}: {err})") from None
    if finish != "abort":
        if not ids or not all(type(id_) is int and id_ >= 0 for id_ in ids):
            raise GarbledReply("the reply holds no token ids")
        if plugin and (len(values) != len(ids) or not all(isinstance(value, int | float) and math.isfinite(value) for value in values)):
            raise GarbledReply(f"the reply holds {len(ids)} tokens and {len(values)} results")
    return Completion(ids, tuple(map(float, values)) if finish != "abort" else (), str(finish), reason if isinstance(reason, str) else None)


def read_choices(reply: Any, most: int, vocabulary: int) -> list[list[int]]:
    """The token ids of every choice, each of 1 to `most` ids below `vocabulary`.

    Raises:
        GarbledReply: they are not.
    """
    try:
        found = [list(choice["token_ids"]) for choice in reply["choices"]]
        aborted = any(choice["finish_reason"] not in ("stop", "length") for choice in reply["choices"])
    except (KeyError, TypeError) as err:
        raise GarbledReply(f"the reply is no completion with token ids ({type(err).__name__}: {err})") from None
    if (
        not found
        or aborted
        or not all(0 < len(ids) <= most and all(type(id_) is int and 0 <= id_ < vocabulary for id_ in ids) for ids in found)
    ):
        raise GarbledReply("the reply does not hold the token ids that were asked for")
    return found


def read_prompt_logprobs(reply: Any) -> list[Mapping[int, float]]:
    """For each position of the prompt, token id -> log-probability; the first has none.

    Raises:
        GarbledReply: they are missing.
    """
    try:
        return [{int(id_): float(one["logprob"]) for id_, one in (place or {}).items()} for place in reply["choices"][0]["prompt_logprobs"]]
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as err:
        raise GarbledReply(f"the reply holds no log-probabilities of the prompt ({type(err).__name__}: {err})") from None


def read_top_logprobs(reply: Any) -> Mapping[int, float]:
    """Token id -> log-probability of the first generated token.

    Raises:
        GarbledReply: they are missing.
    """
    try:
        (told, *_) = reply["choices"][0]["logprobs"]["top_logprobs"]
        return {int(name.removeprefix("token_id:")): float(value) for name, value in told.items()}
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as err:
        raise GarbledReply(f"the reply holds no log-probabilities ({type(err).__name__}: {err})") from None


def refusal(text: str) -> str:
    """The message of an error reply, cut to a line."""
    try:
        reply = json.loads(text)
        said = reply.get("error", reply)
        message = said.get("message") if isinstance(said, dict) else said
        shown = str(message or reply.get("detail") or text)
    except (ValueError, AttributeError):
        shown = text
    return (shown.strip().splitlines() or ["no reason given"])[0][:500].rstrip(".")
