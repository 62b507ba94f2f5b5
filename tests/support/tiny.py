"""Real but tiny Qwen models and tokenizers, made on the spot: what the tests run instead of downloading anything.

The chat templates behave like those of the Qwen2.5 and Qwen3 families in every way dail depends on: Qwen2.5 puts its own system
message in front where none is given; Qwen3 closes an empty think block where `enable_thinking` is false, and drops the
thinking of earlier turns.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import torch
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import GenerationConfig, PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM, Qwen3Config, Qwen3ForCausalLM

Style = Literal["qwen2.5", "qwen3"]

CONTROL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
"""Special tokens: never part of a decoded text."""
THINK = ("<think>", "</think>")
"""Added tokens that are not special, as in Qwen3: they stay visible in decoded text."""

QWEN25 = """\
{%- set system = "You are Qwen, created by Alibaba Cloud. You are a helpful assistant." -%}
{%- set turns = messages -%}
{%- if messages[0].role == "system" -%}
{%- set system = messages[0].content -%}
{%- set turns = messages[1:] -%}
{%- endif -%}
{{- "<|im_start|>system\\n" + system + "<|im_end|>\\n" -}}
{%- for turn in turns -%}
{{- "<|im_start|>" + turn.role + "\\n" + turn.content + "<|im_end|>\\n" -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- "<|im_start|>assistant\\n" -}}{%- endif -%}
"""

QWEN3 = """\
{%- set last = namespace(user=-1) -%}
{%- for turn in messages -%}
{%- if turn.role == "user" -%}{%- set last.user = loop.index0 -%}{%- endif -%}
{%- endfor -%}
{%- for turn in messages -%}
{%- if turn.role != "assistant" -%}
{{- "<|im_start|>" + turn.role + "\\n" + turn.content + "<|im_end|>\\n" -}}
{%- else -%}
{%- set said = turn.content.split("</think>")[-1].lstrip("\\n") -%}
{%- set thought = turn.content.split("</think>")[0].split("<think>")[-1].strip("\\n") if "</think>" in turn.content else "" -%}
{{- "<|im_start|>assistant\\n" -}}
{%- if loop.index0 > last.user -%}{{- "<think>\\n" + thought + "\\n</think>\\n\\n" -}}{%- endif -%}
{{- said + "<|im_end|>\\n" -}}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{- "<|im_start|>assistant\\n" -}}
{%- if enable_thinking is defined and enable_thinking is false -%}{{- "<think>\\n\\n</think>\\n\\n" -}}{%- endif -%}
{%- endif -%}
"""

TEMPLATES: dict[Style, str] = {"qwen2.5": QWEN25, "qwen3": QWEN3}

# One digit a piece, a word with the space before it, line ends together with the punctuation before them: as Qwen splits.
_PIECES = Regex(r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")

_CORPUS = [
    "Please reason step by step, and put your final answer within \\boxed{}.",
    "Here is a reference solution written by an expert. Solution. Now solve the problem from scratch, in your own words.",
    "The final answer is 7. Results met on the way: 12, 30. Do not mention it. Write as if you had never seen the reference.",
    "system user assistant You are Qwen, created by Alibaba Cloud. You are a helpful assistant.",
    "Tom has 3 apples and buys 5 more. How many apples does he have in all? 3 + 5 = 8, so the answer is \\boxed{8}.",
    "Let $x = \\frac{1}{2}$ and $y = \\sqrt{3}$, then $x \\cdot y = \\frac{\\sqrt{3}}{2}$. Therefore \\left(x, y\\right).\n\n",
    "First we add, then we multiply; the rest follows. How much does she pay each day? She pays $4 a day.\n",
]


def make_tiny_tokenizer(style: Style = "qwen3") -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer of some 400 pieces that encodes any text, with the chat template of `style`."""
    core = Tokenizer(models.BPE())
    core.normalizer = normalizers.NFC()
    core.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(_PIECES, "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=400, show_progress=False, initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    core.train_from_iterator(_CORPUS, trainer)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, eos_token="<|im_end|>", pad_token="<|endoftext|>")
    tokenizer.add_tokens(list(CONTROL), special_tokens=True)
    if style == "qwen3":
        tokenizer.add_tokens(list(THINK))
    tokenizer.chat_template = TEMPLATES[style]
    return tokenizer


def make_tiny_model(folder: Path, *, style: Style = "qwen3", hidden: int = 32, layers: int = 2, seed: int = 0) -> Path:
    """Save a random model of that family and its tokenizer in `folder`, as safetensors; returns `folder`.

    Args:
        folder: Made where it is missing.
        style: Family: its architecture, special tokens and chat template.
        hidden: Hidden size, a multiple of 32. Heads are 32 wide, the least that every engine's attention takes.
        layers: Number of layers.
        seed: Of the random weights.
    """
    tokenizer = make_tiny_tokenizer(style)
    shape = {
        # More rows than the tokenizer has tokens, as in both families: the last ids have no text.
        "vocab_size": -(-len(tokenizer) // 16) * 16,
        "hidden_size": hidden,
        "intermediate_size": 2 * hidden,
        "num_hidden_layers": layers,
        "max_position_embeddings": 4096,
        "tie_word_embeddings": True,
        # Ten times the usual spread: the model then has clear preferences, which tests can tell apart.
        "initializer_range": 0.2,
        "bos_token_id": None,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if style == "qwen3":
            model = Qwen3ForCausalLM(Qwen3Config(head_dim=32, num_attention_heads=4, num_key_value_heads=2, **shape))
        else:
            model = Qwen2ForCausalLM(Qwen2Config(num_attention_heads=hidden // 32, num_key_value_heads=1, **shape))
    # Both families end a response with either of two tokens.
    model.generation_config = GenerationConfig(
        eos_token_id=[tokenizer.eos_token_id, tokenizer.pad_token_id], pad_token_id=tokenizer.pad_token_id
    )
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
