"""Sampling and grading: the n answers of every problem, stored as each problem finishes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from dail_runtime.evaluate.archive import Archive, Item
from dail_runtime.evaluate.behind import Behind
from dail_runtime.evaluate.budgets import Budgets
from dail_runtime.evaluate.grading import Grade, Grader
from dail_runtime.evaluate.meter import Meter
from dail_runtime.evaluate.records import Answer, ProblemResult
from dail_runtime.records import Rollout, Sample
from dail_runtime.rewrite.engine import Engine, Request, Sampling, problem_seed
from dail_runtime.spec.evaluate import EvaluateSpec
from dail_runtime.spec.rewrite import DirectPolicy

_SHOWN = 200  # characters of an extracted answer that a result keeps; the stored response has all of it


@dataclass(frozen=True)
class Bench:
    """What every part of one evaluation shares."""

    spec: EvaluateSpec
    """How to sample."""
    thinking: bool
    """Whether only what follows </think> is graded."""
    seed: int
    """The job's."""
    eos: frozenset[int]
    """Ids that end an answer."""
    budgets: Budgets
    """Cuts answers."""
    grader: Grader
    """Grades them."""
    archive: Archive
    """Keeps them."""
    meter: Meter
    """Counts them."""

    def sampling(self, max_tokens: int) -> Sampling:
        """How responses of at most `max_tokens` are drawn."""
        return Sampling(max_tokens, self.spec.temperature, self.spec.top_p, DirectPolicy(), (), self.eos)

    def seed_of(self, purpose: str, item: Item) -> int:
        """The seed of `item`: the same for every model, so that what differs between two is the model and not the luck of the draw."""
        return problem_seed(self.seed, purpose, item.problem.set, item.problem.id)

    def grades(self, texts: Sequence[str], item: Item) -> list[Grade]:
        """The grades of some responses to `item`."""
        return self.grader.grade_many([(text, item.answer) for text in texts], thinking=self.thinking)


def grade_rollout(bench: Bench, item: Item, rollout: Rollout) -> None:
    """Grade the stored answers of `item` and keep the result."""
    grades = bench.grades([sample.text for sample in rollout.samples], item)
    answers = tuple(_answer(sample, grade) for sample, grade in zip(rollout.samples, grades, strict=True))
    bench.archive.keep(item, ProblemResult(id=item.problem.id, set=item.problem.set, answers=answers))


def draw_answers(bench: Bench, engine: Engine, items: Sequence[Item]) -> None:
    """Draw, store and grade the answers of all `items` that have no result."""
    todo = {item.name: item for item in items if bench.archive.result(item) is None}
    samples = tuple(range(bench.spec.samples))

    def requests() -> Iterator[Request]:
        for item in todo.values():
            bench.meter.check_stop()
            yield Request(item.name, (item.prompt,), samples, bench.seed_of("evaluate", item))

    def keep(item: Item, drawn: tuple[Sample, ...]) -> None:
        rollout = Rollout(id=item.problem.id, set=item.problem.set, samples=drawn)
        bench.archive.keep_rollout(item, rollout)
        grade_rollout(bench, item, rollout)

    known = len(items) - len(todo)
    with bench.meter.generating(done=known, total=len(items), unit="problems", each=len(samples)), Behind() as behind:
        for request, drawn in engine.generate(requests(), bench.sampling(bench.spec.max_tokens), tick=bench.meter.tick):
            behind.do(partial(keep, todo[request.key], drawn))
            bench.meter.add(sum(len(sample.ids) for sample in drawn))


def _answer(sample: Sample, grade: Grade) -> Answer:
    return Answer(
        index=sample.index,
        verdict=grade.verdict,
        lenient=grade.lenient,
        extracted=None if grade.extracted is None else grade.extracted[:_SHOWN],
        tokens=len(sample.ids),
        finish=sample.finish,
        timed_out=grade.timed_out,
    )
