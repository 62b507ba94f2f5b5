"""Ranks watch over each other: a stop reaches all, an error ends all with its own code, and a rank that falls silent is noticed."""

from __future__ import annotations

import os
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import pytest
import torch
from torch.distributed import TCPStore

from dail_runtime.errors import DailError, Interrupted, ModelError, SetupError, TransientError, of_code
from dail_runtime.stages.base import end_process
from dail_runtime.train import peers as module
from dail_runtime.train.peers import Peers
from dail_runtime.train.ranks import Place, place
from dail_runtime.train.world import _reason, joined, name_of_this_start
from tests.lab.components import wait_until
from tests.support.ranks import LIMIT, run_ranks, start_ranks, wait_all

CPU = torch.device("cpu")
LONG = timedelta(minutes=5)
"""In which whatever is waited for has happened on any machine."""


class Both:
    """Two ranks in one process, on a real store."""

    def __init__(self) -> None:
        self.server = TCPStore("127.0.0.1", 0, is_master=True, timeout=LONG)
        self.stops = [threading.Event(), threading.Event()]
        self.ended: list[tuple[int, DailError]] = []
        self.stores = [TCPStore("127.0.0.1", self.server.port, is_master=False, timeout=LONG) for _ in range(3)]
        self.ranks = [self.join(rank, self.stores[rank]) for rank in range(2)]

    def join(self, rank: int, store: TCPStore) -> Peers:
        return Peers(store, Place(rank, 2, rank, 2), self.stops[rank], lambda error: self.ended.append((rank, error)))


@pytest.fixture
def both(monkeypatch: pytest.MonkeyPatch) -> Both:
    monkeypatch.setattr(module, "EVERY", 0.05)
    monkeypatch.setattr(module, "LEAVING", 0.5)
    return Both()


def soon(what: threading.Event) -> bool:
    return what.wait(LONG.total_seconds())


def test_a_stop_on_one_rank_reaches_the_other(both: Both) -> None:
    both.stops[1].set()
    assert soon(both.stops[0])
    assert both.ended == []


def test_an_error_is_told_with_its_code_and_whose_it_is(both: Both) -> None:
    both.ranks[1].tell(ModelError("no such layer"))
    both.ranks[1].tell(SetupError("later"))
    found = both.ranks[0].reason(LONG.total_seconds())
    assert isinstance(found, ModelError)
    assert str(found) == "rank 1 of 2 ended: no such layer"
    # A main thread that does not come out of what it is doing is ended.
    assert wait_until(lambda: any(rank == 0 for rank, _ in both.ended), LONG.total_seconds())
    assert [error.exit_code for rank, error in both.ended if rank == 0] == [6]


def test_a_rank_that_was_started_again_alone_ends_the_others_which_then_meet_anew(both: Both) -> None:
    with pytest.raises(TransientError, match="rank 1 was started again while the other ranks still waited"):
        both.join(1, both.stores[2])
    assert isinstance(both.ranks[0].reason(LONG.total_seconds()), TransientError)


def test_ranks_of_one_start_agree_on_a_name_whatever_an_earlier_one_left_in_the_store() -> None:
    server = TCPStore("127.0.0.1", 0, is_master=True, timeout=LONG)
    names: list[set[str]] = []
    # The others come long before rank 0, and find all that the start before left.
    for order in ([0, 1, 2], [2, 1, 0], [1, 2, 0]):
        with ThreadPoolExecutor(3) as pool:
            waiting = []
            for rank in order:
                store = TCPStore("127.0.0.1", server.port, is_master=False, timeout=LONG)
                waiting.append(pool.submit(name_of_this_start, store, Place(rank, 3, rank, 3), LONG))
                time.sleep(0.3)
            names.append({one.result() for one in waiting})
    assert [len(one) for one in names] == [1, 1, 1]
    assert len(set.union(*names)) == 3
    with pytest.raises(RuntimeError, match="rank 1 did not come within 0 s"):
        name_of_this_start(server, Place(0, 3, 0, 3), timedelta(seconds=0.2))


def test_rank_0_leaves_last(both: Both) -> None:
    left = threading.Event()
    follower = threading.Thread(target=lambda: (both.ranks[1].leave(), left.set()))
    follower.start()
    assert not left.wait(0.5)
    both.ranks[0].leave()
    assert soon(left)
    follower.join()
    assert both.ended == []


def test_every_error_comes_back_from_its_code() -> None:
    assert isinstance(of_code(7, "x"), SetupError)
    assert of_code(1, "x").exit_code == 1
    assert isinstance(of_code(137, "x"), TransientError)


def test_a_rank_that_stands_still_ends_the_others_though_its_connection_is_open(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "EVERY", 0.1)
    monkeypatch.setattr(module, "SILENCE", 15.0)
    monkeypatch.setattr(module, "LEAVING", 1.0)

    def body(rank: int) -> None:
        with joined(place(), CPU, threading.Event(), end_process) as world:
            world.sum([torch.ones(1)])
            if rank == 1:
                os.kill(os.getpid(), signal.SIGSTOP)
            world.sum([torch.ones(1)])

    ranks = start_ranks(3, body)
    wait_until(lambda: [one.poll() for one in ranks] and None not in (ranks[0].code, ranks[2].code), LIMIT / 2)
    ranks[1].kill(signal.SIGKILL)
    assert wait_all(ranks) == [75, -signal.SIGKILL, 75]


def test_an_error_on_one_rank_is_that_of_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "EVERY", 0.1)
    # However long a busy machine lets them wait: they are to come out by themselves, with the news.
    monkeypatch.setattr(module, "LEAVING", 600.0)

    def body(rank: int) -> tuple[int, str]:
        try:
            with joined(place(), CPU, threading.Event(), end_process) as world:
                if rank == 2:
                    raise SetupError("memory ran out; lower it")
                world.sum([torch.ones(1)])
        except DailError as err:
            return err.exit_code, str(err)
        return 0, ""

    found = run_ranks(3, body)
    assert found[2] == (7, "memory ran out; lower it")
    assert found[0] == found[1] == (7, "rank 2 of 3 ended: memory ran out; lower it")


def test_ranks_meet_however_late_one_of_them_comes(tmp_path: Path) -> None:
    waits, comes = tmp_path / "waits", tmp_path / "comes"

    def body(rank: int) -> bool:
        with joined(place(), CPU, threading.Event(), lambda _: None) as world:
            world.meet()
            if rank == 0:
                while not waits.exists():
                    time.sleep(0.01)
                time.sleep(0.5)  # one that did not wait would be gone by now
                comes.touch()
            else:
                waits.touch()
            world.meet()
            return comes.exists()

    assert run_ranks(2, body) == [True, True]


def test_a_rank_that_waits_for_the_others_stops_when_it_is_asked_to() -> None:
    def body(_: int) -> str:
        stop = threading.Event()
        signal.signal(signal.SIGALRM, lambda *_: stop.set())
        signal.setitimer(signal.ITIMER_REAL, 0.5)
        # Nobody else comes.
        with pytest.raises(Interrupted) as caught, joined(Place(0, 2, 0, 2), CPU, stop, end_process):
            pass
        return str(caught.value)

    assert run_ranks(1, body) == ["rank 0 of 2 was asked to stop while it waited for the others; nothing had begun"]


def test_a_check_that_fails_on_one_rank_ends_all_before_anything_is_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "EVERY", 0.1)
    monkeypatch.setattr(module, "LEAVING", 1.0)

    def body(rank: int) -> None:
        def check() -> None:
            if rank == 1:
                raise SetupError("cuda:1 cannot compute")

        try:
            with joined(place(), CPU, threading.Event(), end_process, check):
                pytest.fail("a rank is missing")
        except DailError as err:
            end_process(err)

    assert wait_all(start_ranks(2, body)) == [7, 7]


def test_a_librarys_message_is_told_in_its_first_sentence() -> None:
    error = RuntimeError("[/src/gloo/transport/tcp/pair.cc:537] Read error [127.0.0.1]:5: Connection reset by peer. This is typically ...")
    assert _reason(error) == "Read error [127.0.0.1]:5: Connection reset by peer"
    assert _reason(RuntimeError()) == "RuntimeError"
