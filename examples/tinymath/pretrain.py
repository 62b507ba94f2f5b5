"""Makes the tiny base model from nothing: `python -m examples.tinymath.pretrain` (about 15 minutes on one free core).

Builds a byte-level tokenizer and an untrained Qwen3 of 0.8 M parameters, trains it on the lessons of `lessons.py`, prints how
well it does in each context and saves safetensors, tokenizer and configurations. The same seeds, library versions and kind of CPU
give the same model.
"""

from __future__ import annotations

import argparse
import math
import random
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F  # noqa: N812
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM
from transformers.utils import logging

from dail_runtime.prompts.wording import fill
from dail_runtime.spec.prompts import PromptSpec
from examples.tinymath.lessons import IGNORED, MAX_LENGTH, Context, Course, Encoder, batches, draw_lesson, wording
from examples.tinymath.problems import HERE, JUMP, Puzzle, draw

START, END, PAD = "<|im_start|>", "<|im_end|>", "<|endoftext|>"
CHATML = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
PIECE = r" ?\\boxed\{| ?[A-Za-z]+:?|\d|\]\n| ?[^\sA-Za-z\d]+|\s+"
"""BPE merges stay within one match; a digit is always a token of its own, without the space before it."""
PIECES = 400
"""Upper bound of the vocabulary: 256 bytes, 3 special tokens, the rest merges."""

PEAK, FLOOR = 2e-3, 0.05
"""Peak learning rate, and the share of it that the cosine ends at."""


def build_tokenizer(spec: PromptSpec) -> PreTrainedTokenizerFast:
    """A byte-level BPE learnt from 3000 lessons, with a ChatML template. It encodes any text, this subject's in few tokens."""
    bpe = Tokenizer(models.BPE())
    split = pre_tokenizers.Split(Regex(PIECE), "isolated")
    bpe.pre_tokenizer = pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    bpe.decoder = decoders.ByteLevel()
    rng, corpus = random.Random(0), []
    for _ in range(3000):
        lesson = draw_lesson(rng, longest=7)
        puzzle = lesson.puzzle
        values = {"problem": puzzle.problem, "solution": puzzle.solution, "answer": puzzle.answer, "landmarks": "1, 2"}
        corpus += [fill(getattr(spec, lesson.context), values), lesson.response, "user\n", "assistant\n"]
    trainer = trainers.BpeTrainer(
        vocab_size=PIECES,
        min_frequency=2,
        special_tokens=[PAD, START, END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(corpus, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        eos_token=END,
        pad_token=PAD,
        additional_special_tokens=[START],
        chat_template=CHATML,
        clean_up_tokenization_spaces=False,
        model_max_length=MAX_LENGTH,
    )


def build_model(tokenizer: PreTrainedTokenizerFast, seed: int = 0) -> Qwen3ForCausalLM:
    """An untrained Qwen3 of 0.8 M parameters, float32."""
    torch.manual_seed(seed)
    model = Qwen3ForCausalLM(
        Qwen3Config(
            vocab_size=len(tokenizer),
            hidden_size=128,
            intermediate_size=384,
            num_hidden_layers=4,
            num_attention_heads=4,
            num_key_value_heads=2,
            head_dim=32,
            max_position_embeddings=MAX_LENGTH,
            rope_theta=10000.0,
            tie_word_embeddings=True,
            bos_token_id=None,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )
    model.generation_config = GenerationConfig(
        do_sample=True, temperature=1.0, top_k=0, top_p=1.0, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id
    )
    return model


def learning_rate(step: int, course: Course) -> float:
    """Rises over the warm-up steps and falls along a cosine, both at once."""
    cosine = 0.5 * (1 + math.cos(math.pi * step / course.steps))
    return PEAK * min(1.0, (step + 1) / course.warmup) * (FLOOR + (1 - FLOOR) * cosine)


def pretrain(model: PreTrainedModel, encoder: Encoder, course: Course) -> float:
    """Train `model` in place; returns the mean loss of the last tenth of the course, in nats per response token."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=PEAK, betas=(0.9, 0.98), weight_decay=0.01)
    started, losses = time.monotonic(), []
    model.train()
    for step, halves in enumerate(batches(encoder, course)):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, course)
        tokens = sum(int((labels[:, 1:] != IGNORED).sum()) for _, labels in halves)
        optimizer.zero_grad(set_to_none=True)
        losses.append(0.0)
        for ids, labels in halves:
            hidden = model.model(input_ids=ids[:, :-1], use_cache=False).last_hidden_state
            learnt = labels[:, 1:] != IGNORED
            # The head runs only where a response token is predicted, which is about half of the positions.
            loss = F.cross_entropy(model.lm_head(hidden[learnt]), labels[:, 1:][learnt], reduction="sum") / tokens
            loss.backward()  # type: ignore[no-untyped-call]
            losses[-1] += loss.item()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if (step + 1) % 100 == 0:
            seconds = time.monotonic() - started
            print(f"step {step + 1} of {course.steps}: loss {sum(losses[-100:]) / 100:.4f}, {seconds:.0f} s", file=sys.stderr)
    model.eval()
    last = losses[-max(1, course.steps // 10) :]
    return sum(last) / len(last)


@torch.inference_mode()
def respond(model: PreTrainedModel, encoder: Encoder, context: Context, puzzles: list[Puzzle], *, seed: int) -> list[str]:
    """One response to each puzzle at temperature 1."""
    prompts = [encoder.prompt(context, puzzle) for puzzle in puzzles]
    length = max(map(len, prompts))
    pad = encoder.tokenizer.pad_token_id
    ids = torch.tensor([[pad] * (length - len(prompt)) + prompt for prompt in prompts])
    torch.manual_seed(seed)
    out = model.generate(input_ids=ids, attention_mask=(ids != pad).long(), max_new_tokens=160)
    texts: list[str] = encoder.tokenizer.batch_decode(out[:, length:], skip_special_tokens=True)
    return texts


@dataclass(frozen=True)
class Skill:
    """What one context can do; shares of all responses."""

    right: float
    """The right state is boxed at the end."""
    jumps: float
    """The answer was stated without the work."""


def skills(model: PreTrainedModel, encoder: Encoder, count: int = 200) -> dict[str, Skill]:
    """The base model in each context, on `count` problems of 5 or 6 steps drawn for this purpose."""
    rng = random.Random(99)
    ordinary = [draw(rng, rng.choice((5, 6)), odd=0) for _ in range(count)]
    odd = [draw(rng, rng.choice((5, 6)), odd=2) for _ in range(count)]
    asked: dict[str, tuple[Context, list[Puzzle]]] = {
        "student on ordinary problems": ("student", ordinary),
        "student on odd problems": ("student", odd),
        "privileged on odd problems": ("privileged", odd),
        "negative on odd problems": ("negative", odd),
    }
    found = {}
    for what, (context, puzzles) in asked.items():
        texts = respond(model, encoder, context, puzzles, seed=5)
        right = sum(text.endswith(puzzle.boxed) for text, puzzle in zip(texts, puzzles, strict=True))
        found[what] = Skill(right / count, sum(JUMP + "\\boxed" in text for text in texts) / count)
    return found


def main() -> None:
    """Make the model and save it."""
    parser = argparse.ArgumentParser(description="Makes the tiny base model from nothing.")
    parser.add_argument("--out", type=Path, default=HERE / "model", help="folder of the model (default: the committed one)")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads; the committed model was made with 1")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    logging.disable_progress_bar()
    spec = wording()
    tokenizer = build_tokenizer(spec)
    encoder, model = Encoder(tokenizer, spec), build_model(tokenizer)
    loss = pretrain(model, encoder, Course())
    print(f"{model.num_parameters() / 1e6:.2f} M parameters, {len(tokenizer)} pieces, loss {loss:.4f} nats per token")
    for what, skill in skills(model, encoder).items():
        print(f"{what}: {skill.right:.0%} right, {skill.jumps:.0%} jumps")
    model.save_pretrained(arguments.out)
    tokenizer.save_pretrained(arguments.out)


if __name__ == "__main__":
    main()
