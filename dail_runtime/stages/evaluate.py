"""The stage `evaluate`: one model, base or trained, answers every problem of the evaluation sets and is graded."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dail_runtime.data import HELDOUT
from dail_runtime.errors import DataError, ResultError
from dail_runtime.evaluate.answering import Bench, draw_answers, grade_rollout
from dail_runtime.evaluate.archive import Archive, Item
from dail_runtime.evaluate.budgets import Budgets
from dail_runtime.evaluate.forcing import force_endings, lacks_budgets
from dail_runtime.evaluate.grading import Grader
from dail_runtime.evaluate.meter import Meter
from dail_runtime.evaluate.records import SUMMARY, ProblemResult, Summary
from dail_runtime.evaluate.summary import set_figures
from dail_runtime.models import load_tokenizer
from dail_runtime.models.adapter import fetch_adapter
from dail_runtime.objects import evaluation_key
from dail_runtime.prompts.contexts import Prompts, PromptTooLong
from dail_runtime.records import Problem, from_jsonl
from dail_runtime.rewrite.engine import open_engine
from dail_runtime.rewrite.limits import limits
from dail_runtime.spec.job import BASE
from dail_runtime.stages.base import StageContext

_MANY = 0.2


def run(ctx: StageContext) -> dict[str, Any]:
    """Write `responses/` and `results/`, an object a problem each as it finishes, and `summary.json`.

    Counts: problems, samples, right, wrong, unparsed, truncated, tokens (of all answers), forced (endings within budgets),
    timeouts (answers whose grading hit its limits), left_out (problems whose prompt is too long) and, where this attempt
    generated anything, its tokens_per_s.

    Raises:
        DataError: an evaluation problem has no answer.
        ResultError: no problem of a set can be shown to the model.
    """
    spec = ctx.job.spec
    tokenizer = load_tokenizer(spec.model)
    ends = limits(spec.model, tokenizer)
    budgets = Budgets(tokenizer, spec.evaluate, thinking=spec.model.thinking)
    prompts = Prompts(tokenizer, spec.prompts, thinking=spec.model.thinking, max_tokens=budgets.prompt_room(ends.length))
    sets = {name: _items(ctx, name, prompts) for name in [one.name for one in spec.data.evaluation] or [HELDOUT]}
    items = [item for part, _ in sets.values() for item in part]
    speed: dict[str, Any] = {}
    with Grader() as grader:
        bench = Bench(
            spec=spec.evaluate,
            thinking=spec.model.thinking,
            seed=spec.seed,
            eos=ends.eos,
            budgets=budgets,
            grader=grader,
            archive=Archive(ctx.out),
            meter=Meter(ctx.progress, ctx.check_stop),
        )
        for item in bench.archive.recall(items):
            ctx.check_stop()
            grade_rollout(bench, item, bench.archive.rollout(item))
        if any(bench.archive.result(item) is None or lacks_budgets(bench, item) for item in items):
            speed = _generate(ctx, bench, items)
    figures = {name: set_figures(bench.archive.results(part), spec.evaluate) for name, (part, _) in sets.items()}
    ctx.out.put(SUMMARY, Summary(target=_target(ctx), sets=figures).model_dump_json(indent=1).encode())
    counts = _counts(bench.archive.results(items))
    _tell(ctx, counts)
    return {**counts, "left_out": sum(left_out for _, left_out in sets.values()), **speed}


def _items(ctx: StageContext, name: str, prompts: Prompts) -> tuple[list[Item], int]:
    """The problems of a set that fit, in the file's order, and how many do not."""
    items: list[Item] = []
    too_long: list[PromptTooLong] = []
    for problem in from_jsonl(Problem, ctx.inputs["prepare"].get(evaluation_key(name))):
        ctx.check_stop()
        if problem.answer is None:
            raise DataError(f"evaluation set {name}: problem {problem.id!r} has no answer to grade by; add one or remove the problem")
        try:
            items.append(Item(problem.model_copy(update={"set": name}), problem.answer, prompts.student(problem).ids))
        except PromptTooLong as err:
            too_long.append(err)
    if not items:
        raise ResultError(f"evaluation set {name}: no problem can be shown to the model; {too_long[0] if too_long else 'the set is empty'}")
    if too_long:
        ctx.progress.say(f"{len(too_long)} problems of {name} are left out, for every model alike, for example: {too_long[0]}")
    return items, len(too_long)


def _generate(ctx: StageContext, bench: Bench, items: Sequence[Item]) -> dict[str, Any]:
    """Everything that needs the model; returns the speed."""
    spec = ctx.job.spec
    with tempfile.TemporaryDirectory() as folder:
        engine = open_engine(
            spec.rewrite.engine,
            spec.model,
            adapter=_adapter(ctx, Path(folder)),
            responses=len(items) * spec.evaluate.samples,
            say=ctx.progress.say,
        )
        try:
            draw_answers(bench, engine, items)
            if spec.evaluate.budgets:
                force_endings(bench, engine, items)
            return {"tokens_per_s": round(bench.meter.tokens / max(bench.meter.seconds, 1e-9), 1)}
        finally:
            engine.close()


def _target(ctx: StageContext) -> str:
    return ctx.task.variant or BASE


def _adapter(ctx: StageContext, folder: Path) -> Path | None:
    """The trained adapter, fetched below `folder`; None for the base model."""
    if _target(ctx) == BASE:
        return None
    return fetch_adapter(ctx.inputs[f"train/{_target(ctx)}"], folder)


def _counts(results: Sequence[ProblemResult]) -> dict[str, Any]:
    answers = [answer for result in results for answer in result.answers]
    forced = [answer for result in results for within in (result.budgets or {}).values() for answer in within if answer.forced]
    return {
        "problems": len(results),
        "samples": len(answers),
        **{verdict: sum(answer.verdict == verdict for answer in answers) for verdict in ("right", "wrong", "unparsed")},
        "truncated": sum(answer.finish == "length" for answer in answers),
        "tokens": sum(answer.tokens for answer in answers),
        "forced": len(forced),
        "timeouts": sum(answer.timed_out for answer in answers),
    }


def _tell(ctx: StageContext, counts: dict[str, Any]) -> None:
    """Say what makes the figures worth less than they look."""
    target, samples = _target(ctx), counts["samples"]
    if counts["truncated"] > _MANY * samples:
        share = counts["truncated"] / samples
        ctx.progress.say(
            f"{share:.0%} of the answers of {target} were cut at {ctx.job.spec.evaluate.max_tokens} tokens; raise evaluate.maxTokens."
        )
    elif counts["unparsed"] > _MANY * samples:
        share = counts["unparsed"] / samples
        ctx.progress.say(f"{share:.0%} of the answers of {target} hold no \\boxed{{}} answer; let prompts.student ask for one.")
    if counts["timeouts"]:
        ctx.progress.say(f"Grading {counts['timeouts']} answers of {target} ended at its time or memory limit; they count as wrong.")
