"""Refuses a vLLM that the plugin does not fit: another version, a hook that changed, or settings that break the lockstep."""

from __future__ import annotations

import importlib
import inspect
from typing import Any

from dail_runtime.errors import SetupError
from dail_runtime.rewrite.vllm_plugin import PROCESSOR, WORKER

VERSION = "0.32"
"""The series of vLLM whose scheduler the plugin was written for and is tested with."""

HOOKS: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    ("vllm.v1.core.sched.scheduler:Scheduler", "add_request", ("self", "request")),
    ("vllm.v1.core.sched.scheduler:Scheduler", "schedule", ("self", "throttle_prefills")),
    ("vllm.v1.core.sched.scheduler:Scheduler", "update_from_output", ("self", "scheduler_output", "model_runner_output")),
    ("vllm.v1.core.sched.scheduler:Scheduler", "finish_requests", ("self", "request_ids", "finished_status")),
    ("vllm.v1.core.sched.scheduler:Scheduler", "get_num_unfinished_requests", ("self",)),
    ("vllm.v1.core.sched.scheduler:Scheduler", "_free_request", ("self", "request", "delay_free_blocks")),
    ("vllm.v1.core.sched.scheduler:Scheduler", "_preempt_request", ("self", "request", "timestamp", "drop_stale_output")),
    (
        "vllm.v1.core.sched.scheduler:Scheduler",
        "_reserve_prefill_lookahead",
        ("self", "request", "num_computed_tokens", "num_new_tokens"),
    ),
    ("vllm.v1.core.sched.scheduler:Scheduler", "_get_local_prefix_cache_hit", ("self", "request")),
    ("vllm.v1.core.kv_cache_manager:KVCacheManager", "create_kv_cache_blocks", ("self", "blocks")),
    (
        "vllm.v1.core.kv_cache_coordinator:KVCacheCoordinator",
        "find_longest_cache_hit",
        ("self", "block_hashes", "max_cache_hit_length"),
    ),
    ("vllm.v1.core.block_pool:BlockPool", "get_num_free_blocks", ("self",)),
    ("vllm.v1.sample.logits_processor:LogitsProcessor", "apply", ("self", "logits")),
    ("vllm.v1.sample.logits_processor:LogitsProcessor", "update_state", ("self", "batch_update")),
    ("vllm.v1.worker.gpu_worker:Worker", "init_device", ("self",)),
    ("vllm.v1.worker.gpu_worker:Worker", "sample_tokens", ("self", "grammar_output")),
)
"""Where, which method, with which parameters: everything the plugin overrides or calls that vLLM does not promise to keep."""

CHANGES = (
    "n",
    "logprobs",
    "logprob_token_ids",
    "presence_penalty",
    "frequency_penalty",
    "repetition_penalty",
    "logit_bias",
    "allowed_token_ids",
    "bad_words",
    "structured_outputs",
    "thinking_token_budget",
    "min_tokens",
    "stop",
    "repetition_detection",
    "trace_decode_token_ids",
)
"""Settings of a request by which vLLM changes what the plugin draws, where a response ends, or what is told of it."""

FIELDS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("vllm.v1.core.sched.output:SchedulerOutput", ("total_num_scheduled_tokens",)),
    ("vllm.v1.outputs:ModelRunnerOutput", ("req_ids", "sampled_token_ids")),
    ("vllm.v1.engine:EngineCoreOutput", ("new_token_ids", "finish_reason", "stop_reason", "kv_transfer_params")),
    ("vllm.sampling_params:SamplingParams", CHANGES),
)
"""Where, and what the plugin reads or fills in there."""


def check_version() -> None:
    """Refuse another series of vLLM, or one whose hooks differ.

    Raises:
        SetupError: vLLM is missing or does not fit; names what and the remedy.
    """
    try:
        import vllm
    except ImportError as err:
        raise SetupError(
            f"the engine `vllm` needs vLLM {VERSION}, which cannot be imported here ({err}); install dail with the extra `vllm`"
        ) from None
    version = str(vllm.__version__)
    if not version.startswith(f"{VERSION}."):
        raise SetupError(f"dail's vLLM plugin is made for vLLM {VERSION}.x, and this is {version}; install vllm=={VERSION}.*")
    for where, method, expected in HOOKS:
        try:
            found = tuple(inspect.signature(getattr(_class(where), method)).parameters)
        except (ImportError, AttributeError) as err:
            raise SetupError(f"dail's vLLM plugin relies on {where}.{method}, which this vLLM {version} lacks ({err})") from None
        if found != expected:
            raise SetupError(
                f"dail's vLLM plugin relies on {where}.{method} taking {', '.join(expected)}, and in this vLLM {version} it takes "
                f"{', '.join(found)}; install a release of vLLM {VERSION} as it was published"
            )

    for where, names in FIELDS:
        try:
            lacking = set(names) - inspect.get_annotations(_class(where)).keys()
        except (ImportError, AttributeError) as err:
            raise SetupError(f"dail's vLLM plugin relies on {where}, which this vLLM {version} lacks ({err})") from None
        if lacking:
            raise SetupError(
                f"dail's vLLM plugin relies on {where} having {', '.join(sorted(lacking))}, which this vLLM {version} lacks; "
                f"install a release of vLLM {VERSION} as it was published"
            )


def _class(where: str) -> Any:
    module, _, name = where.partition(":")
    return getattr(importlib.import_module(module), name)


def check_settings(config: Any) -> None:
    """Refuse settings under which pairs would not stay together, or results not come back.

    Args:
        config: The engine's VllmConfig.

    Raises:
        SetupError: one that does not fit; says how to start vLLM instead.
    """
    scheduler, parallel, model = config.scheduler_config, config.parallel_config, config.model_config
    refusals = (
        (config.use_v2_model_runner, "it uses the V2 model runner", "set VLLM_USE_V2_MODEL_RUNNER=0"),
        (scheduler.async_scheduling, "it schedules asynchronously", "add --no-async-scheduling"),
        (scheduler.policy != "fcfs", f"its scheduling policy is {scheduler.policy}", "leave out --scheduling-policy"),
        (not scheduler.enable_chunked_prefill, "it cannot read prompts in parts", "leave out --no-enable-chunked-prefill"),
        (scheduler.max_num_seqs < 2, "it decodes one sequence at a time", "raise --max-num-seqs to 2 or more"),
        (scheduler.max_num_active_seqs == 1, "it decodes one sequence at a time", "leave out --max-num-active-seqs"),
        (
            scheduler.max_num_scheduled_tokens is not None and scheduler.max_num_scheduled_tokens < scheduler.max_num_seqs,
            "a step may compute fewer tokens than there are sequences",
            "leave out --max-num-scheduled-tokens",
        ),
        (config.speculative_config is not None, "it decodes speculatively", "leave out --speculative-config"),
        (config.kv_transfer_config is not None, "it moves its KV cache elsewhere", "leave out --kv-transfer-config"),
        (parallel.pipeline_parallel_size > 1, "it splits the model by layers", "use --tensor-parallel-size instead"),
        (parallel.data_parallel_size > 1, "it runs several engines as one", "start one server for each instead"),
        (parallel.worker_cls != WORKER, "results could not come back", f"add --worker-cls {WORKER}"),
        (PROCESSOR not in (model.logits_processors or ()), "dail's processor is missing", f"add --logits-processors {PROCESSOR}"),
    )
    for refused, what, remedy in refusals:
        if refused:
            raise SetupError(f"dail's vLLM plugin does not work with this vLLM: {what}; {remedy}")
