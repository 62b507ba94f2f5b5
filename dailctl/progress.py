"""What a person sees while a run works: a live bar on a terminal, plain lines everywhere else. All of it on standard error."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from dailctl import output

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

QUIET = 10.0
"""Seconds between two plain progress lines of one task."""


class Eta:
    """Time left, from the average rate since the first report: what an earlier attempt had done does not count as speed."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._first: tuple[float, float] | None = None

    def left(self, done: float, total: float) -> float | None:
        """Seconds left, or None while the rate is unknown."""
        now = self._clock()
        if self._first is None or done < self._first[1]:
            self._first = (now, done)
        elapsed, gained = now - self._first[0], done - self._first[1]
        return (total - done) * elapsed / gained if gained > 0 and elapsed > 0 else None


class View:
    """Plain lines: each task's start, some progress, what the stage says, its end."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._label = ""
        self._eta = Eta(clock)
        self._spoke = float("-inf")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        return None

    def task(self, name: str, number: int, total: int) -> None:
        """The next task of the plan."""
        self._label = f"[{number:>{len(str(total))}}/{total}] {name}"

    def started(self, attempt: int) -> None:
        """Its process is up."""
        self._eta, self._spoke = Eta(self._clock), float("-inf")
        self._line("started" if attempt == 1 else f"goes on (attempt {attempt})")

    def progress(self, done: float, total: float, unit: str, figures: Mapping[str, float]) -> None:
        """How far it is."""
        left = self._eta.left(done, total)
        if self._clock() - self._spoke < QUIET:
            return
        self._spoke = self._clock()
        self._line(", ".join([f"{number_told(done)}/{number_told(total)} {unit}", *figures_told(figures), *_left(left)]))

    def say(self, sentence: str) -> None:
        """A sentence of the stage."""
        self._line(sentence)

    def done(self, seconds: float, counts: Mapping[str, Any]) -> None:
        """It finished; `seconds` over all attempts."""
        told = _counts(counts)
        self._line(f"done in {output.duration(seconds)}" + (f": {told}" if told else ""))

    def skipped(self) -> None:
        """An earlier run finished it."""
        self._line("done before")

    def retry(self, reason: str, wait: float) -> None:
        """It failed by a passing fault."""
        self._line(f"trying again in {output.duration(wait)}, because of a passing fault: {reason}")

    def stopping(self) -> None:
        """A signal came."""
        self._line("stopping: waiting until the stage has saved (once more, and it is killed)")

    def _line(self, text: str) -> None:
        output.talk(self._labelled(text))

    def _labelled(self, text: str) -> str:
        """With the task, once there is one."""
        return f"{self._label}: {text}" if self._label else text


class LiveView(View):
    """The same lines, with a moving bar below them for the task at work."""

    def __init__(self) -> None:
        super().__init__()
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

        self._console = Console(stderr=True)
        self._bar: Progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),
            TimeElapsedColumn(),
            TextColumn("{task.fields[told]}", markup=False),
            console=self._console,
            transient=True,
        )
        self._row: TaskID | None = None

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        with contextlib.suppress(OSError):
            self._bar.stop()

    def started(self, attempt: int) -> None:
        """See View."""
        self._remove()
        self._row = self._bar.add_task(self._label, total=None, told="starting")
        self._eta = Eta(self._clock)
        if attempt > 1:
            self._line(f"goes on (attempt {attempt})")

    def progress(self, done: float, total: float, unit: str, figures: Mapping[str, float]) -> None:
        """See View."""
        if self._row is not None:
            told = "  ".join(
                [f"{number_told(done)}/{number_told(total)} {unit}", *figures_told(figures), *_left(self._eta.left(done, total))]
            )
            self._bar.update(self._row, completed=done, total=total, told=output.printable(told))

    def done(self, seconds: float, counts: Mapping[str, Any]) -> None:
        """See View."""
        self._remove()
        super().done(seconds, counts)

    def retry(self, reason: str, wait: float) -> None:
        """See View."""
        self._remove()
        super().retry(reason, wait)

    def _remove(self) -> None:
        if self._row is not None:
            self._bar.remove_task(self._row)
            self._row = None

    def _line(self, text: str) -> None:
        # The terminal may be closed; the stage at work must still be able to save.
        with contextlib.suppress(OSError):
            self._console.print(output.printable(self._labelled(text)), markup=False, highlight=False, soft_wrap=True)


def view_for_stderr() -> View:
    """The live view where a person watches standard error, plain lines for pipes, logs and dumb terminals."""
    return LiveView() if output.is_terminal(sys.stderr) else View()


def number_told(value: float) -> str:
    """A count with its thousands apart, anything else with three digits: `12 000`, `0.412`."""
    return f"{value:,.0f}".replace(",", " ") if value == int(value) else f"{value:.3g}"


def figures_told(figures: Mapping[str, float]) -> list[str]:
    """Figures of a stage in words: `1 234 tokens/s`, `loss 0.412`."""
    return [_named(name, value) for name, value in figures.items()]


def _named(name: str, value: float) -> str:
    if name.endswith("_per_s"):
        return f"{number_told(round(value))} {name.removesuffix('_per_s').replace('_', ' ')}/s"
    words = name.replace("_", " ")
    return f"{number_told(value)} {words}" if isinstance(value, int) else f"{words} {value:.3g}"


def _left(seconds: float | None) -> list[str]:
    return [] if seconds is None else [f"{output.duration(seconds)} left"]


def _counts(counts: Mapping[str, Any]) -> str:
    told = [
        _named(name, value) for name, value in counts.items() if isinstance(value, int | float) and not isinstance(value, bool) and value
    ]
    dropped = counts.get("dropped")
    if isinstance(dropped, Mapping):
        told += [f"{number_told(n)} dropped ({str(reason).replace('_', ' ')})" for reason, n in dropped.items() if n]
    return ", ".join(told)
