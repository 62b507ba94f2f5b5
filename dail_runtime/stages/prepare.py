"""The stage `prepare`: the data files become problems in one form. Everything is read and checked before anything is written."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import partial
from typing import Any

from dail_runtime.data import HELDOUT, Counts, hold_out, read_problems
from dail_runtime.errors import DataError
from dail_runtime.objects import BAD_ROWS, PROBLEMS, evaluation_key
from dail_runtime.records import Problem, to_jsonl
from dail_runtime.spec.content import file_digest
from dail_runtime.spec.job import DailJob
from dail_runtime.stages.base import StageContext


def run(ctx: StageContext) -> dict[str, Any]:
    """Write the training problems, the problems of each evaluation set and, where rows were skipped, which.

    Counts: those of the solutions file (`data.Counts`), `answers` (problems with one), and `evaluation`: set -> its counts.

    Raises:
        DataError: a file is wrong, or nothing is left to train on or to measure with.
    """
    spec = ctx.job.spec.data
    storage = ctx.job.spec.storage
    files = 1 + len(spec.evaluation)
    read = partial(read_problems, on_bad_row=spec.on_bad_row, endpoint=storage.endpoint, region=storage.region)
    problems, counts = read(spec.solutions, spec.format, spec.columns, limit=spec.limit)
    ctx.progress.update(1, files, "files")
    told = [(spec.solutions, counts)]
    sets: dict[str, list[Problem]] = {}
    measured: dict[str, dict[str, Any]] = {}
    for index, one in enumerate(spec.evaluation):
        ctx.check_stop()
        sets[one.name], found = read(one.path, one.format, one.columns, field=f"data.evaluation.{index}", evaluation=one.name)
        measured[one.name] = found.numbers()
        told.append((one.path, found))
        ctx.progress.update(2 + index, files, "files")
    if not spec.evaluation:
        problems, sets[HELDOUT] = hold_out(problems, ctx.job.spec.seed)
        measured[HELDOUT] = {"problems": len(sets[HELDOUT])}
        ctx.progress.say(f"No evaluation set is named, so {len(sets[HELDOUT])} of the problems are held out to measure with.")
    answers = _answers(ctx, problems)
    _tell(ctx, told)
    ctx.check_stop()
    _check_unchanged(ctx)
    ctx.out.put(PROBLEMS, to_jsonl(problems))
    for name, rows in sets.items():
        ctx.out.put(evaluation_key(name), to_jsonl(rows))
    bad = [{"place": row.place, "reason": row.reason, "sentence": row.sentence} for _, found in told for row in found.bad]
    if bad:
        ctx.out.put(BAD_ROWS, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in bad).encode())
    solutions = sum(len(problem.solutions) for problem in problems)
    return {**counts.numbers(), "problems": len(problems), "solutions": solutions, "answers": answers, "evaluation": measured}


def _answers(ctx: StageContext, problems: Sequence[Problem]) -> int:
    """How many problems have an answer. None at all is found here, not after hours of rewriting."""
    answers = sum(problem.answer is not None for problem in problems)
    strict = _strict_variants(ctx.job)
    if strict and answers == 0:
        raise DataError(
            f"{ctx.job.spec.data.solutions}: no problem has an answer, but select.requireCorrect keeps only right traces "
            f"(variant {strict[0]}); name the column in data.columns.answer, or set select.requireCorrect: false for proofs"
        )
    if strict and answers < len(problems):
        missing = len(problems) - answers
        ctx.progress.say(f"{missing} of {len(problems)} problems have no answer; select.requireCorrect keeps no trace of them.")
    return answers


def _check_unchanged(ctx: StageContext) -> None:
    """Refuse files that were edited after the job was planned: all results are kept under the digests of that time."""
    spec, storage = ctx.job.spec.data, ctx.job.spec.storage
    named = {spec.solutions: "data.solutions", **{one.path: f"data.evaluation.{i}.path" for i, one in enumerate(spec.evaluation)}}
    for uri, field in named.items():
        if ctx.content.get(uri) not in (None, file_digest(field, uri, storage.endpoint, storage.region)):
            raise DataError(f"{field}: {uri} was changed after this run started; run the same command again to take it as it is now")


def _strict_variants(job: DailJob) -> list[str]:
    return [name for name in job.spec.variant_names() if job.spec.settings(name).select.require_correct]


def _tell(ctx: StageContext, told: Sequence[tuple[str, Counts]]) -> None:
    for uri, counts in told:
        if counts.dropped:
            reasons = ", ".join(f"{n} {reason}" for reason, n in counts.dropped.most_common())
            ctx.progress.say(f"{counts.dropped.total()} of {counts.rows} rows of {uri} were skipped ({reasons}); first: {counts.bad[0]}")
        if counts.duplicates:
            ctx.progress.say(f"{counts.duplicates} rows of {uri} repeat an earlier one and were left out.")
