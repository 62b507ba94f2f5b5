"""Accuracy within token budgets: answers that were cut are continued to a forced end, all problems' endings in one batch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial

from dail_runtime.evaluate.answering import Bench
from dail_runtime.evaluate.archive import Item
from dail_runtime.evaluate.behind import Behind
from dail_runtime.evaluate.budgets import Cut, ends_within
from dail_runtime.evaluate.records import BudgetAnswer, ProblemResult
from dail_runtime.records import Sample
from dail_runtime.rewrite.engine import Engine, Request


@dataclass
class _Forcing:
    """A problem whose endings are under way."""

    item: Item
    result: ProblemResult
    first: tuple[Sample, ...]
    """The samples that are measured within budgets."""
    cuts: list[Cut]
    endings: dict[tuple[int, int], Sample] = field(default_factory=dict)
    """(budget, index) -> the ending."""


def lacks_budgets(bench: Bench, item: Item) -> bool:
    """Whether `item` has yet to be measured within the budgets."""
    result = bench.archive.result(item)
    return bool(bench.spec.budgets) and (result is None or result.budgets is None)


def force_endings(bench: Bench, engine: Engine, items: Sequence[Item]) -> None:
    """Measure all `items` (which have results) within every budget, where that has not been done."""
    todo = [(item, result) for item in items if lacks_budgets(bench, item) and (result := bench.archive.result(item)) is not None]
    under_way: dict[str, tuple[_Forcing, Cut]] = {}

    def requests() -> Iterator[Request]:
        for item, result in todo:
            bench.meter.check_stop()
            samples = bench.archive.rollout(item).samples
            work = _Forcing(item, result, samples[: bench.spec.budget_samples], bench.budgets.cuts(samples))
            if not work.cuts:
                behind.do(partial(_keep, bench, work))
            for cut in work.cuts:
                key = f"{item.name}, sample {cut.index} cut at {cut.budget} tokens"
                under_way[key] = work, cut
                yield Request(key, (item.prompt + cut.ids,), (cut.index,), bench.seed_of(f"evaluate/{cut.budget}", item))

    endings = sum(_cuts(bench, result) for _, result in todo)
    with bench.meter.generating(done=0, total=endings, unit="forced answers", each=1), Behind() as behind:
        for request, (ending,) in engine.generate(requests(), bench.sampling(bench.spec.forced_tokens), tick=bench.meter.tick):
            work, cut = under_way.pop(request.key)
            work.endings[cut.budget, cut.index] = ending
            if len(work.endings) == len(work.cuts):
                behind.do(partial(_keep, bench, work))
            bench.meter.add(len(ending.ids))


def _cuts(bench: Bench, result: ProblemResult) -> int:
    """How many endings a problem needs."""
    first = result.answers[: bench.spec.budget_samples]
    return sum(not ends_within(answer.finish, answer.tokens, budget) for answer in first for budget in bench.spec.budgets)


def _keep(bench: Bench, work: _Forcing) -> None:
    """Grade the endings of a problem and add them to its result."""
    texts = [cut.text + work.endings[cut.budget, cut.index].text for cut in work.cuts]
    forced = {
        (cut.budget, cut.index): BudgetAnswer(
            index=cut.index, forced=True, right=grade.verdict == "right", tokens=cut.kept + len(work.endings[cut.budget, cut.index].ids)
        )
        for cut, grade in zip(work.cuts, bench.grades(texts, work.item), strict=True)
    }
    own = {
        answer.index: BudgetAnswer(index=answer.index, forced=False, right=answer.verdict == "right", tokens=answer.tokens)
        for answer in work.result.answers
    }
    budgets = {
        budget: tuple(forced.get((budget, sample.index)) or own[sample.index] for sample in work.first) for budget in bench.spec.budgets
    }
    bench.archive.keep(work.item, work.result.model_copy(update={"budgets": budgets}))
