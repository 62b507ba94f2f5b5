"""The `select` section: which traces are good enough to learn from."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from dail_runtime.spec.base import Section


class SelectSpec(Section):
    """Grading, leak filter, decontamination and the number kept."""

    keep: int = Field(default=1, ge=1)
    """Traces kept per problem: a seeded choice among the good ones."""
    require_correct: bool = True
    """Keep only traces whose answer is right. With false, traces are kept by the other rules alone (proofs have no answer to
    grade); where there is one, right traces are chosen first."""
    drop_leaks: bool = True
    """Drop traces that speak of the reference ("the given solution", ...)."""
    leak_phrases: tuple[Annotated[str, Field(min_length=1)], ...] = ()
    """Further phrases that give a leak away; case and the kind of space do not matter."""
    decontaminate: bool = True
    """Drop training problems that share so many words in a row with an evaluation problem. Wording that many problems share
    ("m and n are relatively prime positive integers") does not count."""
    ngram: int = Field(default=13, ge=3, le=100)
    """Words in a row that count as the same problem; shorter problems must be equal word for word."""
