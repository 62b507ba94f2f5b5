"""The scheduler: both halves of a pair draw each token in the same step, or neither does.

A half may draw only in a step in which its mate draws. Until then it reads its prompt up to the last token and holds. Pairs
whose halves have both read that far are `ready`: they come first in every step, and room for their next tokens is made
beforehand by preempting whole pairs, youngest first, so that vLLM itself never takes one half away. What goes wrong with a
pair ends both halves as `abort`, with a sentence as their stop reason. What vLLM offers for this, and is checked at the start:
rewrite/vllm_plugin/check.py.

What is done in every step is done for every row, and Python is slow: pairs that are ready stay so until something happens to them,
and a step in which nothing happens costs a look at each.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any

from vllm.v1.core.sched.interface import PauseState
from vllm.v1.core.sched.scheduler import Scheduler
from vllm.v1.engine import EngineCoreOutput, EngineCoreOutputs, FinishReason
from vllm.v1.request import RequestStatus

from dail_runtime.errors import SetupError
from dail_runtime.rewrite.vllm_plugin.check import check_settings, check_version
from dail_runtime.rewrite.vllm_plugin.pairs import ORDER, Pair, Pairs
from dail_runtime.rewrite.vllm_plugin.requests import BROKEN, RESULTS, TOLD, Row

if TYPE_CHECKING:
    from vllm.v1.core.sched.output import SchedulerOutput
    from vllm.v1.outputs import ModelRunnerOutput
    from vllm.v1.request import Request

_IDLE = 0.001
"""Seconds between looks for a mate while there is nothing else to do."""


class PairScheduler(Scheduler):  # type: ignore[misc]
    """vLLM's scheduler, with pairs."""

    running: list[Request]
    max_num_active_reqs: int

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        check_version()
        super().__init__(*args, **kwargs)
        check_settings(self.vllm_config)
        if self.has_mamba_layers:
            raise SetupError("dail's vLLM plugin does not know models with state-space layers; choose one with attention only")
        self._block_sizes = [group.kv_cache_spec.block_size for group in self.kv_cache_config.kv_cache_groups]
        self._pairs = Pairs()
        self._parked: dict[str, Request] = {}
        """Halves without a mate: vLLM knows them, but they are in none of its queues."""
        self._ready: dict[str, str] = {}
        """Halves that draw -> their mates. They stand at the head of `running`."""
        self._told: dict[str, list[float]] = {}
        """Request id -> what the processor told about each of its tokens. It has every request of dail's."""
        self._torn: set[Pair] = set()
        """Pairs of which vLLM preempted a half."""
        self._failed: dict[str, str] = {}
        """Request id -> why it ends."""
        self.drawn = 0
        """Tokens drawn since the start, halves counted singly."""
        self.preempted_pairs = 0
        """Pairs that had to give their room to others since the start."""

    # What comes and goes

    def add_request(self, request: Request) -> None:
        """Queue a request; a half waits outside the queues until its mate is here, so that they queue side by side."""
        params = request.sampling_params
        row = None if params is None else Row.of(params.extra_args)
        if row is not None:
            self._told[request.request_id] = []
        if row is None or row.role == "single":
            super().add_request(request)
            return
        self._parked[request.request_id] = self.requests[request.request_id] = request
        pair = self._pairs.add(request, row, time.monotonic())
        if pair is None:
            self._failed[request.request_id] = f"the pair {row.pair} has a {row.role} already"
        elif pair.whole:
            self._pair_up(pair)

    def _pair_up(self, pair: Pair) -> None:
        members = pair.members()
        # The halves have one response: the longer prompt decides where it must end.
        limit = min(self.max_model_len - max(half.num_prompt_tokens for half in members), *(half.max_tokens for half in members))
        # One block is never used: vLLM keeps it as a blank. Nor are those that it keeps free when it admits the second half.
        total = self.kv_cache_config.num_blocks - 1 - self.kv_cache_manager.watermark_blocks
        needed = sum(-(-(half.num_prompt_tokens + limit) // size) for half in members for size in self._block_sizes)
        reason = None
        if needed > total:
            reason = f"both contexts need {needed} blocks of KV cache and there are {total}; give vLLM more memory or shorten the response"
        elif min(half.num_prompt_tokens for half in members) < 2:
            reason = "a context of one token cannot wait for the other; make it longer"
        for half in members:
            if reason is not None:
                self._failed[half.request_id] = reason
                continue
            half.max_tokens = limit
            del self._parked[half.request_id], self.requests[half.request_id]
            super().add_request(half)

    def get_num_unfinished_requests(self) -> int:
        """Includes halves that wait for a mate, or the engine would fall asleep over them."""
        parked = 0 if self._pause_state == PauseState.PAUSED_ALL else len(self._parked)
        return int(super().get_num_unfinished_requests()) + parked

    def _free_request(self, request: Request, delay_free_blocks: bool = False) -> tuple[Any, Any]:
        self._parked.pop(request.request_id, None)
        self._failed.pop(request.request_id, None)
        self._hold(request.request_id)
        mate = self._pairs.remove(request.request_id)
        if mate is not None and not mate.is_finished():
            aborted = request.status == RequestStatus.FINISHED_ABORTED
            # Where both end in this step the mate is freed before anyone reads this.
            self._failed.setdefault(mate.request_id, "its mate was aborted" if aborted else "its mate ended before it")
        told = self._told.pop(request.request_id, None)
        passed_on: tuple[Any, Any] = super()._free_request(request, delay_free_blocks)
        return passed_on if told is None else ({RESULTS: told}, passed_on[1])

    # One step

    def schedule(self, throttle_prefills: bool = False) -> SchedulerOutput:
        """Choose what the next step computes."""
        self._expire()
        if self._pairs:
            evicted = self._gather_torn()
            squeezed = self._make_room()
            self._mates_first()
            most = self.max_num_active_reqs
            if evicted or squeezed:
                # As in vLLM itself: a step that had to preempt admits nobody, or the evicted would be back at once.
                self.max_num_active_reqs = 0
            chosen = super().schedule(throttle_prefills)
            self.max_num_active_reqs = most
        else:
            chosen = super().schedule(throttle_prefills)
        if not chosen.total_num_scheduled_tokens and not self._untie() and self._parked and not self._failed:
            time.sleep(_IDLE)
        return chosen

    def _expire(self) -> None:
        now = time.monotonic()
        for request_id in self._parked:
            pair = self._pairs.of(request_id)
            if pair is not None and now - pair.since > pair.wait:
                self._failed.setdefault(request_id, f"its mate did not come within {pair.wait:g} s")

    def _make_room(self) -> bool:
        """See to a free block for each next token of the ready pairs; says whether any request had to go for that."""
        squeezed = False
        while True:
            self._find_ready()
            free = self.kv_cache_manager.block_pool.get_num_free_blocks()
            if len(self._ready) * len(self._block_sizes) <= free:
                return squeezed
            halves = self.running[: len(self._ready)]
            if sum(half.num_computed_tokens % size == 0 for half in halves for size in self._block_sizes) <= free:
                return squeezed
            self._evict(self.running[-1])
            squeezed = True

    def _find_ready(self) -> None:
        """Let the pairs draw whose halves have both read up to the last token by now."""
        arrived: dict[Pair, int] = {}
        for request in self.running[len(self._ready) :]:
            pair = self._pairs.of(request.request_id)
            if pair is not None and request.num_tokens - request.num_computed_tokens <= 1:
                arrived[pair] = arrived.get(pair, 0) + 1
        found = [pair.members() for pair, count in arrived.items() if count == len(ORDER)]
        for one, other in found:
            self._ready[one.request_id], self._ready[other.request_id] = other.request_id, one.request_id
        if found:
            self.running.sort(key=lambda request: request.request_id not in self._ready)

    def _hold(self, request_id: str) -> None:
        """Let the pair of a request draw no more, for now or for ever."""
        mate = self._ready.pop(request_id, None)
        if mate is not None:
            del self._ready[mate]

    def _evict(self, request: Request) -> None:
        """Preempt a running request, together with its mate where that runs too."""
        pair = self._pairs.of(request.request_id)
        halves = [request] if pair is None else pair.members()[::-1]  # the student ends up first in the queue
        now = time.monotonic()
        for half in halves:
            if half.status == RequestStatus.RUNNING:
                self.running.remove(half)
                self._preempt_request(half, now)
        if pair is not None:
            self._torn.discard(pair)
            self.preempted_pairs += 1

    def _preempt_request(self, request: Request, timestamp: float, drop_stale_output: bool = False) -> None:
        super()._preempt_request(request, timestamp, drop_stale_output)
        self._hold(request.request_id)
        pair = self._pairs.of(request.request_id)
        if pair is not None:
            self._torn.add(pair)

    def _gather_torn(self) -> bool:
        """Preempt the halves whose mates vLLM preempted in the last step; says whether there were any."""
        running = [half for pair in self._torn for half in pair.members() if half.status == RequestStatus.RUNNING]
        for half in running:
            self._evict(half)
        self._torn.clear()
        return bool(running)

    def _mates_first(self) -> None:
        """Put the missing halves of running ones at the head of the queue, oldest first: running ones wait for them."""
        missing = []
        for request in self.running[len(self._ready) :]:
            pair = self._pairs.of(request.request_id)
            mate = None if pair is None else pair.mate(request)
            if mate is not None and mate.status != RequestStatus.RUNNING:
                missing.append(mate)
        if missing and list(islice(self.waiting, len(missing))) != missing:
            self.waiting.remove_requests(missing)
            self.waiting.prepend_requests(reversed(missing))

    def _untie(self) -> bool:
        """Where nothing could be scheduled because held halves fill the engine, send the youngest back; says whether one was."""
        held = [request for request in self.running if self._pairs.of(request.request_id) is not None]
        if len(held) < 2 or self._ready or self._pause_state != PauseState.UNPAUSED:
            return False
        self._evict(held[-1])
        return True

    # Hooks that vLLM calls for each request while it schedules

    def _reserve_prefill_lookahead(self, request: Request, num_computed_tokens: int, num_new_tokens: int) -> int:
        allowed: int = super()._reserve_prefill_lookahead(request, num_computed_tokens, num_new_tokens)
        if request.request_id in self._failed:
            return 0  # it ends with this step: a widow must not draw alone
        if request.request_id in self._ready or self._pairs.of(request.request_id) is None:
            return allowed
        # Computing the last token would draw the next one: stop one short of it.
        before_last: int = request.num_tokens - num_computed_tokens - 1
        return max(0, min(allowed, before_last))

    def _get_local_prefix_cache_hit(self, request: Request) -> Any:
        blocks, found, boundary, diverged = super()._get_local_prefix_cache_hit(request)
        if found and found >= request.num_tokens - 1 and self._pairs.of(request.request_id) is not None:
            # Nothing but the last token would be left to compute, and that one has to wait: admitting needs some work to do.
            # Looked up anew, not cut: of a sliding window only the blocks are found that the length asked for needs.
            manager = self.kv_cache_manager
            shorter, found, _ = manager.coordinator.find_longest_cache_hit(request.block_hashes, found - 1)
            blocks = manager.create_kv_cache_blocks(shorter)
        return blocks, found, boundary, diverged

    # What a step gave

    def update_from_output(self, scheduler_output: SchedulerOutput, model_runner_output: ModelRunnerOutput) -> dict[int, EngineCoreOutputs]:
        """Take over the drawn tokens and what the processor tells about them, verify the lockstep, and end what failed."""
        drawn = dict(zip(model_runner_output.req_ids, model_runner_output.sampled_token_ids, strict=False))
        self.drawn += sum(map(len, drawn.values()))
        if (values := getattr(model_runner_output, TOLD, None)) is not None:
            self._note(drawn, values)
        self._verify(drawn)
        outputs: dict[int, EngineCoreOutputs] = super().update_from_output(scheduler_output, model_runner_output)
        while self._failed:
            # Ending one half names the other, which the next round ends.
            reasons, self._failed = self._failed, {}
            for request in self.finish_requests(reasons, RequestStatus.FINISHED_ABORTED):
                ended = EngineCoreOutput(
                    request_id=request.request_id,
                    new_token_ids=[],
                    finish_reason=FinishReason.ABORT,
                    stop_reason=reasons[request.request_id],
                    events=request.take_events(),
                    trace_headers=request.trace_headers,
                )
                outputs.setdefault(request.client_index, EngineCoreOutputs(outputs=[])).outputs.append(ended)
        return outputs

    def _verify(self, drawn: Mapping[str, list[int]]) -> None:
        for one, other in self._ready.items():
            # Nothing on both sides is fine as well: vLLM may have had no room for them in this step.
            if drawn.get(one) != drawn.get(other) and (pair := self._pairs.of(one)) is not None:
                place = self.requests[one].num_output_tokens
                self._failed.setdefault(one, f"the halves of {pair.name} drew different tokens at {place}")

    def _note(self, drawn: Mapping[str, list[int]], values: Sequence[float]) -> None:
        for (request_id, ids), value in zip(drawn.items(), values, strict=True):
            # Rows that read a part of their prompt have a value too, but no token.
            if not ids or (told := self._told.get(request_id)) is None:
                continue
            if value == value:
                told.append(value)
            else:
                # Not a number, so nor is the token: as if none had been drawn.
                ids.clear()
                self._failed.setdefault(request_id, BROKEN)
