"""Which refusals of the API server are believed."""

from __future__ import annotations

from dailctl.kube.refusals import REFUSALS, Refusals


class Server:
    """An API server's word about itself, and a clock that is set by hand."""

    def __init__(self) -> None:
        self.time, self.is_ready = 0.0, True

    def refusals(self) -> Refusals:
        return Refusals(lambda: self.is_ready, lambda: self.time)


def test_a_refusal_is_believed_when_it_lasts() -> None:
    server = Server()
    refusals = server.refusals()
    assert not refusals.stay()
    server.time += REFUSALS
    assert not refusals.stay()
    server.time += 1
    assert refusals.stay()
    refusals.over()
    assert not refusals.stay()


def test_what_a_server_refuses_before_it_is_ready_does_not_count() -> None:
    server = Server()
    refusals = server.refusals()
    server.is_ready = False
    for _ in range(30):
        assert not refusals.stay()
        server.time += REFUSALS
    server.is_ready = True
    # Ready now: what it refuses from here on counts, from the last refusal before.
    server.time -= REFUSALS - 1
    assert not refusals.stay()
    server.time += REFUSALS
    assert refusals.stay()
