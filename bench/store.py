"""Small objects in a folder store, against the plainest durable way to write files: `python -m bench.store` (`make bench-store`).

A rewrite of 10,000 problems puts 10,000 rollouts. The yardstick writes the same bytes to a temporary file beside the target, syncs
it and renames it, which is what any store that loses nothing must do at least; dail also keeps each object's sha256 and checks it.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from bench.common import interleaved, last_line
from dail_runtime.store import open_store
from dail_runtime.store.keys import safe_key

COUNT = 10_000
BYTES = 2048
REPEATS = 2


def seconds(work: Callable[[Path], None]) -> Callable[[], float]:
    """A case that runs `work` in an empty folder and gives its wall time."""

    def case() -> float:
        with tempfile.TemporaryDirectory(prefix="dail-bench-") as folder:
            start = time.perf_counter()
            work(Path(folder))
            return time.perf_counter() - start

    return case


def plain(count: int, data: bytes) -> Callable[[Path], None]:
    """Write, sync, rename; the folder is synced once at the end."""

    def work(folder: Path) -> None:
        for number in range(count):
            target = folder / f"{safe_key(f'problem-{number}')}.json"
            with target.with_suffix(".new").open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            target.with_suffix(".new").rename(target)
        descriptor = os.open(folder, os.O_RDONLY)
        os.fsync(descriptor)
        os.close(descriptor)

    return work


def puts(count: int, data: bytes) -> Callable[[Path], None]:
    """The same through the store."""

    def work(folder: Path) -> None:
        store = open_store(str(folder)).at("rollouts")
        for number in range(count):
            store.put(f"{safe_key(f'problem-{number}')}.json", data)

    return work


def puts_and_reads(count: int, data: bytes) -> Callable[[Path], None]:
    """Put, list and read back all of them, checked: what a resumed stage does."""

    def work(folder: Path) -> None:
        puts(count, data)(folder)
        store = open_store(str(folder)).at("rollouts")
        infos = list(store.list())
        assert len(infos) == count
        for info in infos:
            assert store.get(info.key) == data

    return work


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Puts of a folder store against plain durable writes.")
    parser.add_argument("--count", type=int, default=COUNT, help=f"objects (default {COUNT})")
    parser.add_argument("--repeats", type=int, default=REPEATS)
    arguments = parser.parse_args()
    data = os.urandom(BYTES)
    cases = {name: seconds(make(arguments.count, data)) for name, make in (("plain", plain), ("puts", puts), ("all", puts_and_reads))}
    found = interleaved(cases, arguments.repeats)
    for name, value in found.items():
        print(f"{name}: {arguments.count} objects of {BYTES} bytes in {value:.2f} s")
    last_line("store", {"puts_vs_plain": found["puts"] / found["plain"], "puts_and_reads_vs_plain": found["all"] / found["plain"]})


if __name__ == "__main__":
    main()
