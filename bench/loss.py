"""Time and peak memory of the fused loss, gradient of the hidden states included, against the plain three-log-softmax version.

Also against liger-kernel's chunked JSD loss at beta = 1, which is KL(student||teacher), our objective `distill`: the one of its KL
losses that runs without Triton, so on a CPU as well. It always makes the output matrix's gradient, too; so ours is asked for both there
(with a frozen matrix, as LoRA has it, ours saves that product and liger's does not). Both compute in float32, not compiled.

Every pair is checked to compute the same value and the same gradients first. Time: the versions take turns in one process, medians.
Memory: each case in a process of its own, the growth of its resident set at the peak. The plain version's peak
at 8k x 128k, some 30 GB, is proportional to the tokens: without --full, and where it does not fit into memory, it is taken from a
straight line through two smaller sizes, and the output says so.

    python -m bench.loss [--full] [--hidden 128] [--repeats 3] [--chunk-tokens 1024]
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch

from bench.common import interleaved, last_line
from dail_runtime.train.loss import Head, fused_loss
from dail_runtime.train.loss.plain import plain_values
from dail_runtime.train.memory import free_memory, readable

VOCABULARIES = {"32k": 32_768, "128k": 131_072, "152k": 151_936}
TOKENS = {"1k": 1024, "8k": 8192, "16k": 16_384}
SHORT = (("1k", "32k"), ("1k", "128k"), ("8k", "32k"))
"""Sizes whose times are taken without --full; the others take minutes each."""
PAIRS = (("fused", "plain"), ("distill", "liger"))
PLAIN_COPIES = 9
"""Tensors [tokens, vocabulary] that the plain version may hold at once; what must be free before it is tried."""


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m bench.loss", description="Time and memory of the fused loss.")
    parser.add_argument("--full", action="store_true", help="all sizes, also those that take minutes")
    parser.add_argument("--hidden", type=int, default=128)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--chunk-tokens", type=int, default=1024)
    parser.add_argument("--peak-of", nargs=3, metavar=("NAME", "TOKENS", "VOCABULARY"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.peak_of is not None:
        name, tokens, vocabulary = arguments.peak_of
        print(_peak(name, int(tokens), int(vocabulary), arguments))
        return
    ratios = {**_times(arguments), **_memory(arguments)}
    last_line("loss", ratios)


def _case(name: str, tokens: int, vocabulary: int, arguments: argparse.Namespace) -> Callable[[], None]:
    """Forward and backward of one version on random input."""
    whole = _version(name, tokens, vocabulary, arguments)

    def run() -> None:
        whole()

    return run


def _version(name: str, tokens: int, vocabulary: int, arguments: argparse.Namespace) -> Callable[[], list[torch.Tensor]]:
    """Computes one version on random input: the loss, and the gradients that are compared."""
    made = torch.Generator().manual_seed(0)

    def draw(rows: int) -> torch.Tensor:
        return torch.randn(rows, arguments.hidden, generator=made)

    weight = (draw(vocabulary) / arguments.hidden**0.5).requires_grad_(name in ("distill", "liger"))
    head, frozen = Head(weight), weight.detach()
    hidden, teacher, negative = draw(tokens).requires_grad_(), draw(tokens), draw(tokens)

    def fused() -> torch.Tensor:
        return fused_loss(
            hidden, head, objective="contrastive", teacher=teacher, negative=negative, chunk_tokens=arguments.chunk_tokens
        ).loss

    def plain() -> torch.Tensor:
        return plain_values(hidden, head, objective="contrastive", teacher=teacher, negative=negative).mean()

    def distill() -> torch.Tensor:
        return fused_loss(hidden, head, objective="distill", teacher=teacher, chunk_tokens=arguments.chunk_tokens).loss

    def liger() -> torch.Tensor:
        from liger_kernel.chunked_loss import LigerFusedLinearJSDLoss  # type: ignore[import-untyped]

        # Not compiled: that needs a C++ compiler, which a machine that only trains lacks.
        loss = LigerFusedLinearJSDLoss(
            weight_hard_loss=0.0, weight_soft_loss=1.0, beta=1.0, compiled=False, chunk_size=arguments.chunk_tokens
        )
        found: torch.Tensor = loss(hidden, weight, teacher, frozen, torch.zeros(tokens, dtype=torch.long))
        return found

    version = {"fused": fused, "plain": plain, "distill": distill, "liger": liger}[name]

    def run() -> list[torch.Tensor]:
        loss = version()
        return [loss.detach(), *torch.autograd.grad(loss, [one for one in (hidden, weight) if one.requires_grad])]

    return run


def _same(one: str, other: str, arguments: argparse.Namespace) -> None:
    """Two versions that are compared compute the same."""
    for ours, theirs in zip(*(_version(name, 64, 512, arguments)() for name in (one, other)), strict=True):
        if (ours - theirs).norm() > 1e-4 * theirs.norm():
            sys.exit(f"{one} and {other} do not compute the same: a difference of {float((ours - theirs).norm() / theirs.norm()):.2g}")


def _timed(run: Callable[[], None]) -> Callable[[], float]:
    def case() -> float:
        began = time.perf_counter()
        run()
        return time.perf_counter() - began

    return case


def _times(arguments: argparse.Namespace) -> dict[str, float]:
    """Ratios of time; over several vocabularies the worst."""
    ratios: dict[str, list[float]] = {}
    for size, tokens in TOKENS.items():
        for vocabulary, number in VOCABULARIES.items():
            if not arguments.full and (size, vocabulary) not in SHORT:
                continue
            pairs = list(PAIRS)
            if PLAIN_COPIES * tokens * number * 4 > free_memory():
                print(f"time {size} x {vocabulary}: the plain version does not fit into memory; left out", file=sys.stderr)
                pairs = pairs[1:]
            for one, other in pairs:
                _same(one, other, arguments)
                cases = {name: _timed(_case(name, tokens, number, arguments)) for name in (one, other)}
                seconds = interleaved(cases, arguments.repeats if size == "1k" else max(1, arguments.repeats - 1))
                print(f"time {size} x {vocabulary}: {one} {seconds[one]:.2f} s, {other} {seconds[other]:.2f} s")
                ratios.setdefault(f"time_{size}_vs_{other}", []).append(seconds[one] / seconds[other])
    return {name: max(found) for name, found in ratios.items()}


def _memory(arguments: argparse.Namespace) -> dict[str, float]:
    """Ratios of peak memory at 8k x 128k (with --full, printed for the other sizes too)."""
    ratios: dict[str, float] = {}
    sizes = [(size, vocabulary) for size in TOKENS for vocabulary in VOCABULARIES] if arguments.full else [("8k", "128k")]
    for size, vocabulary in sizes:
        tokens, number = TOKENS[size], VOCABULARIES[vocabulary]
        for one, other in PAIRS:
            mine = _peak_of(one, tokens, number, arguments)
            # Without --full also where it would fit: the line is exact enough, and takes seconds.
            if other == "plain" and (not arguments.full or PLAIN_COPIES * tokens * number * 4 > free_memory()):
                theirs, how = _extrapolated(tokens, number, arguments), "a line through 512 and 1024 tokens"
            else:
                theirs, how = _peak_of(other, tokens, number, arguments), "measured"
            print(f"memory {size} x {vocabulary}: {one} {readable(mine)}, {other} {readable(theirs)} ({how})")
            ratios[f"memory_{size}_vs_{other}"] = mine / theirs
    return {name: ratio for name, ratio in ratios.items() if name.startswith("memory_8k")}


def _extrapolated(tokens: int, vocabulary: int, arguments: argparse.Namespace) -> int:
    few, more = (_peak_of("plain", count, vocabulary, arguments) for count in (512, 1024))
    return round(few + (more - few) * (tokens - 512) / 512)


def _peak_of(name: str, tokens: int, vocabulary: int, arguments: argparse.Namespace) -> int:
    """`_peak` in a fresh process, in bytes."""
    options = ["--hidden", str(arguments.hidden), "--chunk-tokens", str(arguments.chunk_tokens)]
    command = [sys.executable, "-m", "bench.loss", *options, "--peak-of", name, str(tokens), str(vocabulary)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[1])
    return int(done.stdout.split()[-1])


def _peak(name: str, tokens: int, vocabulary: int, arguments: argparse.Namespace) -> int:
    """Bytes by which this process's resident set grows at the peak of one run; threads and kernels are set up before."""
    _case(name, 8, 64, arguments)()
    run = _case(name, tokens, vocabulary, arguments)
    before = _status("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
    run()
    return _status("VmHWM") - before


def _status(field: str) -> int:
    """A figure of /proc/self/status, in bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"/proc/self/status has no {field}")


if __name__ == "__main__":
    main()
