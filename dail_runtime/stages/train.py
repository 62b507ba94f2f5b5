"""The stage `train`: from kept traces to an adapter and a merged model.

Writes `adapter/`, `model/` (where wanted) and `curves.jsonl`, a line a step: step, epoch, objective, loss, kl_teacher, kl_negative,
entropy, teacher_top_mass, supervised, clipped (means over the step's response tokens; null where the objective or the settings have no
such thing), learning_rate, grad_norm, tokens (response tokens so far) and tokens_per_s (response tokens). While it runs, `checkpoints/`.
"""

from __future__ import annotations

from typing import Any

import torch
from transformers import PreTrainedModel
from transformers.utils import logging as transformers_logging

from dail_runtime.errors import ResultError
from dail_runtime.models import (
    empty_model,
    eos_ids,
    load_model,
    load_tokenizer,
    max_length,
    model_folder,
    parameter_count,
    pick_device,
    pick_dtype,
)
from dail_runtime.objects import CURVES, KEPT, PROBLEMS
from dail_runtime.prompts.contexts import Prompts
from dail_runtime.prompts.reference import references
from dail_runtime.records import Kept, Problem, from_jsonl
from dail_runtime.stages.base import StageContext
from dail_runtime.train.adapter import Student, recomputes
from dail_runtime.train.batches import collate
from dail_runtime.train.checkpoint import Checkpoints
from dail_runtime.train.data import TrainingData, expert_texts, traces
from dail_runtime.train.export import save_adapter, save_merged
from dail_runtime.train.loop import Training
from dail_runtime.train.memory import free_memory
from dail_runtime.train.plan import plan_memory
from dail_runtime.train.ranks import place
from dail_runtime.train.sanity import check_device, check_world
from dail_runtime.train.sharding import must_shard, room_of, shard
from dail_runtime.train.world import World, joined


def run(ctx: StageContext) -> dict[str, Any]:
    """Train the task's variant; see `Stage`.

    Counts: rows, tokens (response tokens of an epoch), steps, dropped (reason -> rows), solutions_cut, boxes_added (sft),
    trainable_parameters, loss (of the last step), tokens_per_s (mean), resumed_at_step.
    """
    spec, source = ctx.task.settings.train, ctx.job.spec.model
    transformers_logging.disable_progress_bar()
    here, device = place(), pick_device()
    meeting = joined(here, device, ctx.stop, ctx.abandon, check=lambda: check_device(here, device, ctx.abandon))
    world = ctx.held.enter_context(meeting)
    check_world(world, ctx.abandon)
    if world.size > 1:
        ctx.progress.say(f"{world.size} processes train together{', a GPU each' if device.type == 'cuda' else ''}.")
    folder, tokenizer = world.lead_first(lambda: (model_folder(source), load_tokenizer(source)))
    world.meet()
    room = room_of(device, free_memory(), here.local_size)
    weights = parameter_count(folder) * pick_dtype(source, device).itemsize
    spread = must_shard(spec.shard, weights=weights, room=room, world=world)
    model = _model(ctx, device, world, spread=spread)
    data = _data(ctx, tokenizer, model)
    if not data.rows:
        reasons = ", ".join(f"{count} {reason}" for reason, count in data.dropped.items()) or "select kept none"
        raise ResultError(f"{ctx.task.name}: there is no trace to learn from ({reasons}); see the counts of select")
    recompute = recomputes(spec.gradient_checkpointing, model)
    student = Student(model, spec.lora, seed=ctx.job.spec.seed, recompute=recompute)
    world.meet()
    if spread:
        shard(student, world)
    plan = plan_memory(
        model.config.get_text_config(),
        spec,
        [len(row.prompts["student"]) + len(row.response) - 1 for row in data.rows],
        weights=weights,
        trainable=sum(one.numel() for one in student.trainable.values()),
        itemsize=student.dtype.itemsize,
        recompute=recompute,
        ranks=world.size if spread else 1,
        cpu=device.type == "cpu",
    )
    ctx.progress.say(plan.sentence(room, spec, recompute=recompute))
    first = data.rows[0]
    student.check_head(collate([first.prompts["student"]], [first.response], student.device).ids[:, :16])
    checkpoints = Checkpoints(ctx.out.at("checkpoints"), keep=spec.keep_checkpoints)
    training = Training(
        student, data.rows, spec, seed=ctx.job.spec.seed, checkpoints=checkpoints, progress=ctx.progress, stop=ctx.stop, world=world
    )
    training.run()
    if not world.lead:
        return {}
    ctx.out.put(CURVES, training.curves_jsonl())
    save_adapter(student, ctx.out, base=source.id, revision=source.revision)
    trainable = sum(one.numel() for one in student.trainable.values())
    if spec.save_merged:
        save_merged(_whole(ctx, student) if spread else student, tokenizer, ctx.out)
    # Only now: until everything above is written, they are what a killed stage goes on from.
    checkpoints.clear()
    curves = training.curves
    before = [0, *(line["tokens"] for line in curves)]
    seconds = sum((line["tokens"] - earlier) / line["tokens_per_s"] for line, earlier in zip(curves, before, strict=False))
    return {
        "rows": len(data.rows),
        "tokens": data.tokens,
        "steps": training.course.total,
        "dropped": dict(data.dropped),
        "solutions_cut": data.solutions_cut,
        "boxes_added": data.boxes_added,
        "trainable_parameters": trainable,
        "loss": curves[-1]["loss"],
        "tokens_per_s": curves[-1]["tokens"] / seconds,
        "resumed_at_step": training.resumed_at,
    }


def _model(ctx: StageContext, device: torch.device, world: World, *, spread: bool) -> PreTrainedModel:
    """The model on `device`; where it will be spread over the ranks, in rank 0's main memory, and its shapes alone on the others."""
    source = ctx.job.spec.model
    if not spread:
        return load_model(source, device=device)
    dtype = pick_dtype(source, device)
    return load_model(source, device=torch.device("cpu"), dtype=dtype) if world.lead else empty_model(model_folder(source), dtype)


def _whole(ctx: StageContext, student: Student) -> Student:
    """The student with all its weights in main memory: only rank 0 writes, and the others need not help it."""
    spec = ctx.task.settings.train
    model = load_model(ctx.job.spec.model, device=torch.device("cpu"), dtype=student.dtype)
    whole = Student(model, spec.lora, seed=ctx.job.spec.seed, recompute=False)
    with torch.no_grad():
        for name, weight in whole.trainable.items():
            weight.copy_(student.trainable[name])
    return whole


def _data(ctx: StageContext, tokenizer: Any, model: Any) -> TrainingData:
    """The rows that the objective learns from."""
    spec, job = ctx.task.settings.train, ctx.job.spec
    upstream = {name.split("/")[0]: store for name, store in ctx.inputs.items()}
    problems = list(from_jsonl(Problem, upstream["prepare"].get(PROBLEMS)))
    kept = list(from_jsonl(Kept, upstream["select"].get(KEPT)))
    longest = max_length(job.model, model.config)
    # The limit of rewriting, also for sft: every objective then sees the same student prompts.
    room = longest - ctx.task.settings.rewrite.max_tokens
    prompts = Prompts(tokenizer, job.prompts, thinking=job.model.thinking, max_tokens=room)
    eos = eos_ids(model, tokenizer)
    if spec.objective == "sft":
        chosen = {trace.id for trace in kept}
        data = expert_texts(
            [problem for problem in problems if problem.id in chosen],
            prompts,
            tokenizer,
            eos=eos,
            thinking=job.model.thinking,
            longest=longest,
        )
        if data.boxes_added:
            ctx.progress.say(
                f"sft: {data.boxes_added} of {len(data.rows)} expert solutions have no \\boxed answer, which the prompt asks for; "
                "their known answer is appended in a box."
            )
        return data
    shown = references(problems, spec.reference, job.seed)
    return traces(kept, {problem.id: problem for problem in problems}, shown, prompts, spec.objective, eos)
