"""How fast dail rewrites: tokens of responses per second, all schemes in one run on the same kind of prompts, as ratios.

The bars (tiny model, CPU): paired_vs_ceiling 0.9, paired_vs_one_engine 5, paired_vs_two_engines 8, direct_vs_plain 0.95.
`ceiling_vs_...` is what no scheme that reads two contexts could exceed. What the schemes are: bench/vllm_schemes.py, and
bench/transformers_schemes.py for the ratios that begin with `transformers_`.

    python -m bench.rewrite [--model FOLDER | --smollm] [--responses 64] [--max-tokens 256] [--prompt 100] [--repeats 5] [--quick]
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
from pathlib import Path

from bench.common import last_line, ratio, turns
from bench.transformers_schemes import TransformersSchemes
from bench.vllm_schemes import VllmSchemes
from dail_runtime.spec.load import load_job
from dail_runtime.spec.model import ModelSpec
from tests.support.tiny import make_tiny_model

SMOLLM = Path(__file__).parents[1] / "examples/smollm/job.yaml"
RATIOS = {
    "paired_vs_ceiling": ("paired", "ceiling"),
    "paired_vs_one_engine": ("paired", "one_engine"),
    "paired_vs_two_engines": ("paired", "two_engines"),
    "paired_vs_one_engine_in_step": ("paired", "one_engine_in_step"),
    "paired_vs_two_engines_in_step": ("paired", "two_engines_in_step"),
    "ceiling_vs_one_engine_in_step": ("ceiling", "one_engine_in_step"),
    "ceiling_vs_two_engines_in_step": ("ceiling", "two_engines_in_step"),
    "direct_vs_plain": ("direct", "plain"),
    "plain_vs_stock": ("plain", "stock"),
    "fallback_vs_plain": ("fallback", "served_plain"),
    "transformers_plain_vs_generate": ("transformers_plain", "transformers_generate"),
    "transformers_mixed_vs_generate": ("transformers_mixed", "transformers_generate"),
    "transformers_direct_vs_plain": ("transformers_direct", "transformers_plain"),
    "transformers_mixed_vs_plain": ("transformers_mixed", "transformers_plain"),
}
SHAPES = ((16, 50), (16, 400), (64, 50), (64, 400))
"""Responses side by side and tokens of the student's prompts."""


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m bench.rewrite", description="Tokens per second of the ways to rewrite.")
    model = parser.add_mutually_exclusive_group()
    model.add_argument("--model", type=Path, help="folder of a model; default: a random one of 0.6 M parameters")
    model.add_argument("--smollm", action="store_true", help="the real 135 M model of examples/smollm")
    parser.add_argument("--responses", type=int, default=64, help="side by side")
    parser.add_argument("--max-tokens", type=int, default=256)
    parser.add_argument("--prompt", type=int, default=100, help="tokens of the student's prompts; the teacher's have twice as many")
    parser.add_argument("--few", type=int, default=12, help="tokens per response of draft-and-verify")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="only the schemes inside one vLLM engine, and no shares")
    parser.add_argument("--cpu-time", action="store_true", help="with --quick: time of this process, for shared CPUs")
    arguments = parser.parse_args()
    if arguments.cpu_time and not arguments.quick:
        parser.error("--cpu-time goes with --quick: other processes have a time of their own")
    # Several engines live side by side: each with as much for keys and values as the largest shape needs.
    os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "4" if arguments.model or arguments.smollm else "1")
    with tempfile.TemporaryDirectory() as folder:
        if arguments.smollm:
            spec = load_job(SMOLLM).spec.model
        else:
            spec = ModelSpec(id=str(arguments.model or make_tiny_model(Path(folder), hidden=128, layers=4)))
        _measure(spec, arguments)


def _measure(spec: ModelSpec, arguments: argparse.Namespace) -> None:
    shape = {"responses": arguments.responses, "max_tokens": arguments.max_tokens, "prompt": arguments.prompt, "few": arguments.few}
    schemes = VllmSchemes(spec, **shape, cpu_time=arguments.cpu_time)
    try:
        names = ["plain", "direct", "ceiling", "paired", "one_engine_in_step"]
        names += [] if arguments.quick else ["one_engine", "stock", "two_engines", "two_engines_in_step", "served_plain", "fallback"]
        cases = {name: getattr(schemes, name) for name in names}
        if not arguments.quick:
            other = TransformersSchemes(spec, problems=64, samples=8, max_tokens=160, batch_size=256)
            cases |= {f"transformers_{name}": getattr(other, name) for name in ("generate", "plain", "direct", "mixed")}
        found = turns(cases, arguments.repeats)
        share = schemes.processors_share()
        shares = {} if arguments.quick else _shares(schemes)
    finally:
        schemes.close()
    for name, figures in found.items():
        print(f"{name:22} {statistics.median(figures):10,.0f} tokens/s")
    print(f"the processor takes {share:.3f} of the time of paired decoding")
    for (responses, prompt), (value, part) in shares.items():
        print(f"{responses:4} responses, prompts of {prompt:4}: paired is {value:.3f} of the ceiling, the processor's share {part:.3f}")
    ratios = {name: ratio(found, one, two) for name, (one, two) in RATIOS.items() if one in found and two in found}
    ratios["processors_share"] = share
    last_line("rewrite", ratios | {f"paired_vs_ceiling_{n}x{prompt}": value for (n, prompt), (value, _) in shares.items()})


def _shares(schemes: VllmSchemes) -> dict[tuple[int, int], tuple[float, float]]:
    """How paired decoding against the ceiling, and the processor's share of its time, depend on what is drawn."""
    found = {}
    for responses, prompt in SHAPES:
        schemes.shaped(responses, prompt)
        speed = turns({"ceiling": schemes.ceiling, "paired": schemes.paired}, 3)
        found[responses, prompt] = ratio(speed, "paired", "ceiling"), schemes.processors_share()
    return found


if __name__ == "__main__":
    main()
