"""The processes that train together, as the loop sees them: a few exact sums and agreements; alone, all of them cost nothing."""

from __future__ import annotations

import os
import re
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch._C._distributed_c10d import PrefixStore, Store
from torch.distributed.rendezvous import rendezvous

from dail_runtime.errors import DailError, Interrupted, TransientError
from dail_runtime.train.peers import Peers
from dail_runtime.train.ranks import Place

T = TypeVar("T")

MEETING = timedelta(minutes=15)
"""How long ranks wait for each other at the start: machines of a cluster pull their images at different speeds. Whoever starts them
(the launcher, Kubeflow's operator) ends the others at once where one cannot start; this is for one whose machine never comes."""
BUCKET_BYTES = 1 << 26
"""Gradients travel together in pieces of this size."""


class World:
    """All ranks of one training. Every method must be called by all of them in the same order."""

    def __init__(self, place: Place, device: torch.device, store: Store | None = None) -> None:
        """`store`: where the ranks met; None where there is one only."""
        self.place, self.device, self._store = place, device, store
        self._meetings = 0

    @property
    def lead(self) -> bool:
        """Whether this is rank 0, the one that writes."""
        return self.place.lead

    @property
    def size(self) -> int:
        """Number of ranks."""
        return self.place.size

    def sum(self, tensors: Iterable[Tensor]) -> None:
        """Replace each tensor by its sum over all ranks, which is the same bit for bit on each of them."""
        if self.size == 1:
            return
        for bucket in _buckets(list(tensors)):
            flat = torch.cat([one.flatten() for one in bucket])
            dist.all_reduce(flat)
            for one, total in zip(bucket, torch.split(flat, [one.numel() for one in bucket]), strict=True):
                one.copy_(total.view_as(one))

    def share(self, tensors: Iterable[Tensor]) -> None:
        """Give each tensor rank 0's values."""
        if self.size > 1:
            for one in tensors:
                dist.broadcast(one.detach(), 0)

    def any(self, flag: bool) -> bool:
        """Whether `flag` holds on some rank."""
        return self.most(int(flag)) > 0

    def most(self, number: int) -> int:
        """The largest `number` of all ranks."""
        if self.size == 1:
            return number
        found = torch.tensor(number, device=self.device)
        dist.all_reduce(found, op=dist.ReduceOp.MAX)
        return int(found)

    def same(self, value: T) -> T:
        """Rank 0's value: a number, a string or None."""
        if self.size == 1:
            return value
        box: list[Any] = [value]
        dist.broadcast_object_list(box, 0, device=self.device)
        chosen: T = box[0]
        return chosen

    def exchange(self, sends: Sequence[tuple[int, Tensor]], receives: Sequence[tuple[int, Tensor]]) -> None:
        """Send tensors to ranks and fill others from ranks; between any two ranks both sides list them in the same order."""
        # Kept until the last one has arrived: a tensor that is copied to the device here must outlive its transfer.
        there = [(peer, one.to(self.device).contiguous()) for peer, one in sends]
        work = [dist.P2POp(dist.isend, one, peer) for peer, one in there]
        work += [dist.P2POp(dist.irecv, one, peer) for peer, one in receives]
        for pending in dist.batch_isend_irecv(work) if work else []:
            pending.wait()

    def meet(self) -> None:
        """Return once all ranks have come here, however long that takes.

        Before what all compute together, where some may come late: a collective gives up after ten minutes (NCCL's default), and to
        download a model, or to read a large one on rank 0 alone, may take longer. The loss of a rank ends this one.
        """
        if self._store is None:
            return
        self._meetings += 1
        key = f"dail/met/{self._meetings}"
        self._store.add(key, 1)
        while self._store.add(key, 0) < self.size:
            time.sleep(0.2)

    def lead_first(self, make: Callable[[], T]) -> T:
        """`make()` on the first rank of each machine, then on the others there, which find what it left (a download, say)."""
        key = f"dail/prepared/{self.place.node}"
        if self._store is None:
            return make()
        if self.place.local_rank == 0:
            made = make()
            self._store.set(key, "1")
            return made
        # Without a time limit of its own: a download takes what it takes, and the loss of its rank ends this one.
        while not self._store.check([key]):
            time.sleep(0.2)
        return make()


@contextmanager
def joined(
    place: Place,
    device: torch.device,
    stop: threading.Event,
    abandon: Callable[[DailError], None],
    check: Callable[[], None] = lambda: None,
) -> Iterator[World]:
    """The world of this process, met and watched over (see `Peers`) while the body runs.

    `check` runs as soon as the others would learn of its failure, and before anything is computed. Where another rank ends with an
    error, so does this one, with that rank's exit code and sentence, whatever its own main thread was doing. The body of rank 0 ends
    only after everything is written; the other ranks wait here until it has.

    Raises:
        TransientError: the ranks did not find each other, or one was lost.
    """
    if place.size == 1:
        check()
        yield World(place, device)
        return
    store = _meet(place, stop)
    peers = Peers(_connection(store), place, stop, abandon)
    try:
        check()
        backend, bound = ("nccl", device) if device.type == "cuda" else ("gloo", None)
        dist.init_process_group(backend, store=store, rank=place.rank, world_size=place.size, device_id=bound)
        yield World(place, device, store)
        peers.leave()
        dist.destroy_process_group()
    except Interrupted:
        # All ranks agreed on it.
        peers.leave()
        raise
    except Exception as err:
        raise _verdict(err, peers, place) from err
    finally:
        # The group is not taken down after a failure: that would wait for what can no longer happen, and the process ends anyway.
        peers.close()


def _verdict(err: Exception, peers: Peers, place: Place) -> Exception:
    """What this rank ends with: its own error, which the others are told, or that of the rank whose loss made it fail."""
    collective = isinstance(err, dist.DistError) or (isinstance(err, RuntimeError) and any(one in str(err) for one in ("gloo", "NCCL")))
    if not collective:
        peers.tell(err if isinstance(err, DailError) else DailError(f"{type(err).__name__}: {err}"))
        return err
    # A collective fails on every rank when one is gone: the news says which and why.
    reason = peers.reason()
    if reason is not None:
        return reason
    lost = TransientError(f"rank {place.rank} of {place.size} lost the connection to another rank ({_reason(err)})")
    peers.tell(lost)
    return lost


def _meet(place: Place, stop: threading.Event) -> Store:
    """Wait for all ranks at the store, in a thread: a call that waits there hears no signal."""
    found: list[Store] = []
    failed: list[Exception] = []

    def wait() -> None:
        try:
            store = next(iter(rendezvous("env://", place.rank, place.size, timeout=MEETING)))[0]
            # The store of torchrun's agent outlives restarts: what an earlier start left there must not be taken for news.
            outlives = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
            found.append(PrefixStore(name_of_this_start(store, place), store) if outlives else store)
        except (dist.DistError, RuntimeError, ValueError) as err:
            failed.append(err)

    thread = threading.Thread(target=wait, name="meeting", daemon=True)
    thread.start()
    while thread.is_alive():
        if stop.is_set():
            raise Interrupted(f"rank {place.rank} of {place.size} was asked to stop while it waited for the others; nothing had begun")
        thread.join(0.2)
    if failed:
        why = f"did not find the others ({_reason(failed[0])}); see whether all of them run and reach MASTER_ADDR"
        raise TransientError(f"rank {place.rank} of {place.size} {why}") from failed[0]
    return found[0]


def name_of_this_start(store: Store, place: Place, limit: timedelta = MEETING) -> str:
    """A name that all ranks agree on, and that nothing in the store had before they were started.

    Rank 0 makes it up and tells it to whoever asks. Each asks by a word of its own, so that no answer to an earlier question is taken for
    one to this; and rank 0 answers until each has said, by the new name, that it knows it.

    Raises:
        RuntimeError: not all ranks came.
    """
    own, until = uuid.uuid4().hex, time.monotonic() + limit.total_seconds()
    missing = set(range(1, place.size)) if place.lead else {0}
    if not place.lead:
        store.set(f"dail/asks/{place.rank}", own)
    name = own
    while missing:
        if time.monotonic() > until:
            raise RuntimeError(f"rank {min(missing)} did not come within {limit.total_seconds():.0f} s")
        if place.lead:
            for rank in missing:
                if store.check([f"dail/asks/{rank}"]):
                    store.set(f"dail/told/{store.get(f'dail/asks/{rank}').decode()}", name)
            missing = {rank for rank in missing if not store.check([f"dail/knows/{name}/{rank}"])}
        elif store.check([f"dail/told/{own}"]):
            name, missing = store.get(f"dail/told/{own}").decode(), set()
            store.set(f"dail/knows/{name}/{place.rank}", "1")
        time.sleep(0.05)
    return name


def _reason(err: Exception) -> str:
    """The first sentence of a library's message, without the line of its source that it begins with."""
    first = (str(err).splitlines() or [type(err).__name__])[0]
    return re.sub(r"^\[[^\]]*\.cc:\d+\]\s*", "", first).split(". ")[0]


def _connection(store: Store) -> Store:
    """A second connection to the same store: one that waits in the main thread must not keep the watching thread waiting."""
    second: Store = store.clone()  # type: ignore[attr-defined]
    second.set_timeout(timedelta(seconds=30))
    return second


def _buckets(tensors: list[Tensor]) -> Iterator[list[Tensor]]:
    """Neighbours of one type, together as large as is sensible to send at once."""
    bucket: list[Tensor] = []
    size = 0
    for one in tensors:
        if bucket and (size >= BUCKET_BYTES or one.dtype != bucket[0].dtype):
            yield bucket
            bucket, size = [], 0
        bucket.append(one)
        size += one.numel() * one.element_size()
    if bucket:
        yield bucket
