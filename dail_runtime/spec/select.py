"""The `select` section: which traces are good enough to learn from."""

from __future__ import annotations

from pydantic import Field

from dail_runtime.spec.base import Section


class SelectSpec(Section):
    """Grading, leak filter, decontamination and the number kept."""

    keep: int = Field(default=1, ge=1)
    """Traces kept per problem: a seeded choice among the good ones."""
    require_correct: bool = True
    """Keep only traces whose answer is right. With false, problems without answers (proofs) are kept by the other rules
    alone."""
    drop_leaks: bool = True
    """Drop traces that speak of the reference ("the given solution", ...)."""
    leak_phrases: tuple[str, ...] = ()
    """Further phrases that give a leak away; case does not matter."""
    decontaminate: bool = True
    """Drop training problems that share an n-gram with an evaluation problem."""
    ngram: int = Field(default=13, ge=3, le=100)
    """Words in a row that count as the same problem; shorter problems must be equal word for word."""
