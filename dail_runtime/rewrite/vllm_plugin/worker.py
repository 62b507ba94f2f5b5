"""The worker: sends along with a step's tokens what the logits processor tells about them.

vLLM's own way for a number a token, its log-probability, ranks the whole vocabulary for it. So the numbers travel beside vLLM's
own results, as one more attribute of them, to the scheduler.
"""

from __future__ import annotations

from typing import Any

from vllm.platforms import current_platform

from dail_runtime.errors import SetupError
from dail_runtime.rewrite.vllm_plugin.processor import PolicyProcessor
from dail_runtime.rewrite.vllm_plugin.requests import TOLD

if current_platform.is_cpu():
    from vllm.v1.worker.cpu_worker import CPUWorker as _Worker
else:
    from vllm.v1.worker.gpu_worker import Worker as _Worker


class PolicyWorker(_Worker):  # type: ignore[misc]
    """vLLM's worker for this machine's devices."""

    def init_device(self) -> None:
        """Set up the device and the model runner, and find dail's processor in it."""
        super().init_device()
        try:
            made = self.model_runner.input_batch.logitsprocs.all
            self._processor = next(one for one in made if isinstance(one, PolicyProcessor))
        except (AttributeError, StopIteration) as err:
            raise SetupError(f"vLLM keeps its logits processors elsewhere ({err!r}); install a release of it as it was published") from None

    def sample_tokens(self, grammar_output: Any) -> Any:
        """Draw the step's tokens."""
        output = super().sample_tokens(grammar_output)
        if (told := self._processor.take()) is not None:
            setattr(output, TOLD, told)
        return output
