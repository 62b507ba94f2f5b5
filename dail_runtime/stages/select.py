"""The stage `select`: grades every trace, drops what may not be learned, and keeps a seeded choice of the rest."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, get_args

from dail_runtime.errors import ResultError
from dail_runtime.evaluate.grading import Grader
from dail_runtime.objects import KEPT, PROBLEMS, VERDICTS, rollout_key
from dail_runtime.records import Kept, Problem, Rollout, Verdict, from_jsonl, to_jsonl
from dail_runtime.select import Fate, LeakFilter, Overlap, fates
from dail_runtime.stages.base import StageContext
from dail_runtime.store import Store

AT_ONCE = 32
"""Problems whose traces are in memory together."""

REMEDIES: dict[str, str] = {
    "wrong": "raise rewrite.samples, give worked examples in prompts.examples, or take a stronger model",
    "unparsed": "let prompts.privileged ask for the final answer in \\boxed{}, or show it in prompts.examples",
    "truncated": "raise rewrite.maxTokens",
    "leak": "let prompts.privileged forbid any mention of the reference, or set select.dropLeaks: false",
    "contaminated": "the solutions are in the evaluation sets; separate the files, raise select.ngram or set select.decontaminate: false",
    "no_answer": "name the column in data.columns.answer, or set select.requireCorrect: false for proofs",
}


def run(ctx: StageContext) -> dict[str, Any]:
    """Write `verdicts.jsonl` (one line a problem: the grade and the fate of each sample) and `kept.jsonl`.

    Counts: problems and samples seen; right, wrong, unparsed samples; kept traces and kept_problems; dropped samples by
    reason (samples = kept + dropped); without_rollout problems that the rewrite left out; timeouts of the grader.

    Raises:
        ResultError: no trace is left; says the most common reason and its remedy.
    """
    prepare = ctx.inputs["prepare"]
    problems = list(from_jsonl(Problem, prepare.get(PROBLEMS)))
    contaminated = _contaminated(ctx, prepare, problems)
    work = _Selection(ctx)
    with Grader() as grader:
        for start in range(0, len(problems), AT_ONCE):
            ctx.check_stop()
            part = problems[start : start + AT_ONCE]
            seen = [(problem, rollout) for problem, rollout in _rollouts(_rewrite(ctx), part) if rollout is not None]
            work.numbers["without_rollout"] += len(part) - len(seen)
            for (problem, rollout), verdicts in zip(seen, _grades(grader, seen, ctx.job.spec.model.thinking), strict=True):
                work.take(problem, rollout, verdicts, problem.id in contaminated)
            ctx.progress.update(start + len(part), len(problems), "problems", kept=len(work.kept))
        timeouts = grader.timeouts
    ctx.out.put(VERDICTS, "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in work.lines).encode())
    if not work.kept:
        raise ResultError(work.nothing_kept())
    ctx.out.put(KEPT, to_jsonl(work.kept))
    work.tell()
    return {**work.counts(), "timeouts": timeouts}


class _Selection:
    """What has been decided so far."""

    def __init__(self, ctx: StageContext) -> None:
        self._ctx = ctx
        self._spec = ctx.task.settings.select
        self._leaks = LeakFilter(self._spec.leak_phrases)
        self._phrases: Counter[str] = Counter()
        self.numbers: Counter[str] = Counter()
        self.dropped: Counter[Fate] = Counter()
        self.kept: list[Kept] = []
        self.lines: list[dict[str, Any]] = []

    def take(self, problem: Problem, rollout: Rollout, verdicts: Sequence[Verdict | None], contaminated: bool) -> None:
        """Decide on the samples of one problem."""

        def leaks(text: str) -> bool:
            phrase = self._leaks.find(text, problem.problem) if self._spec.drop_leaks else None
            if phrase is not None:
                self._phrases[phrase] += 1
            return phrase is not None

        seed = self._ctx.job.spec.seed
        found = fates(rollout.samples, verdicts, self._spec, problem=problem.id, seed=seed, contaminated=contaminated, leaks=leaks)
        self.lines.append({"id": problem.id, "verdicts": list(verdicts), "fates": found})
        self.numbers.update(problems=1, samples=len(found), kept_problems="kept" in found)
        self.numbers.update(verdict for verdict in verdicts if verdict is not None)
        for sample, verdict, fate in zip(rollout.samples, verdicts, found, strict=True):
            if fate == "kept":
                self.kept.append(Kept(id=problem.id, index=sample.index, ids=sample.ids, text=sample.text, verdict=verdict))
            else:
                self.dropped[fate] += 1

    def counts(self) -> dict[str, Any]:
        """The numbers for the manifest."""
        names = ("problems", "samples", *get_args(Verdict), "kept_problems", "without_rollout")
        return {**{name: self.numbers[name] for name in names}, "kept": len(self.kept), "dropped": dict(sorted(self.dropped.items()))}

    def nothing_kept(self) -> str:
        """Why nothing is left, and what to do."""
        if not self.dropped:
            return "no trace was kept: the rewrite left none at all; look at its notes (prompts too long?)"
        reasons = ", ".join(f"{n} {fate}" for fate, n in self.dropped.most_common())
        remedy = REMEDIES[self.dropped.most_common(1)[0][0]]
        return f"no trace was kept: of {self.numbers['samples']} samples {reasons}; {remedy}"

    def tell(self) -> None:
        """Say what a person should know."""
        without = self.numbers["problems"] - self.numbers["kept_problems"]
        if without:
            self._ctx.progress.say(f"{without} of {self.numbers['problems']} problems have no trace that could be kept.")
        if self._phrases:
            phrase, n = self._phrases.most_common(1)[0]
            total = self._phrases.total()
            self._ctx.progress.say(f'{total} traces were dropped because they speak of the reference (most often "{phrase}": {n}).')


def _rewrite(ctx: StageContext) -> Store:
    return next(store for name, store in ctx.inputs.items() if name.split("/")[0] == "rewrite")


def _contaminated(ctx: StageContext, prepare: Store, problems: Sequence[Problem]) -> set[str]:
    """Ids of training problems that are in an evaluation set."""
    spec = ctx.task.settings.select
    if not spec.decontaminate:
        return set()
    measured = [row.problem for info in prepare.list("evaluation/") for row in from_jsonl(Problem, prepare.get(info.key))]
    overlap = Overlap(measured, (problem.problem for problem in problems), spec.ngram)
    found = {problem.id: words for problem in problems if (words := overlap.find(problem.problem)) is not None}
    if found:
        id_, words = next(iter(found.items()))
        ctx.progress.say(
            f'{len(found)} of {len(problems)} training problems are in an evaluation set and were dropped, for example {id_}: "{words}".'
        )
    return set(found)


def _rollouts(rewrite: Store, problems: Sequence[Problem]) -> Iterator[tuple[Problem, Rollout | None]]:
    def read(problem: Problem) -> Rollout | None:
        try:
            return Rollout.model_validate_json(rewrite.get(rollout_key(problem.id)))
        except KeyError:
            # The rewrite leaves a problem out where its prompt is too long, and counts it.
            return None

    with ThreadPoolExecutor(16) as pool:
        yield from zip(problems, pool.map(read, problems), strict=True)


def _grades(grader: Grader, seen: Sequence[tuple[Problem, Rollout]], thinking: bool) -> Iterator[list[Verdict | None]]:
    """The verdicts of each problem's samples; all of them are graded together, so that the grader's workers share the load."""
    pairs = [(sample.text, problem.answer) for problem, rollout in seen if problem.answer is not None for sample in rollout.samples]
    grades = iter(grader.grade_many(pairs, thinking=thinking))
    for problem, rollout in seen:
        yield [next(grades).verdict if problem.answer is not None else None for _ in rollout.samples]
