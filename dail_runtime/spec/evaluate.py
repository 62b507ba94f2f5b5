"""The `evaluate` section: what is measured, how often and within which budgets."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, field_validator, model_validator

from dail_runtime.spec.base import Section


class EvaluateSpec(Section):
    """Sampling of answers to the evaluation problems, the same for every model."""

    samples: int = Field(default=128, ge=1, le=4096)
    """Answers per problem."""
    pass_at: tuple[Annotated[int, Field(ge=1)], ...] = ()
    """The k of pass@k. Empty: 1, 2, 4, ... up to `samples`."""
    max_tokens: int = Field(default=4096, ge=1)
    """Most tokens of one answer."""
    budgets: tuple[Annotated[int, Field(ge=1)], ...] = ()
    """Token budgets of the accuracy-per-token curve: an answer that is not finished there is cut and forced to an
    end."""
    budget_samples: int = Field(default=1, ge=1)
    """Answers per problem that are measured within each budget (the first so many samples)."""
    forced_answer: str = "\n\nThe final answer is \\boxed{"
    """What is appended to a cut answer (after </think>, where the model was still thinking)."""
    forced_tokens: int = Field(default=32, ge=1)
    """Tokens the model may add after `forcedAnswer`."""
    temperature: float = Field(default=0.6, ge=0, le=10)
    """Sampling temperature; 0 is greedy."""
    top_p: float = Field(default=0.95, gt=0, le=1)
    """Nucleus."""
    targets: tuple[str, ...] = ()
    """Models to evaluate: `base` and names of variants. Empty: all. Left-out ones are still trained."""
    primary: str | None = None
    """The variant the verdict is about. Null: the first."""
    teacher_check: bool = True
    """Measure the teacher before training: privileged accuracy at the sampling temperature and at 1, and what the
    traces cost each context."""

    @field_validator("pass_at", "budgets")
    @classmethod
    def _rising(cls, values: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(sorted(set(values)))

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.pass_at and self.pass_at[-1] > self.samples:
            raise ValueError(f"pass@{self.pass_at[-1]} needs at least {self.pass_at[-1]} samples; raise evaluate.samples or lower passAt")
        if self.budgets and self.budgets[-1] > self.max_tokens:
            raise ValueError(
                f"a budget of {self.budgets[-1]} tokens is over evaluate.maxTokens {self.max_tokens}; raise maxTokens or lower the budget"
            )
        if self.budget_samples > self.samples:
            raise ValueError(f"evaluate.budgetSamples {self.budget_samples} is over evaluate.samples {self.samples}; lower it")
        return self

    def ks(self) -> tuple[int, ...]:
        """The k of pass@k: as given, else the powers of two up to `samples`."""
        return self.pass_at or tuple(2**i for i in range(self.samples.bit_length()))
