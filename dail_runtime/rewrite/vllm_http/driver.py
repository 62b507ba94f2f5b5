"""Draws responses on the replicas: both halves of a pair on one, again elsewhere where that one fails, each exactly once in the end."""

from __future__ import annotations

import asyncio
import hashlib
import random
import time
import uuid
from collections.abc import Callable, Coroutine, Sequence
from typing import Any
from weakref import WeakKeyDictionary

from dail_runtime.errors import DailError, TransientError
from dail_runtime.records import Finish, Sample
from dail_runtime.rewrite.engine import Sampling
from dail_runtime.rewrite.responses import Job, Response, check_hope, contexts_of, retried, rows_of, sample_of
from dail_runtime.rewrite.vllm_http.client import Client
from dail_runtime.rewrite.vllm_http.draft import Drafting, draft_and_verify
from dail_runtime.rewrite.vllm_http.faults import Busy, FellApart, Lost
from dail_runtime.rewrite.vllm_http.replicas import WAIT_SECONDS, Replica, Replicas
from dail_runtime.rewrite.vllm_http.wire import COMPLETIONS, Completion, GarbledReply, drawn_by_plugin, drawn_by_vllm, read_completion
from dail_runtime.spec.rewrite import MixedPolicy

LOST_MOST = 20
"""How often one response may lose its server; a response that ends every server it meets must not end all of them for ever."""
PAUSE_SECONDS, PAUSE_MOST = 0.5, 30.0
"""The pause before a response is drawn again doubles from the one to the other; its length is drawn at random below that."""
DRAIN_SECONDS = 10.0
"""A server that is shutting down is left alone for so long; by then its name no longer resolves to it, or it is gone."""
REPLY_SECONDS, TOKEN_SECONDS = 600.0, 2.0
"""A reply may take this long, and this long more for each token of the response: beyond it, it is taken for lost."""


class Driver:
    """Draws one response at a time; many of its calls run at once, in one event loop."""

    def __init__(
        self, client: Client, replicas: Replicas, model: str, vocabulary: int, decode: Callable[[Sequence[int]], str], sampling: Sampling
    ) -> None:
        """
        Args:
            model: Name under which the replicas serve the model.
            vocabulary: Rows of its embedding; larger ids are unknown to a server.
        """
        self._client, self._replicas, self._model = client, replicas, model
        self._decode, self._sampling = decode, sampling
        self._stop = sorted(id_ for id_ in sampling.eos if id_ < vocabulary)
        self._home: WeakKeyDictionary[Job, Replica] = WeakKeyDictionary()
        self._vocabulary = vocabulary
        self._drawing: set[asyncio.Task[Any]] = set()
        # Names of pairs must differ from those of a driver that was killed, whose requests a server may still hold.
        self._name, self._pairs = uuid.uuid4().hex[:12], 0

    async def draw(self, response: Response) -> Sample:
        """The sample.

        Raises:
            DailError: it cannot be drawn, or not by any server that is there.
        """
        task = asyncio.current_task()
        assert task is not None
        self._drawing.add(task)
        try:
            return await self._draw(response)
        finally:
            self._drawing.discard(task)

    async def settle(self) -> None:
        """Wait until those of `draw` that were cancelled have closed their connections, by which the servers learn of it."""
        await asyncio.gather(*self._drawing, return_exceptions=True)

    async def _draw(self, response: Response) -> Sample:
        lost, turned_away, begin = 0, 0, time.monotonic()
        while True:
            replica = await self._replicas.acquire(self._home.get(response.job))
            self._home[response.job], begun = replica, time.monotonic()
            try:
                sample = await _unless_lost(replica, self._on(replica, response))
                self._replicas.trust(replica)
                return sample
            except Busy as err:
                # No fault of the response, nor of the server: only time ends it.
                self._replicas.quiet(replica, _pause(turned_away) if err.seconds is None else err.seconds)
                why, turned_away = str(err), turned_away + 1
                if time.monotonic() - begin > WAIT_SECONDS:
                    raise TransientError(f"{response.key}: servers turned a response away {turned_away} times: {why}") from None
            except Lost as err:
                self._replicas.doubt(replica, begun, str(err))
                self._home.pop(response.job, None)
                why, lost, begin = str(err), lost + 1, time.monotonic()
            except FellApart as err:
                retried(response, str(err))
                response, why = response.again(), str(err)
            finally:
                await self._replicas.release(replica)
            if lost >= LOST_MOST:
                raise TransientError(f"{response.key}: a response lost its server {lost} times, the last time {replica.address}: {why}")
            await asyncio.sleep(_pause(lost))

    async def _on(self, replica: Replica, response: Response) -> Sample:
        if not replica.plugin:
            return await (self._plain if contexts_of(self._sampling) == 1 else self._drafted)(replica, response)
        self._pairs += 1
        rows = rows_of(response, self._sampling, f"{self._name}-{self._pairs}")
        contexts, limit = response.job.request.contexts, response.job.limit
        bodies = [drawn_by_plugin(self._model, ids, limit, self._stop, row) for ids, row in zip(contexts, rows, strict=True)]
        try:
            async with asyncio.TaskGroup() as group:
                halves = [group.create_task(self._ask(replica, response, body)) for body in bodies]
        except ExceptionGroup as errors:
            raise _worst(errors) from None
        own, *others = (half.result() for half in halves)
        teacher = others[0] if others else own
        if own.ids != teacher.ids:
            raise FellApart("its halves hold different tokens")
        return sample_of(response.index, own.ids, own.values, teacher.values if others else (), self._sampling, self._decode)

    async def _plain(self, replica: Replica, response: Response) -> Sample:
        """A `direct` response of a server without the plugin: vLLM's own sampler draws it, by a seed of its own."""
        request, sampling = response.job.request, self._sampling
        body = drawn_by_vllm(
            self._model,
            request.contexts[0],
            response.job.limit,
            self._stop,
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            seed=seed_of(request.seed, response.index),
            suppress=sampling.suppress,
        )
        done = await self._ask(replica, response, body)
        return Sample(
            index=response.index,
            ids=done.ids,
            text=self._decode(done.ids),
            finish="stop" if done.ids[-1] in sampling.eos else "length",
            logprob=None,
        )

    async def _drafted(self, replica: Replica, response: Response) -> Sample:
        """A `mixed` response of a server without the plugin."""
        request, sampling, policy = response.job.request, self._sampling, self._sampling.policy
        assert isinstance(policy, MixedPolicy)
        student, teacher = request.contexts
        what = Drafting(
            model=self._model,
            contexts=(student, teacher),
            limit=response.job.limit,
            stop=frozenset(self._stop),
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            tau=policy.tau,
            tries=policy.tries,
            suppress=sampling.suppress,
            vocabulary=self._vocabulary,
            seed=lambda number: seed_of(request.seed, response.index, number),
        )
        try:
            ids, accepted = await draft_and_verify(lambda body: self._post(replica, response, body), what)
        except GarbledReply as err:
            raise Lost(str(err)) from None
        finish: Finish = "stop" if ids[-1] in sampling.eos else "length"
        return Sample(index=response.index, ids=ids, text=self._decode(ids), finish=finish, logprob=None, accepted=accepted, distance=None)

    async def _post(self, replica: Replica, response: Response, body: dict[str, Any]) -> Any:
        seconds = REPLY_SECONDS + TOKEN_SECONDS * response.job.limit
        return await self._client.post(replica.address, COMPLETIONS, body, seconds=seconds)

    async def _ask(self, replica: Replica, response: Response, body: dict[str, Any]) -> Completion:
        try:
            done = read_completion(await self._post(replica, response, body), plugin=replica.plugin)
        except GarbledReply as err:
            raise Lost(str(err)) from None
        if done.finish in ("stop", "length"):
            if max(done.ids) >= self._vocabulary or len(done.ids) > response.job.limit:
                raise Lost("the reply holds tokens that were not asked for")
            return done
        if done.reason is None:
            raise Busy("the server is shutting down", DRAIN_SECONDS)
        reason = done.reason
        if "drew different tokens" in reason:
            raise FellApart(reason)
        check_hope(response, reason)
        if "mate did not come" in reason:
            reason += "; where a load balancer parts the halves, name its servers one by one, or by a headless Service"
        raise Lost(reason)


def seed_of(seed: int, index: int, number: int = 0) -> int:
    """A seed for vLLM's sampler (63 bits) that no other (problem, sample, request) has."""
    return int.from_bytes(hashlib.sha256(f"{seed} {index} {number}".encode()).digest()[:8], "big") >> 1


async def _unless_lost(replica: Replica, work: Coroutine[Any, Any, Sample]) -> Sample:
    """Do `work`, unless the replica is given up meanwhile: then raise Lost."""
    doing = asyncio.ensure_future(work)
    giving_up = asyncio.ensure_future(replica.lost.wait())
    try:
        await asyncio.wait({doing, giving_up}, return_when=asyncio.FIRST_COMPLETED)
        if doing.done():
            return doing.result()
        raise Lost(f"it stopped answering ({replica.why})")
    finally:
        giving_up.cancel()
        if not doing.done():
            doing.cancel()
            await asyncio.gather(doing, return_exceptions=True)


def _worst(errors: ExceptionGroup[Exception]) -> Exception:
    """Of what the two halves raised, what decides: a refusal before a lost server before a pair that fell apart."""
    found = [error for error in errors.exceptions if not isinstance(error, ExceptionGroup)]
    for kind in (DailError, Busy, Lost, FellApart):
        for error in found:
            if isinstance(error, kind):
                return error
    return found[0]


def _pause(failures: int) -> float:
    return random.uniform(0.0, min(PAUSE_MOST, PAUSE_SECONDS * 2.0 ** min(failures, 10)))
