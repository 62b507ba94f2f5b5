"""The `rewrite` section: how the model turns terse solutions into detailed traces."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator

from dail_runtime.spec.base import Section
from dail_runtime.spec.servers import Server


class DirectPolicy(Section):
    """Sample from the teacher M_T: the privileged context alone."""

    kind: Literal["direct"] = "direct"
    """`direct`."""


class MixedPolicy(Section):
    """Draw from the student; keep the token if M_T gives it at least tau, else draw from M_T (DAIL, section on mixed
    rollouts)."""

    kind: Literal["mixed"]
    """`mixed`."""
    tau: float = Field(default=0.8, ge=0, le=1.5)
    """Least teacher probability of a kept student token. 0 is the plain student; above 1 is the plain teacher."""
    tries: int = Field(default=1, ge=1, le=5)
    """Student proposals per token before the teacher draws."""


Policy = Annotated[DirectPolicy | MixedPolicy, Field(discriminator="kind")]


class TransformersEngine(Section):
    """The engine inside this process: transformers with a KV cache and continuous refill of finished rows."""

    kind: Literal["transformers"] = "transformers"
    """`transformers`."""
    batch_size: int | None = Field(default=None, ge=1, le=4096)
    """Responses decoded at once. Null: chosen from the model's size and the memory that is free. Part of the seed
    contract: another batch size may give other, equally valid traces."""


class VllmEngine(Section):
    """vLLM inside this process."""

    kind: Literal["vllm"]
    """`vllm`."""
    gpu_memory_utilization: float = Field(default=0.9, gt=0, le=1)
    """Share of GPU memory vLLM may take."""
    tensor_parallel_size: int = Field(default=1, ge=1, le=64)
    """GPUs one model is split over."""
    max_num_seqs: int = Field(default=256, ge=2, le=4096)
    """Sequences decoded at once (a mixed response counts twice)."""


class VllmHttpEngine(Section):
    """vLLM servers reached over HTTP: a list of addresses, or the DNS name of a headless Service."""

    kind: Literal["vllm-http"]
    """`vllm-http`."""
    servers: tuple[str, ...] = Field(default=(), max_length=1024)
    """Base addresses (`http://host:8000`). A name that resolves to several addresses counts as several servers. On a
    cluster dail fills this in."""
    in_flight: int = Field(default=64, ge=1, le=4096)
    """Responses under way at once on one server."""
    without_plugin: Literal["refuse", "draft-and-verify"] = "refuse"
    """What mixed rewriting does on servers that lack dail's plugin. `draft-and-verify` goes through vLLM's public API: exact, but far
    slower; it may need servers that were started with --max-logprobs -1."""

    @field_validator("servers")
    @classmethod
    def _are_addresses(cls, servers: tuple[str, ...]) -> tuple[str, ...]:
        for one in servers:
            Server.parse(one)
        return servers


Engine = Annotated[TransformersEngine | VllmEngine | VllmHttpEngine, Field(discriminator="kind")]


class RewriteSpec(Section):
    """Sampling of the traces."""

    policy: Policy = DirectPolicy()
    """`direct` or `mixed`."""
    engine: Engine = TransformersEngine()
    """What runs the model."""
    samples: int = Field(default=32, ge=1, le=4096)
    """Traces per problem."""
    max_tokens: int = Field(default=2048, ge=1)
    """Most tokens of one trace; longer ones are cut and cannot be kept."""
    temperature: float = Field(default=0.6, ge=0, le=10)
    """Sampling temperature of both distributions; 0 is greedy."""
    top_p: float = Field(default=0.95, gt=0, le=1)
    """Nucleus of both distributions."""
    suppress: tuple[str, ...] = ()
    """Tokens (`</think>`) that may never be sampled; masked before the softmax."""
    reference: Literal["own", "other"] = "own"
    """`other` shows the solution of another problem: a control that must not help."""
    replicas: int = Field(default=1, ge=1, le=1024)
    """vLLM servers on a cluster."""
