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

from dail_runtime.errors import DailError, ModelError, SetupError
from dail_runtime.models import free_device_memory, load_tokenizer, max_length, model_folder, pick_device, pick_dtype
from dail_runtime.models.merged import write_merged
from dail_runtime.records import Sample
from dail_runtime.rewrite.engine import Request, Sampling, Tick
from dail_runtime.rewrite.responses import Response, contexts_of, responses, retried, rows_of, sample_of
from dail_runtime.rewrite.text import Decoder
from dail_runtime.rewrite.vllm_plugin.check import check_version
from dail_runtime.rewrite.vllm_plugin.requests import RESULTS, Role
from dail_runtime.rewrite.vllm_settings import arguments, environment, sequences
from dail_runtime.spec.model import ModelSpec
from dail_runtime.spec.rewrite import VllmEngine

TICK_SECONDS = 1.0

# In this process: whoever kills it leaves nothing behind, and SIGTERM reaches the loop that saves.
_ENVIRONMENT = {"VLLM_ENABLE_V1_MULTIPROCESSING": "0", "VLLM_LOGGING_STREAM": "ext://sys.stderr"}


@dataclass
class _Drawing:
    """A response under way: one vLLM request, or two."""

    response: Response
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
        os.environ.update(environment())
        os.environ.update(_ENVIRONMENT)
        check_version()
        from vllm.engine.arg_utils import EngineArgs
        from vllm.exceptions import VLLMError
        from vllm.v1.engine.llm_engine import LLMEngine

        settings = EngineArgs(
            **{**arguments(folder, length=length, dtype=dtype), "disable_log_stats": True, **options},
        )
        # vLLM's CPU worker replaces it for good, and other parts of this process need it.
        set_threads = torch.set_num_threads
        try:
            self.vllm: Any = LLMEngine.from_engine_args(settings)
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
        self._vocabulary = int(self.vllm.vllm_config.model_config.get_vocab_size())
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
            **sequences(engine.max_num_seqs),
            "tensor_parallel_size": engine.tensor_parallel_size,
            "gpu_memory_utilization": engine.gpu_memory_utilization,
        }
        if adapter is None:
            return cls(folder, tokenizer, length=length, dtype=dtype, **options)
        with tempfile.TemporaryDirectory(prefix="dail-merged-") as merged:
            write_merged(model, adapter, dtype, Path(merged))
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
        contexts = contexts_of(sampling)
        under_way: dict[str, tuple[_Drawing, Role]] = {}
        unstarted = responses(requests, sampling, self._length)
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
                for output in self.vllm.step():
                    drawing, role = under_way.pop(output.request_id)
                    drawing.outputs[role] = output
                    if len(drawing.outputs) < contexts:
                        continue
                    sample = self._sample(drawing, sampling)
                    if sample is None:
                        self._submit(drawing.response.again(), sampling, under_way)
                        continue
                    samples += 1
                    job = drawing.response.job
                    if (whole := job.add(sample)) is not None:
                        yield job.request, whole
                if tick is not None and time.monotonic() - told >= TICK_SECONDS:
                    tick(samples, (self._drawn() - begin) // contexts)
                    told = time.monotonic()
        finally:
            if under_way and self.vllm is not None:
                self.vllm.abort_request(list(under_way))
                # The scheduler tells the workers about the aborted in its next step.
                self.vllm.step()

    def _drawn(self) -> int:
        return int(self.scheduler.drawn)

    @property
    def scheduler(self) -> Any:
        """The plugin's scheduler: its counters tell how the work went."""
        return self.vllm.engine_core.engine_core.scheduler

    def _submit(self, response: Response, sampling: Sampling, under_way: dict[str, tuple[_Drawing, Role]]) -> None:
        from vllm import SamplingParams
        from vllm.inputs.engine import tokens_input
        from vllm.sampling_params import RequestOutputKind

        self._submitted += 1
        drawing = _Drawing(response)
        for row, context in zip(rows_of(response, sampling, str(self._submitted)), response.job.request.contexts, strict=True):
            params = SamplingParams(
                temperature=0.0,
                max_tokens=response.job.limit,
                stop_token_ids=sorted(id_ for id_ in sampling.eos if id_ < self._vocabulary),
                ignore_eos=True,  # only those count, whatever the model's files say
                detokenize=False,
                output_kind=RequestOutputKind.FINAL_ONLY,
                extra_args=row.to_args(),
                skip_clone=True,  # nobody else has it
            )
            name = f"{self._submitted}-{row.role}"
            under_way[name] = (drawing, row.role)
            self.vllm.add_request(name, tokens_input(list(context)), params)

    def _sample(self, drawing: _Drawing, sampling: Sampling) -> Sample | None:
        """The finished sample; None where its pair fell apart and it is to be drawn again."""
        response = drawing.response
        own = drawing.outputs.get("single") or drawing.outputs["student"]
        teacher = drawing.outputs.get("teacher", own)
        halves = [output.outputs[0] for output in (own, teacher)]
        failures = [str(half.stop_reason) for half in halves if half.finish_reason not in ("stop", "length")]
        if not failures and list(halves[0].token_ids) != list(halves[1].token_ids):
            failures = ["its halves hold different tokens"]
        if failures:
            retried(response, failures[0])
            return None
        told = () if teacher is own else teacher.kv_transfer_params[RESULTS]
        return sample_of(response.index, halves[0].token_ids, own.kv_transfer_params[RESULTS], told, sampling, self._decode)
