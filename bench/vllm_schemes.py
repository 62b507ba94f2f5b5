"""Rewriting on vLLM, for bench/rewrite.py. Every response has the same length: no scheme gains from a lucky draw.

In this process, in one engine:
`plain` is vLLM's own sampling of the student's context and `direct` the plugin's; `ceiling` is vLLM's own sampling of both
contexts of every response, which know nothing of each other: no scheme that reads two contexts can be faster. `paired` is the
plugin, both contexts in lockstep. `one_engine_in_step` is the most that an engine can be made to give a token at a time: all
responses side by side, a step for the student's contexts and a step for the teacher's; it keeps every token of the student (tau = 0
in effect), asks for no log-probability of it, and so doesn't have what the others return.

In processes of their own, stock vLLM: `stock` is `plain` on an engine that knows nothing of dail, with vLLM's own defaults;
`one_engine` and `two_engines` are mixed rollouts with a request per token and context (bench/per_token.py), the authors' scheme, and
`two_engines_in_step` is `one_engine_in_step` with an engine for each context; `served_plain` is a server drawing the student's
context, and `fallback` the same server in draft-and-verify, a quarter of the responses and few tokens of each, because it is so slow.

The schemes of a token at a time draw as many tokens as a block of the cache holds, in the middle of the responses, with all before
them in the cache: how much is read anew depends on where in its last block a prompt ends, and how long it takes on how far the
response has got.
"""

from __future__ import annotations

import random
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig

from bench.per_token import PerToken
from dail_runtime.models import model_folder, pick_device, pick_dtype
from dail_runtime.rewrite.engine import Engine, Request, Sampling, problem_seed
from dail_runtime.rewrite.vllm_engine import VllmGenerator
from dail_runtime.rewrite.vllm_http.engine import VllmHttpGenerator
from dail_runtime.rewrite.vllm_http.naming import served_name
from dail_runtime.rewrite.vllm_settings import arguments, as_options
from dail_runtime.spec.model import ModelSpec
from dail_runtime.spec.rewrite import DirectPolicy, MixedPolicy, VllmEngine, VllmHttpEngine
from tests.support.servers import vllm_server

MIXED = MixedPolicy(kind="mixed", tau=0.8)
FIRST_ID, LAST_ID = 32, 380
"""Prompts are random ids from this range: below are special tokens as a rule, above there may be none."""
PLUGIN_OPTIONS = ("logits_processors", "scheduler_cls", "worker_cls", "async_scheduling")
SERVER = "vllm.entrypoints.openai.api_server"


class VllmSchemes:
    """The engines, the prompts and the schemes; each scheme returns tokens of finished responses per second."""

    def __init__(self, spec: ModelSpec, *, responses: int, max_tokens: int, prompt: int, few: int, cpu_time: bool = False) -> None:
        """
        Args:
            prompt: Tokens of the student's prompts; the teacher's have twice as many.
            few: Tokens per response of `fallback`.
            cpu_time: Measure the time of this process instead of the wall clock: for shared CPUs and one thread; schemes in other
                processes then make no sense.
        """
        self._spec, self._count, self._tokens, self._length, self._few = spec, responses, max_tokens, prompt, few
        self._engine = VllmGenerator.open(VllmEngine.model_validate({"kind": "vllm", "maxNumSeqs": 2 * responses}), spec)
        self._source = random.Random(0)
        self._clock: Callable[[], float] = time.process_time if cpu_time else time.perf_counter
        self._stack = ExitStack()
        self._stack.callback(self._engine.close)
        self._apart: tuple[Any, Any] | None = None
        self._alone: PerToken | None = None
        self._block = int(self._engine.vllm.vllm_config.cache_config.block_size)
        self._served: VllmHttpGenerator | None = None

    def plain(self) -> float:
        """vLLM's own sampling of the student's context."""
        return self._own(self._engine.vllm, [self._prompts(1)])

    def stock(self) -> float:
        """The same, without the plugin."""
        return self._own(self._others()[0], [self._prompts(1)])

    def direct(self) -> float:
        """The plugin's sampling of the student's context."""
        return self._drawn(self._engine, [self._prompts(1)], DirectPolicy())

    def ceiling(self) -> float:
        """vLLM's own sampling of both contexts, which know nothing of each other."""
        return self._own(self._engine.vllm, [self._prompts(1), self._prompts(2)])

    def paired(self) -> float:
        """The plugin's pairs."""
        return self._drawn(self._engine, [self._prompts(1), self._prompts(2)], MIXED)

    def one_engine(self) -> float:
        """A request per token and context, every response on its own."""
        return self._per_token(1)

    def two_engines(self) -> float:
        """The same, an engine for each context."""
        return self._per_token(2)

    def one_engine_in_step(self) -> float:
        """A token at a time, all responses together."""
        return self._in_step(self._engine.vllm, self._engine.vllm)

    def two_engines_in_step(self) -> float:
        """The same, an engine for each context."""
        return self._in_step(*self._others())

    def served_plain(self) -> float:
        """The student's context on a server without the plugin."""
        return self._served_drawn([self._prompts(1)], DirectPolicy())

    def fallback(self) -> float:
        """Draft-and-verify on that server."""
        return self._served_drawn([self._prompts(1), self._prompts(2)], MIXED)

    def processors_share(self) -> float:
        """Of the time of `paired`, the part that the plugin's logits processor takes. Says nothing on a GPU, which works on its own."""
        from dail_runtime.rewrite.vllm_plugin.processor import PolicyProcessor

        seconds, apply = 0.0, PolicyProcessor.apply

        def timed(processor: PolicyProcessor, logits: torch.Tensor) -> torch.Tensor:
            nonlocal seconds
            begin = self._clock()
            drawn = apply(processor, logits)
            seconds += self._clock() - begin
            return drawn

        PolicyProcessor.apply = timed  # type: ignore[method-assign]
        try:
            speed = self.paired()
            return seconds * speed / (self._count * self._tokens)
        finally:
            PolicyProcessor.apply = apply  # type: ignore[method-assign]

    def shaped(self, responses: int, prompt: int) -> None:
        """Other numbers from now on; no more responses than at the start."""
        self._count, self._length = responses, prompt

    def close(self) -> None:
        """Give all engines back."""
        self._stack.close()

    def _prompts(self, factor: int) -> list[list[int]]:
        # New ones for every turn: what the last turn left in the prefix cache helps nobody.
        return [[self._source.randrange(FIRST_ID, LAST_ID) for _ in range(factor * self._length)] for _ in range(self._count)]

    def _served_drawn(self, contexts: Sequence[list[list[int]]], policy: DirectPolicy | MixedPolicy) -> float:
        most = max(1, self._count // 4)
        return self._drawn(self._server(), [prompts[:most] for prompts in contexts], policy, tokens=self._few)

    def _drawn(
        self, engine: Engine, contexts: Sequence[list[list[int]]], policy: DirectPolicy | MixedPolicy, *, tokens: int | None = None
    ) -> float:
        requests = [
            Request(str(n), tuple(tuple(ids) for ids in both), (0,), problem_seed(0, "bench", "", str(n)))
            for n, both in enumerate(zip(*contexts, strict=True))
        ]
        sampling = Sampling(tokens or self._tokens, 1.0, 1.0, policy, (), frozenset())
        begin = self._clock()
        drawn = sum(len(sample.ids) for _, samples in engine.generate(requests, sampling) for sample in samples)
        return drawn / (self._clock() - begin)

    def _own(self, engine: Any, contexts: Sequence[list[list[int]]]) -> float:
        begin = self._clock()
        found = self._run(engine, [ids for both in zip(*contexts, strict=True) for ids in both], self._tokens)
        return sum(map(len, found)) / len(contexts) / (self._clock() - begin)

    def _per_token(self, engines: int) -> float:
        if self._alone is None:
            self._alone = PerToken(self._settings() | {"max_num_seqs": 2 * self._count}, tau=MIXED.tau)
            self._stack.callback(self._alone.close)
        middle = self._middle()
        self._alone.prepare(engines, middle)
        begin = self._clock()
        return self._alone.draw(engines, middle, self._block) / (self._clock() - begin)

    def _in_step(self, student: Any, teacher: Any) -> float:
        students, teachers = self._middle()
        for engine, prompts in ((student, students), (teacher, teachers)):
            self._run(engine, prompts, 1)
        begin = self._clock()
        for _ in range(self._block):
            proposed = self._run(student, students, 1)
            self._run(teacher, teachers, 1, logprobs=1)
            for one, other, ids in zip(students, teachers, proposed, strict=True):
                one.extend(ids)
                other.extend(ids)
        return self._count * self._block / (self._clock() - begin)

    def _middle(self) -> tuple[list[list[int]], list[list[int]]]:
        """Both contexts of every response, half of it drawn."""
        drawn = [[self._source.randrange(FIRST_ID, LAST_ID) for _ in range(self._tokens // 2)] for _ in range(self._count)]
        students, teachers = ([[*ids, *said] for ids, said in zip(self._prompts(n), drawn, strict=True)] for n in (1, 2))
        return students, teachers

    def _run(self, engine: Any, prompts: Sequence[list[int]], tokens: int, *, logprobs: int | None = None) -> list[list[int]]:
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
            engine.add_request(str(number), tokens_input(ids), settings)
        found: dict[str, Any] = {}
        while engine.has_unfinished_requests():
            found.update({output.request_id: output.outputs[0] for output in engine.step()})
        return [list(found[str(number)].token_ids) for number in range(len(prompts))]

    def _settings(self) -> dict[str, Any]:
        """Of vLLM without the plugin, all else alike."""
        folder = model_folder(self._spec)
        longest = AutoConfig.from_pretrained(folder, local_files_only=True).get_text_config().max_position_embeddings
        length = self._spec.max_length or longest
        settings = arguments(folder, length=length, dtype=pick_dtype(self._spec, pick_device()))
        return {name: value for name, value in settings.items() if name not in PLUGIN_OPTIONS}

    def _others(self) -> tuple[Any, Any]:
        if self._apart is None:
            self._apart = self._other_engine(), self._other_engine()
        return self._apart

    def _other_engine(self) -> Any:
        """Stock vLLM in a process of its own."""
        from vllm.engine.arg_utils import EngineArgs
        from vllm.v1.engine.llm_engine import LLMEngine

        settings = EngineArgs(**self._settings(), max_num_seqs=2 * self._count, disable_log_stats=True)
        engine = LLMEngine.from_engine_args(settings, enable_multiprocessing=True)
        self._stack.callback(engine.engine_core.shutdown)
        return engine

    def _server(self) -> VllmHttpGenerator:
        if self._served is None:
            settings = {name: value for name, value in self._settings().items() if name != "skip_tokenizer_init"}
            log = Path(self._stack.enter_context(tempfile.TemporaryDirectory())) / "log"
            settings |= {"served_model_name": served_name(self._spec), "max_logprobs": -1, "max_num_seqs": 2 * self._count}
            if pick_device().type == "cpu":
                # As the README says: requests with a seed can end vLLM's CPU build where a prompt is read in parts.
                settings["enable_chunked_prefill"] = False
            words = as_options(settings)
            server = self._stack.enter_context(vllm_server(words, log, module=SERVER))
            engine = VllmHttpEngine(kind="vllm-http", servers=(server.url,), withoutPlugin="draft-and-verify", inFlight=self._count)
            self._served = VllmHttpGenerator.open(engine, self._spec)
            self._stack.callback(self._served.close)
        return self._served
