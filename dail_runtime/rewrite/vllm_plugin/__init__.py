"""A plugin for unmodified vLLM: draws dail's policies inside the engine, and decodes the two contexts of a pair in lockstep.

Load it with these options of vLLM (in process: the keyword arguments of the same names):

    --logits-processors dail_runtime.rewrite.vllm_plugin.processor:PolicyProcessor
    --scheduler-cls dail_runtime.rewrite.vllm_plugin.scheduler.PairScheduler
    --worker-cls dail_runtime.rewrite.vllm_plugin.worker.PolicyWorker
    --no-async-scheduling

and the environment variable VLLM_USE_V2_MODEL_RUNNER=0: the plugin speaks the logits-processor interface of vLLM's V1 model
runner. Requests without dail's arguments pass through untouched.
"""

PROCESSOR = "dail_runtime.rewrite.vllm_plugin.processor:PolicyProcessor"
SCHEDULER = "dail_runtime.rewrite.vllm_plugin.scheduler.PairScheduler"
WORKER = "dail_runtime.rewrite.vllm_plugin.worker.PolicyWorker"
