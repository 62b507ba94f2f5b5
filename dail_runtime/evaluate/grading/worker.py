"""The process that asks math-verify: one comparison at a time, under limits that the kernel enforces.

Answers come from models and from users' files, and algebra on them can take any time and memory (9^{9^{9^9}}). So this process has a
memory limit, and a CPU limit for each comparison after which the kernel ends it; its parent starts another one. CPU time, not time on the
clock: a busy machine must not turn right answers into wrong ones.

Speaks JSON lines: `{"ready": true}` once, then for each `{"gold": ..., "answer": ...}` a `{"same": true|false}`. Ends when its input does.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import resource
import signal
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from dail_runtime.evaluate.grading.compare import same

_STACK = 3000


def _math_verify() -> Callable[[str, str], bool]:
    from math_verify import LatexExtractionConfig, parse, verify

    # Its own removal of units would read 2h as 2 and 5c as 5d; ours has happened by now.
    spelled = replace(LatexExtractionConfig().normalization_config, units=False, boxed="last")
    settings = [LatexExtractionConfig(boxed_match_priority=0, normalization_config=spelled)]

    def read(text: str) -> list[Any]:
        # Its time limits use SIGALRM and cannot stop C code; ours can, so they are off.
        found: list[Any] = parse(f"\\boxed{{{text}}}", settings, fallback_mode="no_fallback", parsing_timeout=None)
        return found

    def equal(gold: str, answer: str) -> bool:
        left, right = read(gold), read(answer)
        return bool(left) and bool(right) and bool(verify(left, right, allow_set_relation_comp=True, timeout_seconds=None))

    equal("1", "x^2")  # fills the parser's tables before the first limit runs
    return equal


def limit_memory(megabytes: int) -> None:
    """Let no allocation take this process over `megabytes` of address space; it gets a MemoryError instead."""
    # macOS refuses an address-space limit; the CPU limit still holds there.
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_AS, (megabytes << 20, megabytes << 20))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def main(seconds: float, megabytes: int) -> None:
    """Serve standard input until it ends."""
    # Where every process of a service gets SIGTERM, the parent still needs this one to finish what it is grading.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # a library that prints must not break the protocol
    logging.disable()
    sys.setrecursionlimit(_STACK)
    symbolic = _math_verify()
    limit_memory(megabytes)

    def reply(message: dict[str, bool]) -> None:
        replies.write(json.dumps(message) + "\n")
        replies.flush()

    reply({"ready": True})
    for line in sys.stdin:
        pair = json.loads(line)
        signal.setitimer(signal.ITIMER_PROF, seconds)
        try:
            verdict = bool(same(pair["gold"], pair["answer"], symbolic))
        except Exception:  # whatever sympy makes of a strange answer: it was not shown to be right
            verdict = False
        signal.setitimer(signal.ITIMER_PROF, 0)
        reply({"same": verdict})


if __name__ == "__main__":
    main(float(sys.argv[1]), int(sys.argv[2]))
