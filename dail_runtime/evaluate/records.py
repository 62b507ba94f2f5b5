"""What an evaluation writes: the graded answers of each problem, and the summary that reports read."""

from __future__ import annotations

from pydantic import ConfigDict
from pydantic.alias_generators import to_camel

from dail_runtime.records import Finish, Record, Verdict

RESULTS = "results/"
"""Prefix of the ProblemResult objects, `<safe_key("set/id")>.json`."""
RESPONSES = "responses/"
"""Prefix of the Rollout objects under the same names: the answers in full."""
SUMMARY = "summary.json"


class Answer(Record):
    """One graded answer."""

    index: int
    """Which of the n samples of its problem."""
    verdict: Verdict
    """By the box alone (see `grading`)."""
    lenient: bool
    """Right, or right by looser forms where there is no box."""
    extracted: str | None
    """Content of its box, cut to 200 characters."""
    tokens: int
    """Length in tokens, EOS included."""
    finish: Finish
    """`length`: cut at `evaluate.maxTokens`."""
    timed_out: bool = False
    """Grading it ended at the grader's limits; it counts as wrong."""


class BudgetAnswer(Record):
    """What one sample is worth within a token budget."""

    index: int
    """Which sample."""
    forced: bool
    """Whether it was cut at the budget and made to answer; false: it ended within the budget by itself."""
    right: bool
    """Its verdict there."""
    tokens: int
    """Tokens the model wrote: of its answer up to the budget and, where it was forced, of the ending."""


class ProblemResult(Record):
    """All answers to one problem."""

    id: str
    """The problem's id."""
    set: str
    """Its evaluation set."""
    answers: tuple[Answer, ...]
    """In order of `index`."""
    budgets: dict[int, tuple[BudgetAnswer, ...]] | None = None
    """Token budget -> the first `budgetSamples` samples within it. None: not measured (yet)."""

    @property
    def right(self) -> int:
        """How many answers are right."""
        return sum(answer.verdict == "right" for answer in self.answers)


class Figure(Record):
    """A part of the summary; camelCase keys, as other programs read it."""

    model_config = ConfigDict(alias_generator=to_camel, validate_by_name=True, validate_by_alias=True, serialize_by_alias=True)


class Interval(Figure):
    """An estimate with its 95% interval."""

    value: float
    """The estimate."""
    low: float
    """Lower end."""
    high: float
    """Upper end."""


class BudgetFigure(Figure):
    """Accuracy within a token budget."""

    accuracy: float
    """Mean over problems of the share of right answers."""
    low: float
    """Lower end of its 95% interval."""
    high: float
    """Upper end."""
    mean_tokens: float
    """Tokens the model wrote for an answer, the forced ending included."""
    forced: float
    """Share of answers that were cut and forced."""


class SetFigures(Figure):
    """One model on one evaluation set."""

    problems: int
    """Problems measured; those whose prompt is too long for the model are left out for every model alike."""
    samples: int
    """Answers to each."""
    pass_at: dict[int, Interval]
    """k -> pass@k; 1 is always among them."""
    right: dict[str, int]
    """Problem id -> right answers: what paired comparisons need."""
    mean_tokens: float
    """Mean length of an answer in tokens."""
    unparsed: float
    """Share of answers in which no answer was found."""
    truncated: float
    """Share of answers that were cut at `evaluate.maxTokens`."""
    lenient: float
    """pass@1 where an answer without a box counts too."""
    budgets: dict[int, BudgetFigure]
    """Token budget -> accuracy within it."""


class Summary(Figure):
    """`summary.json` of one evaluated model."""

    target: str
    """`base` or the variant."""
    sets: dict[str, SetFigures]
    """Evaluation set -> figures, in the job's order."""
