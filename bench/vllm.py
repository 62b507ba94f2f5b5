"""How fast dail's plugin draws inside vLLM: tokens of finished responses per second, one run, one engine, the same prompts.

`plain` is vLLM's own sampling on the student's prompts and `direct` the plugin's; `ceiling` is vLLM's own sampling on both
contexts of every response, independently: no scheme that reads two contexts can be faster. `paired` decodes both contexts in
lockstep. `per_token` is what one does without a plugin, and what the method's authors do: for each token one request to the
student's context and one to the teacher's, all responses side by side, with prefix caching; its policy needs no second draw here
(tau = 0 in effect), which flatters it.

    python -m bench.vllm [--responses 64] [--max-tokens 96] [--prompt 100] [--per-token-tokens 12] [--repeats 5]
                         [--model FOLDER] [--cpu-time]
"""

from __future__ import annotations

import argparse
import random
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from bench.common import interleaved, last_line
from dail_runtime.rewrite.engine import Request, Sampling, problem_seed
from dail_runtime.rewrite.vllm_engine import VllmGenerator
from dail_runtime.spec.model import ModelSpec
from dail_runtime.spec.rewrite import DirectPolicy, MixedPolicy, VllmEngine
from tests.support.tiny import make_tiny_model

MIXED = MixedPolicy(kind="mixed", tau=0.8)
FIRST_ID, LAST_ID = 32, 380
"""Prompts are random ids from this range: below are special tokens as a rule, above there may be none."""


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m bench.vllm", description="Tokens per second of dail's plugin inside vLLM.")
    parser.add_argument("--model", type=Path, help="folder of a model; default: a random one of 0.6 M parameters")
    parser.add_argument("--responses", type=int, default=64)
    parser.add_argument("--max-tokens", type=int, default=96)
    parser.add_argument("--prompt", type=int, default=100, help="tokens of the student's prompts; the privileged ones have twice as many")
    parser.add_argument("--per-token-tokens", type=int, default=12, help="tokens per response of the slow scheme")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument(
        "--cpu-time", action="store_true", help="time of this process instead of the wall clock: for shared CPUs, one thread"
    )
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        model = arguments.model or make_tiny_model(Path(folder), hidden=128, layers=4)
        bench = _Bench(ModelSpec(id=str(model)), arguments)
        names = ("plain", "direct", "ceiling", "paired", "per_token")
        speed = interleaved({name: getattr(bench, name) for name in names}, arguments.repeats)
        bench.close()
    for name, figure in speed.items():
        print(f"{name:10} {figure:10,.0f} tokens/s")
    last_line(
        "vllm",
        {
            "paired_vs_ceiling": speed["paired"] / speed["ceiling"],
            "paired_vs_one_engine": speed["paired"] / speed["per_token"],
            "direct_vs_plain": speed["direct"] / speed["plain"],
        },
    )


class _Bench:
    """The engine, the prompts and the schemes. Every response has the same length: no scheme gains from a lucky draw."""

    def __init__(self, spec: ModelSpec, arguments: argparse.Namespace) -> None:
        self._count: int = arguments.responses
        self._tokens: int = arguments.max_tokens
        self._few: int = arguments.per_token_tokens
        self._engine = VllmGenerator.open(VllmEngine.model_validate({"kind": "vllm", "maxNumSeqs": 2 * arguments.responses}), spec)
        self._source = random.Random(0)
        self._length = arguments.prompt
        self._clock: Callable[[], float] = time.process_time if arguments.cpu_time else time.perf_counter

    def plain(self) -> float:
        """vLLM's own sampling of the student's context."""
        return self._own([self._prompts(1)])

    def direct(self) -> float:
        """The plugin's sampling of the student's context."""
        return self._drawn([self._prompts(1)], DirectPolicy())

    def ceiling(self) -> float:
        """vLLM's own sampling of both contexts, which know nothing of each other."""
        return self._own([self._prompts(1), self._prompts(2)])

    def paired(self) -> float:
        """The plugin's pairs."""
        return self._drawn([self._prompts(1), self._prompts(2)], MIXED)

    def per_token(self) -> float:
        """A request per token and context."""
        students, teachers = self._prompts(1), self._prompts(2)
        begin = self._clock()
        drawn: list[list[int]] = [[] for _ in students]
        for _ in range(self._few):
            proposed = self._run([[*ids, *said] for ids, said in zip(students, drawn, strict=True)], 1)
            self._run([[*ids, *said] for ids, said in zip(teachers, drawn, strict=True)], 1, logprobs=1)
            for said, ids in zip(drawn, proposed, strict=True):
                said.extend(ids)
        return self._count * self._few / (self._clock() - begin)

    def close(self) -> None:
        """Give the engine back."""
        self._engine.close()

    def _prompts(self, factor: int) -> list[list[int]]:
        # New ones for every turn: what the last turn left in the prefix cache helps nobody.
        return [[self._source.randrange(FIRST_ID, LAST_ID) for _ in range(factor * self._length)] for _ in range(self._count)]

    def _drawn(self, contexts: Sequence[list[list[int]]], policy: DirectPolicy | MixedPolicy) -> float:
        requests = [
            Request(str(n), tuple(tuple(ids) for ids in both), (0,), problem_seed(0, "bench", "", str(n)))
            for n, both in enumerate(zip(*contexts, strict=True))
        ]
        sampling = Sampling(self._tokens, 1.0, 1.0, policy, (), frozenset())
        begin = self._clock()
        tokens = sum(len(sample.ids) for _, samples in self._engine.generate(requests, sampling) for sample in samples)
        return tokens / (self._clock() - begin)

    def _own(self, contexts: Sequence[list[list[int]]]) -> float:
        begin = self._clock()
        found = self._run([ids for both in zip(*contexts, strict=True) for ids in both], self._tokens)
        return sum(map(len, found)) / len(contexts) / (self._clock() - begin)

    def _run(self, prompts: Sequence[list[int]], tokens: int, *, logprobs: int | None = None) -> list[list[int]]:
        """Responses of vLLM's own sampling."""
        from vllm import SamplingParams
        from vllm.inputs.engine import tokens_input
        from vllm.sampling_params import RequestOutputKind

        settings = SamplingParams(
            temperature=1.0,
            max_tokens=tokens,
            ignore_eos=True,
            detokenize=False,
            logprobs=logprobs,
            output_kind=RequestOutputKind.FINAL_ONLY,
        )
        for number, ids in enumerate(prompts):
            self._engine.vllm.add_request(str(number), tokens_input(ids), settings)
        found: dict[str, Any] = {}
        while self._engine.vllm.has_unfinished_requests():
            found.update({output.request_id: output.outputs[0] for output in self._engine.step()})
        return [list(found[str(number)].token_ids) for number in range(len(prompts))]


if __name__ == "__main__":
    main()
