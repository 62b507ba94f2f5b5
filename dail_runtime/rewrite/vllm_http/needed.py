"""What a server must serve to be of use to a job, as its list of models tells."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from dail_runtime.rewrite.vllm_http.faults import Unfit


@dataclass(frozen=True)
class Needed:
    """What a replica must be."""

    model: str
    """Name under which it serves the model."""
    length: int
    """Tokens of prompt plus response that it must take."""
    token: int
    """Some token id of the model."""


def check_models(listed: str, needed: Needed) -> None:
    """Compare what a server lists with what is needed.

    Raises:
        Unfit: it is something else; says what, and the remedy.
    """
    try:
        models = {str(one["id"]): one for one in json.loads(listed)["data"]}
    except (ValueError, KeyError, TypeError):
        raise Unfit("it is no vLLM server: its list of models cannot be read") from None
    if needed.model not in models:
        raise Unfit(
            f"it serves {_names(list(models))} and not {needed.model}; start it with python -m dail_runtime.serve, "
            f"or with --served-model-name {needed.model}"
        )
    longest = models[needed.model].get("max_model_len")
    if isinstance(longest, int) and longest < needed.length:
        raise Unfit(
            f"it takes sequences of {longest} tokens and the job needs {needed.length}; "
            f"start it with --max-model-len {needed.length}, or set model.maxLength: {longest}"
        )


def _names(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) or "no model"
