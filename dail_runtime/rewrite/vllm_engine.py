"""The engine `vllm`: vLLM inside this process, with dail's plugin drawing the tokens.

A sample's random numbers are those of every other engine, so it is the same sample up to the rounding of the model's logits:
vLLM's depend on what is batched together, and now and then that moves a draw to another token, after which the texts differ.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, PreTrainedTokenizerBase

from dail_runtime.errors import DailError, ModelError, SetupError, TransientError
from dail_runtime.models import free_device_memory, load_model, load_tokenizer, max_length, model_folder, pick_device, pick_dtype
from dail_runtime.records import Sample
from dail_runtime.rewrite.engine import Request, Sampling, Tick
from dail_runtime.rewrite.memory import memory_total
from dail_runtime.rewrite.text import Decoder
from dail_runtime.rewrite.vllm_plugin import LOGPROBS_MODE, PROCESSOR, SCHEDULER
from dail_runtime.rewrite.vllm_plugin.check import check_version
from dail_runtime.rewrite.vllm_plugin.requests import Role, Row, read
from dail_runtime.spec.model import ModelSpec
from dail_runtime.spec.rewrite import MixedPolicy, VllmEngine

TICK_SECONDS = 1.0
ATTEMPTS = 3
"""How often a response is begun whose pair falls apart."""

_ENVIRONMENT = {
    # In this process: whoever kills it leaves nothing behind, and SIGTERM reaches the loop that saves.
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_USE_V2_MODEL_RUNNER": "0",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_LOGGING_STREAM": "ext://sys.stderr",
}
_DEFAULTS = {"VLLM_LOGGING_LEVEL": "WARNING", "VLLM_CPU_OMP_THREADS_BIND": "nobind", "HF_HUB_OFFLINE": "1"}
_CPU_BLOCK = 32
_CPU_CACHE_SHARE, _CPU_CACHE_MOST = 0.25, 8 * 2**30
"""Of a CPU's memory for keys and values, unless VLLM_CPU_KVCACHE_SPACE says otherwise."""


@dataclass
class _Job:
    """A request under way."""

    request: Request
    limit: int
    done: dict[int, Sample] = field(default_factory=dict)


@dataclass
class _Response:
    """A sample under way: one vLLM request, or two."""

    job: _Job
    index: int
    attempt: int
    outputs: dict[Role, Any] = field(default_factory=dict)
    """vLLM's outputs of the halves that ended."""


class VllmGenerator:
    """Implements rewrite/engine.py's Engine."""

    def __init__(self, folder: Path, tokenizer: PreTrainedTokenizerBase, *, length: int, dtype: torch.dtype, **options: Any) -> None:
        """Load the model in `folder`.

        Args:
            length: Most tokens of prompt plus response.
            options: Further arguments of vLLM's EngineArgs.

        Raises:
            SetupError: there is no vLLM here that dail's plugin fits, or not enough memory.
            ModelError: vLLM does not take the model.
        """
        os.environ.update(_ENVIRONMENT)
        for name, value in _DEFAULTS.items():
            os.environ.setdefault(name, value)
        check_version()
        from vllm.engine.arg_utils import EngineArgs
        from vllm.exceptions import VLLMError
        from vllm.v1.engine.llm_engine import LLMEngine

        arguments = EngineArgs(
            model=str(folder),
            skip_tokenizer_init=True,
            dtype=str(dtype).removeprefix("torch."),
            max_model_len=length,
            trust_remote_code=False,
            load_format="safetensors",
            generation_config="vllm",
            logits_processors=[PROCESSOR],
            scheduler_cls=SCHEDULER,
            logprobs_mode=LOGPROBS_MODE,
            async_scheduling=False,
            disable_log_stats=True,
            **{**_machine(), **options},
        )
        # vLLM's CPU worker replaces it for good, and other parts of this process need it.
        set_threads = torch.set_num_threads
        try:
            self.vllm: Any = LLMEngine.from_engine_args(arguments)
        except DailError:
            raise
        except torch.OutOfMemoryError as err:
            raise SetupError(f"{folder.name}: it does not fit into the GPU's memory ({err}); use a larger GPU or a smaller model") from err
        except (ValueError, RuntimeError, OSError, ImportError, VLLMError) as err:
            raise ModelError(
                f"{folder.name}: vLLM cannot load it ({err}); use the engine `transformers`, or see vLLM's own messages"
            ) from err
        finally:
            torch.set_num_threads = set_threads
        model = self.vllm.vllm_config.model_config
        self._eager, self._vocabulary = bool(model.enforce_eager), int(model.get_vocab_size())
        self._decode, self._length = Decoder(tokenizer), length
        self._most = int(self.vllm.vllm_config.scheduler_config.max_num_seqs)
        self._submitted = 0

    @classmethod
    def open(cls, engine: VllmEngine, model: ModelSpec, *, adapter: Path | None = None) -> VllmGenerator:
        """Load the model that `model` names; an adapter is merged into a copy of it that lives as long as loading takes."""
        folder = model_folder(model)
        length = max_length(model, AutoConfig.from_pretrained(folder, trust_remote_code=False, local_files_only=True).get_text_config())
        tokenizer, dtype = load_tokenizer(model), pick_dtype(model, pick_device())
        options = {
            "max_num_seqs": engine.max_num_seqs,
            "tensor_parallel_size": engine.tensor_parallel_size,
            "gpu_memory_utilization": engine.gpu_memory_utilization,
        }
        if adapter is None:
            return cls(folder, tokenizer, length=length, dtype=dtype, **options)
        with tempfile.TemporaryDirectory(prefix="dail-merged-") as merged:
            named = model.model_copy(update={"dtype": str(dtype).removeprefix("torch.")})
            load_model(named, device=torch.device("cpu"), adapter=adapter).save_pretrained(merged)
            return cls(Path(merged), tokenizer, length=length, dtype=dtype, **options)

    def facts(self) -> dict[str, int]:
        """Nothing that must be kept for a restart."""
        return {}

    def close(self) -> None:
        """Let go of the model and its memory."""
        if self.vllm is None:
            return
        self.vllm.engine_core.shutdown()
        self.vllm = None
        free_device_memory()

    def generate(
        self, requests: Iterable[Request], sampling: Sampling, *, tick: Tick | None = None
    ) -> Iterator[tuple[Request, tuple[Sample, ...]]]:
        """See Engine.generate. Raises SetupError where a pair fits nowhere, TransientError where one keeps falling apart."""
        if self.vllm is None:
            raise RuntimeError("the engine is closed")
        contexts = 2 if isinstance(sampling.policy, MixedPolicy) else 1
        under_way: dict[str, tuple[_Response, Role]] = {}
        unstarted = _responses(requests, sampling, contexts, self._length)
        samples, begin, told = 0, self._drawn(), time.monotonic()
        try:
            while True:
                # A little more than vLLM decodes at once: whoever finishes is replaced without a step in between.
                while len(under_way) < self._most + self._most // 4 + 1:
                    response = next(unstarted, None)
                    if response is None:
                        break
                    if not response.job.request.samples:
                        yield response.job.request, ()
                        continue
                    self._submit(response, sampling, under_way)
                if not under_way:
                    return
                for output in self.step():
                    response, role = under_way.pop(output.request_id)
                    response.outputs[role] = output.outputs[0]
                    if len(response.outputs) < contexts:
                        continue
                    sample = self._sample(response, sampling)
                    if sample is None:
                        self._submit(_Response(response.job, response.index, response.attempt + 1), sampling, under_way)
                        continue
                    samples += 1
                    job = response.job
                    job.done[response.index] = sample
                    if len(job.done) == len(job.request.samples):
                        yield job.request, tuple(job.done[index] for index in job.request.samples)
                if tick is not None and time.monotonic() - told >= TICK_SECONDS:
                    tick(samples, (self._drawn() - begin) // contexts)
                    told = time.monotonic()
        finally:
            if under_way and self.vllm is not None:
                self.vllm.abort_request(list(under_way))
                # The scheduler tells the workers about the aborted in its next step.
                self.step()

    def step(self) -> list[Any]:
        """One step of vLLM; returns the outputs of the requests that ended in it."""
        # vLLM's sampler compiles its ranking of log-probabilities even where the model is not compiled: half a minute for
        # a number that nobody reads.
        with torch.compiler.set_stance("force_eager" if self._eager else "default"):
            ended: list[Any] = self.vllm.step()
        return ended

    def _drawn(self) -> int:
        return int(self.scheduler.drawn)

    @property
    def scheduler(self) -> Any:
        """The plugin's scheduler: its counters tell how the work went."""
        return self.vllm.engine_core.engine_core.scheduler

    def _submit(self, response: _Response, sampling: Sampling, under_way: dict[str, tuple[_Response, Role]]) -> None:
        from vllm import SamplingParams
        from vllm.inputs.engine import tokens_input
        from vllm.sampling_params import RequestOutputKind

        self._submitted += 1
        request = response.job.request
        roles: tuple[Role, ...] = ("single",) if len(request.contexts) == 1 else ("student", "teacher")
        mixed = sampling.policy if isinstance(sampling.policy, MixedPolicy) else None
        for role, context in zip(roles, request.contexts, strict=True):
            row = Row(
                role=role,
                pair="" if mixed is None else str(self._submitted),
                seed=request.seed,
                sample=response.index,
                temperature=sampling.temperature,
                top_p=sampling.top_p,
                tau=mixed.tau if mixed else 0.0,
                tries=mixed.tries if mixed else 1,
                suppress=sampling.suppress,
            )
            params = SamplingParams(
                temperature=0.0,
                max_tokens=response.job.limit,
                stop_token_ids=sorted(id_ for id_ in sampling.eos if id_ < self._vocabulary),
                ignore_eos=True,  # only those count, whatever the model's files say
                logprobs=0,
                flat_logprobs=True,
                detokenize=False,
                output_kind=RequestOutputKind.FINAL_ONLY,
                extra_args=row.to_args(),
            )
            name = f"{self._submitted}-{role}"
            under_way[name] = (response, role)
            self.vllm.add_request(name, tokens_input(list(context)), params)

    def _sample(self, response: _Response, sampling: Sampling) -> Sample | None:
        """The finished sample; None where its pair fell apart and it is to be drawn again."""
        key = response.job.request.key
        own = response.outputs.get("single") or response.outputs["student"]
        teacher = response.outputs.get("teacher", own)
        ids = tuple(own.token_ids)
        failures = [str(one.stop_reason) for one in (own, teacher) if one.finish_reason not in ("stop", "length")]
        if not failures and ids != tuple(teacher.token_ids):
            failures = ["its halves hold different tokens"]
        if failures:
            if "KV cache" in failures[0]:
                raise SetupError(f"{key}: {failures[0]}")
            if response.attempt >= ATTEMPTS:
                raise TransientError(f"{key}: a response failed {ATTEMPTS} times, the last time because {failures[0]}; start the run again")
            return None
        told = read(own.logprobs.logprobs, () if teacher is own else teacher.logprobs.logprobs)
        if told is None:
            raise ModelError("the model gives logits that are not finite numbers; load it with model.dtype float32, or check its weights")
        return Sample(
            index=response.index,
            ids=ids,
            text=self._decode(ids),
            finish="stop" if ids[-1] in sampling.eos else "length",
            logprob=told.logprob,
            accepted=told.accepted,
            distance=told.distance,
        )


def _responses(requests: Iterable[Request], sampling: Sampling, contexts: int, length: int) -> Iterator[_Response]:
    """One after the other, those of a problem in a row: they share its prompts in the cache. A problem without samples gives one too."""
    for request in requests:
        if len(request.contexts) != contexts:
            kind = sampling.policy.kind
            raise ValueError(f"{request.key}: the policy {kind} takes {contexts} context(s), and the request has {len(request.contexts)}")
        if len(set(request.samples)) != len(request.samples):
            raise ValueError(f"{request.key}: a sample index is asked for twice")
        longest = max(len(ids) for ids in request.contexts)
        limit = min(sampling.max_tokens, length - longest)
        if limit < 1 or not all(request.contexts):
            raise ModelError(
                f"{request.key}: a prompt of {longest} tokens leaves no room for a response within {length}; "
                "shorten the problem or raise model.maxLength"
            )
        job = _Job(request, limit)
        for index in request.samples or (-1,):
            yield _Response(job, index, 1)


def _machine() -> dict[str, Any]:
    """Settings of vLLM that follow from the device: stock on a GPU."""
    if pick_device().type != "cpu":
        return {}
    settings: dict[str, Any] = {"block_size": _CPU_BLOCK, "enforce_eager": True}
    if not os.environ.get("VLLM_CPU_KVCACHE_SPACE"):
        settings["kv_cache_memory_bytes"] = min(int(memory_total(torch.device("cpu")) * _CPU_CACHE_SHARE), _CPU_CACHE_MOST)
    return settings
