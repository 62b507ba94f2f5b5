"""A cable to the API server that can be cut: a forwarder on a loopback port, which passes everything on until it is severed."""

from __future__ import annotations

import contextlib
import selectors
import socket
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field


@dataclass
class Cable:
    """Connections to one server."""

    port: int
    """Where clients connect instead."""
    whole: threading.Event = field(default_factory=threading.Event)

    def sever(self) -> None:
        """From now on nothing passes and nobody is told: as a partition looks from both sides."""
        self.whole.clear()

    def mend(self) -> None:
        """Let everything pass again. What waited is passed on; what gave up is not there any more."""
        self.whole.set()


@contextlib.contextmanager
def cable_to(host: str, port: int) -> Iterator[Cable]:
    """A cable, until the block ends."""
    end = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        cable = Cable(listener.getsockname()[1])
        cable.whole.set()

        def accept() -> None:
            with contextlib.suppress(OSError):
                while not end.is_set():
                    client, _ = listener.accept()
                    threading.Thread(target=_carry, args=(client, (host, port), cable, end), daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        try:
            yield cable
        finally:
            end.set()
            cable.mend()


def through(cable: Cable, command: Sequence[str]) -> list[str]:
    """The command with a KUBECONFIG that leads through the cable."""
    script = 'sed -E "s#(server: https://[^:]+):[0-9]+#\\1:$0#" "$KUBECONFIG" > kubeconfig && KUBECONFIG="$PWD/kubeconfig" exec "$@"'
    return ["sh", "-c", script, str(cable.port), *command]


def _carry(client: socket.socket, server: tuple[str, int], cable: Cable, end: threading.Event) -> None:
    with client, contextlib.suppress(OSError):
        cable.whole.wait()
        with socket.create_connection(server) as upstream, selectors.DefaultSelector() as selector:
            selector.register(client, selectors.EVENT_READ, upstream)
            selector.register(upstream, selectors.EVENT_READ, client)
            while not end.is_set():
                for key, _ in selector.select(1.0):
                    block = key.fileobj.recv(65536)  # type: ignore[union-attr]
                    if not block:
                        return
                    cable.whole.wait()
                    key.data.sendall(block)
