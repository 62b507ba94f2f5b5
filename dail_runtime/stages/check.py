"""The stage `check`: measures the teacher before anything learns from it, and says so where it is weak."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from dail_runtime.check.records import TEACHER, Accuracy, TeacherCheck, TraceFigures
from dail_runtime.check.scoring import score
from dail_runtime.check.verdict import verdict
from dail_runtime.evaluate.grading import Grader
from dail_runtime.evaluate.passk import intervals
from dail_runtime.models import load_model, load_tokenizer, pick_device
from dail_runtime.objects import KEPT, PROBLEMS, VERDICTS
from dail_runtime.prompts.contexts import Prompts, PromptTooLong
from dail_runtime.prompts.reference import references
from dail_runtime.records import Kept, Problem, Rollout, from_jsonl, to_jsonl
from dail_runtime.rewrite.engine import Request, Sampling, open_engine, problem_seed
from dail_runtime.rewrite.limits import limits, suppressed
from dail_runtime.spec.rewrite import DirectPolicy
from dail_runtime.stages.base import StageContext
from dail_runtime.store import Store
from dail_runtime.train.data import Row, traces

SAMPLED_PROBLEMS = 64
SAMPLES = 2
SCORED_TRACES = 32

Shape = tuple[float, float]
"""Temperature and top-p."""
PLAIN: Shape = (1.0, 1.0)
"""M_T as it is: what the KL objectives learn."""


def run(ctx: StageContext) -> dict[str, Any]:
    """Write `teacher.json` (a check.records.TeacherCheck) and `drawn-TEMPERATURE-TOPP.jsonl`, the responses drawn for it.

    Privileged accuracy at the rewrite's own settings comes from its graded traces where they were drawn from the teacher
    alone. Where they were not, and at temperature 1, two responses to each of at most 64 problems are drawn. At most 32 kept
    traces are scored under all three contexts.

    Counts: weak (0 or 1), and the main figures of `teacher.json` where they are known.
    """
    check = _Check(ctx)
    rewrite = ctx.task.settings.rewrite
    own: Shape = (rewrite.temperature, rewrite.top_p)
    shapes = list(dict.fromkeys([own, PLAIN]))
    measured: dict[Shape, Accuracy | None] = {}
    if isinstance(rewrite.policy, DirectPolicy):
        before = _graded(ctx)
        measured[own] = _accuracy(own, [_mean(row) for row in before], sum(map(len, before)))
    with Grader() as grader:
        for shape, rollouts in check.drawn([shape for shape in shapes if shape not in measured]):
            measured[shape] = _accuracy(shape, check.right(grader, rollouts), sum(len(one.samples) for one in rollouts))
    figures = check.scored()
    weak, sentence = verdict(measured[own], measured[PLAIN], figures, control=rewrite.reference == "other")
    result = TeacherCheck(sentence=sentence, weak=weak, accuracy=measured[own], accuracy_at_one=measured[PLAIN], traces=figures)
    ctx.out.put(TEACHER, result.model_dump_json(indent=1).encode())
    ctx.progress.say(sentence)
    return _counts(result)


class _Check:
    """The contexts of this task's problems, and what is measured with them."""

    def __init__(self, ctx: StageContext) -> None:
        spec, settings = ctx.job.spec, ctx.task.settings.rewrite
        self._ctx = ctx
        self._tokenizer = load_tokenizer(spec.model)
        self._ends = limits(spec.model, self._tokenizer)
        room = self._ends.length - settings.max_tokens
        self._prompts = Prompts(self._tokenizer, spec.prompts, thinking=spec.model.thinking, max_tokens=room)
        problems = list(from_jsonl(Problem, ctx.inputs["prepare"].get(PROBLEMS)))
        self._problems = {problem.id: problem for problem in problems}
        self._shown = references(problems, settings.reference, spec.seed)

    def drawn(self, shapes: Sequence[Shape]) -> Iterator[tuple[Shape, list[Rollout]]]:
        """The teacher's responses for each of `shapes`; what an earlier attempt stored is not drawn again."""
        asked = self._requests() if shapes else []
        missing = [shape for shape in shapes if self._ctx.out.head(drawn_key(shape)) is None]
        if asked and missing:
            spec = self._ctx.job.spec
            named = self._ctx.task.settings.rewrite.engine
            engine = open_engine(named, spec.model, responses=len(asked) * SAMPLES, say=self._ctx.progress.say)
            try:
                for shape in missing:
                    found = {request.key: samples for request, samples in engine.generate(asked, self._sampling(shape), tick=self._tick)}
                    rollouts = [Rollout(id=request.key, samples=found[request.key]) for request in asked]
                    self._ctx.out.put(drawn_key(shape), to_jsonl(rollouts))
                    self._ctx.check_stop()
            finally:
                engine.close()
        for shape in shapes:
            yield shape, list(from_jsonl(Rollout, self._ctx.out.get(drawn_key(shape)))) if asked else []

    def right(self, grader: Grader, rollouts: Sequence[Rollout]) -> list[float]:
        """The share of right responses of each rollout."""
        thinking = self._ctx.job.spec.model.thinking
        pairs = [(sample.text, self._problems[one.id].answer or "") for one in rollouts for sample in one.samples]
        grades = iter(grader.grade_many(pairs, thinking=thinking))
        return [_mean([next(grades).verdict == "right" for _ in one.samples]) for one in rollouts]

    def scored(self) -> TraceFigures | None:
        """The kept traces under the three contexts."""
        kept = sorted(from_jsonl(Kept, _input(self._ctx, "select").get(KEPT)), key=lambda one: (self._seed(one.id), one.index))
        rows = traces(kept[:SCORED_TRACES], self._problems, self._shown, self._prompts, "contrastive", self._ends.eos).rows
        return score(load_model(self._ctx.job.spec.model, device=pick_device()), self._watched(rows)) if rows else None

    def _requests(self) -> list[Request]:
        """A seeded choice of problems that can be graded and shown."""
        asked: list[Request] = []
        for problem in sorted(self._problems.values(), key=lambda one: self._seed(one.id)):
            self._ctx.check_stop()
            if problem.answer is None or len(asked) == SAMPLED_PROBLEMS:
                continue
            try:
                context = self._prompts.privileged(problem, self._shown[problem.id]).ids
            except PromptTooLong:
                continue
            asked.append(Request(problem.id, (context,), tuple(range(SAMPLES)), self._seed(problem.id)))
        return asked

    def _sampling(self, shape: Shape) -> Sampling:
        settings = self._ctx.task.settings.rewrite
        banned = suppressed(settings.suppress, self._tokenizer, self._ends.eos)
        return Sampling(settings.max_tokens, *shape, DirectPolicy(), banned, self._ends.eos)

    def _seed(self, id_: str) -> int:
        return problem_seed(self._ctx.job.spec.seed, "check", "", id_)

    def _tick(self, samples: int, tokens: int) -> None:
        del tokens
        self._ctx.check_stop()
        self._ctx.progress.update(samples, min(SAMPLED_PROBLEMS, len(self._problems)) * SAMPLES, "samples")

    def _watched(self, rows: Sequence[Row]) -> Iterator[Row]:
        for index, row in enumerate(rows):
            self._ctx.check_stop()
            self._ctx.progress.update(index, len(rows), "traces")
            yield row
        self._ctx.progress.update(len(rows), len(rows), "traces")


def drawn_key(shape: Shape) -> str:
    """Key of the responses drawn at one temperature and nucleus."""
    return f"drawn-{shape[0]:g}-{shape[1]:g}.jsonl"


def _graded(ctx: StageContext) -> list[list[bool]]:
    """For each problem with graded traces, which of them are right."""
    lines = _input(ctx, "select").get(VERDICTS).split(b"\n")
    verdicts = [json.loads(line)["verdicts"] for line in lines if line]
    return [[one == "right" for one in row] for row in verdicts if any(one is not None for one in row)]


def _accuracy(shape: Shape, shares: Sequence[float], samples: int) -> Accuracy | None:
    if not shares:
        return None
    right = intervals(np.array(shares)[:, None])[0]
    return Accuracy(temperature=shape[0], top_p=shape[1], problems=len(shares), samples=samples, right=right)


def _input(ctx: StageContext, stage: str) -> Store:
    return next(store for name, store in ctx.inputs.items() if name.split("/")[0] == stage)


def _mean(values: Sequence[bool]) -> float:
    return sum(values) / len(values)


def _counts(check: TeacherCheck) -> dict[str, Any]:
    counts: dict[str, Any] = {"weak": int(check.weak)}
    if check.accuracy is not None:
        counts["accuracy"] = check.accuracy.right.value
    if check.accuracy_at_one is not None:
        counts["accuracy_at_one"] = check.accuracy_at_one.right.value
    if check.traces is not None:
        counts |= check.traces.model_dump()
    return counts
