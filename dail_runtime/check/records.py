"""What the teacher check writes."""

from __future__ import annotations

from dail_runtime.evaluate.records import Interval
from dail_runtime.records import Record

TEACHER = "teacher.json"


class Accuracy(Record):
    """How often M_T, which sees the reference solution, answers right."""

    temperature: float
    """Of the samples."""
    top_p: float
    """Nucleus of the samples."""
    problems: int
    """Problems with an answer that were sampled."""
    samples: int
    """Responses, over all of them."""
    right: Interval
    """Mean over problems of the share of right responses, with its 95% interval."""


class TraceFigures(Record):
    """What the kept traces cost each context, without temperature or nucleus. Means over tokens, in nats where it is a loss."""

    traces: int
    """Traces scored: a seeded choice where more were kept."""
    tokens: int
    """Their tokens."""
    nll_teacher: float
    """Negative log-likelihood per token under M_T."""
    nll_negative: float
    """Under M_NR, which sees the landmarks only."""
    nll_student: float
    """Under the untrained student, which sees the problem only."""
    teacher_top_mass: float
    """Probability that the student gives to the teacher's most probable token."""
    cold_tokens: float
    """Share of tokens at which that probability is under 1%: reverse KL has almost no gradient there."""


class TeacherCheck(Record):
    """`teacher.json`."""

    sentence: str
    """What follows from the figures."""
    weak: bool
    """Whether the teacher is too weak for its whole distribution to be learned."""
    accuracy: Accuracy | None
    """At the temperature and nucleus of the rewrite; None where no problem has an answer."""
    accuracy_at_one: Accuracy | None
    """At temperature 1, without nucleus: the distribution that the KL objectives learn."""
    traces: TraceFigures | None
    """None where no kept trace could be scored."""
