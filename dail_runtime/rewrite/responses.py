"""Responses under way, for engines that draw each on its own: which are left, how the plugin is asked for one, and what it told."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from dail_runtime.errors import ModelError, SetupError, TransientError
from dail_runtime.records import Sample
from dail_runtime.rewrite.engine import Request, Sampling
from dail_runtime.rewrite.vllm_plugin.requests import BROKEN, Role, Row, read
from dail_runtime.spec.rewrite import MixedPolicy

ATTEMPTS = 3
"""How often a response is begun whose pair falls apart."""


@dataclass(eq=False)
class Job:
    """A request under way."""

    request: Request
    limit: int
    """Most tokens of its responses."""
    done: dict[int, Sample] = field(default_factory=dict)

    def add(self, sample: Sample) -> tuple[Sample, ...] | None:
        """Keep a finished sample; returns all of them, in the request's order, once none is missing."""
        self.done[sample.index] = sample
        if len(self.done) < len(self.request.samples):
            return None
        return tuple(self.done[index] for index in self.request.samples)


@dataclass(frozen=True)
class Response:
    """One sample to be drawn."""

    job: Job
    index: int
    """Of the sample; -1 stands for a request that asks for none."""
    attempt: int = 1

    @property
    def key(self) -> str:
        """The request's name, for messages."""
        return self.job.request.key

    def again(self) -> Response:
        """The same sample, begun once more."""
        return Response(self.job, self.index, self.attempt + 1)


def contexts_of(sampling: Sampling) -> int:
    """How many contexts the policy reads."""
    return 2 if isinstance(sampling.policy, MixedPolicy) else 1


def limit_of(request: Request, sampling: Sampling, length: int) -> int:
    """Most tokens of a response to `request`.

    Args:
        length: Most tokens of prompt plus response.

    Raises:
        ModelError: a prompt leaves no room for a response.
        ValueError: the request does not fit the policy.
    """
    contexts = contexts_of(sampling)
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
    return limit


def responses(requests: Iterable[Request], sampling: Sampling, length: int) -> Iterator[Response]:
    """One after the other, those of a problem in a row: they share its prompts in the cache. A problem without samples gives one too.

    Raises as `limit_of`.
    """
    for request in requests:
        job = Job(request, limit_of(request, sampling, length))
        for index in request.samples or (-1,):
            yield Response(job, index)


def rows_of(response: Response, sampling: Sampling, pair: str) -> tuple[Row, ...]:
    """What the plugin is to be told for each context of `response`; `pair` is a name that no other response uses."""
    mixed = sampling.policy if isinstance(sampling.policy, MixedPolicy) else None
    roles: tuple[Role, ...] = ("single",) if mixed is None else ("student", "teacher")
    return tuple(
        Row(
            role=role,
            pair="" if mixed is None else pair,
            seed=response.job.request.seed,
            sample=response.index,
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            tau=mixed.tau if mixed else 0.0,
            tries=mixed.tries if mixed else 1,
            suppress=sampling.suppress,
        )
        for role in roles
    )


def check_hope(response: Response, failure: str) -> None:
    """Raise where the plugin ended a response for a reason that trying again does not change.

    Raises:
        SetupError: its pair fits nowhere.
        ModelError: the model is broken.
    """
    if "KV cache" in failure or "one token" in failure:
        raise SetupError(f"{response.key}: {failure}")
    if failure == BROKEN:
        raise ModelError(f"{failure}; load it with model.dtype float32, or check its weights")


def retried(response: Response, failure: str) -> None:
    """Return where a response that failed may be begun again.

    Raises:
        SetupError, ModelError: see check_hope.
        TransientError: it failed too often.
    """
    check_hope(response, failure)
    if response.attempt >= ATTEMPTS:
        raise TransientError(f"{response.key}: a response failed {ATTEMPTS} times, the last time because {failure}; start the run again")


def sample_of(
    index: int,
    ids: Sequence[int],
    own: Sequence[float],
    teacher: Sequence[float],
    sampling: Sampling,
    decode: Callable[[Sequence[int]], str],
) -> Sample:
    """The finished sample.

    Args:
        own: The plugin's values of the student half (or single row), one a token.
        teacher: Those of the teacher half; empty for `direct`.
    """
    told = read(own, teacher)
    return Sample(
        index=index,
        ids=tuple(ids),
        text=decode(ids),
        finish="stop" if ids[-1] in sampling.eos else "length",
        logprob=told.logprob,
        accepted=told.accepted,
        distance=told.distance,
    )
