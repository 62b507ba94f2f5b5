"""The `data` section: the expert solutions, the evaluation problems and how their columns are called."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator

from dail_runtime.spec.base import Section

FileFormat = Literal["auto", "jsonl", "json", "parquet"]


class Columns(Section):
    """Names of the columns; dots lead into objects and lists (`meta.solution`, `messages.1.content`). Null: recognised by
    name (problem, question, prompt; solution, answer, ...; see the data chapter of the README)."""

    id: str | None = None
    """Column of the problem's id. Without one the id is made from the problem's text."""
    problem: str | None = None
    """Column of the problem's text."""
    solution: str | None = None
    """Column of the expert's solution: a text, or a list of texts."""
    answer: str | None = None
    """Column of the final answer. Without one it is taken from the solution (`#### 72`, last \\boxed{})."""
    hint: str | None = None
    """Column of the landmarks for the negative reference. Without one they are extracted from the solution."""


class EvaluationSet(Section):
    """Problems with known answers that measure the models; never trained on."""

    name: str = Field(min_length=1, max_length=40, pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")
    """Short name used in the report: lower-case letters, digits and '-'."""
    path: str = Field(min_length=1)
    """File of problems with answers: relative to the job file, absolute, or s3://."""
    format: FileFormat = "auto"
    """`auto` goes by the file's ending."""
    columns: Columns = Columns()
    """Column names of this file."""


class DataSpec(Section):
    """What the experts wrote, and what the result is measured on."""

    solutions: str = Field(min_length=1)
    """File of problems with expert solutions (.jsonl, .json or .parquet): relative to the job file, absolute, or
    s3://."""
    format: FileFormat = "auto"
    """`auto` goes by the file's ending."""
    columns: Columns = Columns()
    """Column names of the solutions file."""
    evaluation: tuple[EvaluationSet, ...] = ()
    """Evaluation sets; the first is the one the verdict is about. Empty: a seeded tenth of the solutions file is held
    out."""
    on_bad_row: Literal["stop", "skip"] = "stop"
    """What a bad row does: `stop` ends the job before anything is written, `skip` counts it and goes on."""
    limit: int | None = Field(default=None, ge=1)
    """Use only the first so many good rows of the solutions file."""

    @field_validator("evaluation")
    @classmethod
    def _distinct_names(cls, sets: tuple[EvaluationSet, ...]) -> tuple[EvaluationSet, ...]:
        names = [one.name for one in sets]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"two evaluation sets are called {twice[0]!r}; give each its own name")
        return sets
