"""The stage `rewrite`: the model turns each terse solution into detailed traces, stored problem by problem as they finish."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from dail_runtime.errors import ResultError
from dail_runtime.evaluate.budgets import Budgets
from dail_runtime.models import config_folder, empty_model, load_tokenizer
from dail_runtime.objects import PROBLEMS, ROLLOUTS, rollout_key
from dail_runtime.prompts.contexts import Prompts, PromptTooLong
from dail_runtime.prompts.reference import references
from dail_runtime.records import Problem, Rollout, from_jsonl
from dail_runtime.rewrite.engine import Request, Sampling, open_engine, problem_seed
from dail_runtime.rewrite.limits import Limits, limits, suppressed
from dail_runtime.rewrite.writer import Writer
from dail_runtime.spec.job import JobSpec
from dail_runtime.spec.rewrite import Engine, MixedPolicy, TransformersEngine
from dail_runtime.stages.base import StageContext
from dail_runtime.train.adapter import check_targets

FACTS = "engine.json"
"""What the engine chose by itself and traces may depend on, written before the first of them."""
_READERS = 16
_MANY = 0.2


def run(ctx: StageContext) -> dict[str, Any]:
    """Write `rollouts/<safe_key(id)>.json` of every problem whose prompts fit, and `engine.json`.

    Counts: problems rewritten, samples, tokens, truncated samples, solutions_cut (left out because they did not fit),
    dropped problems by reason; for mixed also accept_rate (share of tokens that came from the student) and, where the engine
    tells it, distance (mean total variation distance to the teacher per token); what the engine chose by itself; tokens_per_s
    of this attempt.

    Raises:
        ModelError: no prompt could fit, or a later stage would stop: the evaluation has no room for one, or the model lacks a layer
            that `train.lora.targets` names.
        ResultError: no problem's prompt fits.
    """
    spec, settings = ctx.job.spec, ctx.task.settings.rewrite
    tokenizer = load_tokenizer(spec.model)
    ends = limits(spec.model, tokenizer)
    prompts = Prompts(tokenizer, spec.prompts, thinking=spec.model.thinking, max_tokens=ends.length - settings.max_tokens)
    _look_ahead(spec, tokenizer, ends)
    sampling = Sampling(
        max_tokens=settings.max_tokens,
        temperature=settings.temperature,
        top_p=settings.top_p,
        policy=settings.policy,
        suppress=suppressed(settings.suppress, tokenizer, ends.eos),
        eos=ends.eos,
    )
    problems = list(from_jsonl(Problem, ctx.inputs["prepare"].get(PROBLEMS)))
    work = _Work(ctx, prompts, problems)
    requests = work.requests()
    # The model is loaded only where there is something left to draw.
    first = next(requests, None)
    speed = {} if first is None else _generate(work, chain([first], requests), sampling)
    counts = work.counts()
    if not counts["problems"]:
        raise ResultError(f"no problem can be shown to the model with its solution, for example: {work.example}")
    work.tell()
    return {**counts, **_facts(ctx), **speed}


def _look_ahead(spec: JobSpec, tokenizer: PreTrainedTokenizerBase, ends: Limits) -> None:
    """What would end the run in a later stage, for a reason that is known before the first trace."""
    Budgets(tokenizer, spec.evaluate, thinking=spec.model.thinking).prompt_room(ends.length)
    targets = {target: None for name in spec.variant_names() for target in spec.settings(name).train.lora.targets}
    check_targets(empty_model(config_folder(spec.model), torch.float32), tuple(targets))


def _generate(work: _Work, requests: Iterator[Request], sampling: Sampling) -> dict[str, Any]:
    """Draw and store; returns the speed."""
    ctx = work.ctx
    facts = _facts(ctx)
    engine = open_engine(_as_before(ctx, facts), ctx.job.spec.model, responses=work.responses, say=ctx.progress.say)
    try:
        with Writer(ctx.out) as writer:
            work.start()
            for request, samples in engine.generate(requests, sampling, tick=work.tick):
                if not facts and (facts := engine.facts()):
                    ctx.out.put(FACTS, json.dumps(facts).encode())
                rollout = Rollout(id=request.key, samples=samples)
                writer.put(rollout_key(rollout.id), rollout.model_dump_json().encode())
                work.add(rollout)
                ctx.check_stop()
        return {"tokens_per_s": round(work.drawn / work.seconds(), 1)}
    finally:
        engine.close()


def _facts(ctx: StageContext) -> dict[str, int]:
    """What the engine of the first attempt chose by itself; empty before there is any rollout."""
    try:
        facts: dict[str, int] = json.loads(ctx.out.get(FACTS))
    except KeyError:
        return {}
    return facts


def _as_before(ctx: StageContext, facts: dict[str, int]) -> Engine:
    """The job's engine; one that chose its batch size keeps to it, also where the task goes on on another machine."""
    engine = ctx.task.settings.rewrite.engine
    if isinstance(engine, TransformersEngine) and "batch_size" in facts:
        return engine.model_copy(update={"batch_size": facts["batch_size"]})
    return engine


class _Work:
    """What is to be drawn, what there is, and the progress."""

    def __init__(self, ctx: StageContext, prompts: Prompts, problems: Sequence[Problem]) -> None:
        settings = ctx.task.settings.rewrite
        self.ctx = ctx
        self.example: PromptTooLong | None = None
        """Why the last dropped problem was dropped."""
        self.responses = len(problems) * settings.samples
        """Of the whole task, whatever is there already: see `open_engine`."""
        self.drawn = 0
        """Tokens of the responses that came back in this attempt."""
        self._mixed = isinstance(settings.policy, MixedPolicy)
        self._prompts, self._problems = prompts, problems
        self._shown = references(problems, settings.reference, ctx.job.spec.seed)
        self._numbers = dict.fromkeys(("problems", "samples", "tokens", "truncated", "solutions_cut"), 0)
        self._too_long = self._accepted = 0
        self._distance: float | None = 0.0
        self._begin = time.monotonic()
        there = {info.key for info in ctx.out.list(ROLLOUTS)}
        self._done = {problem.id for problem in problems if rollout_key(problem.id) in there}
        with ThreadPoolExecutor(_READERS) as pool:
            for data in pool.map(lambda id_: ctx.out.get(rollout_key(id_)), sorted(self._done)):
                self._count(Rollout.model_validate_json(data))
        self._before = self._told = self._numbers["samples"]

    def requests(self) -> Iterator[Request]:
        """The problems that have no rollout yet. Walks over the others too: what was cut from them counts."""
        settings, seed = self.ctx.task.settings.rewrite, self.ctx.job.spec.seed
        for problem in self._problems:
            self.ctx.check_stop()
            try:
                privileged = self._prompts.privileged(problem, self._shown[problem.id])
                contexts = (self._prompts.student(problem).ids, privileged.ids) if self._mixed else (privileged.ids,)
            except PromptTooLong as err:
                self._too_long += 1
                self.example = err
                continue
            self._numbers["solutions_cut"] += privileged.solutions_cut
            if problem.id not in self._done:
                yield Request(problem.id, contexts, tuple(range(settings.samples)), problem_seed(seed, "rewrite", problem.set, problem.id))

    def start(self) -> None:
        """The model is loaded: speed is measured from here."""
        self._begin = time.monotonic()

    def seconds(self) -> float:
        """Time since `start`."""
        return max(time.monotonic() - self._begin, 1e-9)

    def add(self, rollout: Rollout) -> None:
        """One more problem is done."""
        self._count(rollout)
        self.drawn += sum(len(sample.ids) for sample in rollout.samples)
        self._update(self._numbers["samples"], self.drawn)

    def tick(self, samples: int, tokens: int) -> None:
        """See engine.Tick."""
        self.ctx.check_stop()
        self._update(self._before + samples, tokens)

    def counts(self) -> dict[str, Any]:
        """The numbers for the manifest."""
        counts: dict[str, Any] = {**self._numbers, "dropped": {"prompt_too_long": self._too_long} if self._too_long else {}}
        if self._mixed:
            tokens = max(1, self._numbers["tokens"])
            # Rounded: the sum depends on the order in which problems finish.
            counts["accept_rate"] = round(self._accepted / tokens, 6)
            if self._distance is not None:
                counts["distance"] = round(self._distance / tokens, 6)
        return counts

    def tell(self) -> None:
        """Say what a person should know."""
        say, settings = self.ctx.progress.say, self.ctx.task.settings.rewrite
        if self._too_long:
            say(f"{self._too_long} of {len(self._problems)} problems are left out, for example: {self.example}")
        if self._numbers["solutions_cut"]:
            say(f"{self._numbers['solutions_cut']} solutions were left out of prompts in which they did not fit.")
        if self._numbers["truncated"] > _MANY * self._numbers["samples"]:
            share = self._numbers["truncated"] / self._numbers["samples"]
            say(f"{share:.0%} of the traces were cut at {settings.max_tokens} tokens; raise rewrite.maxTokens.")

    def _count(self, rollout: Rollout) -> None:
        samples = rollout.samples
        self._numbers["problems"] += 1
        self._numbers["samples"] += len(samples)
        self._numbers["tokens"] += sum(len(sample.ids) for sample in samples)
        self._numbers["truncated"] += sum(sample.finish == "length" for sample in samples)
        self._accepted += sum(sample.accepted for sample in samples)
        distances = [sample.distance for sample in samples]
        # Unknown as soon as one of them is.
        known = [one for one in distances if one is not None]
        self._distance = None if self._distance is None or len(known) < len(distances) else self._distance + sum(known)

    def _update(self, samples: int, tokens: int) -> None:
        total = (len(self._problems) - self._too_long) * self.ctx.task.settings.rewrite.samples
        # A tick also counts the finished samples of unfinished problems: never step back behind it.
        self._told = max(self._told, samples)
        self.ctx.progress.update(self._told, total, "samples", tokens_per_s=tokens / self.seconds())
