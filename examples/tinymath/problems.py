"""Register-machine word problems: how they are drawn, worded, solved by an expert and worked out in full.

Three registers a, b, c hold one digit each. A step changes one register: `add a b`, `sub a b`, `mul a b` are arithmetic modulo 10
and everybody's knowledge; `swirl c`, `fold c`, `twist c` replace a digit by another after a fixed rule that no problem states.
The expert writes down what the odd steps gave and the final state, and skips the rest: terse, and beyond what the model can follow.

Run as a module it writes the four committed data files beside it, always the same: `python -m examples.tinymath.problems`.
"""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
REGISTERS = "abc"
ORDINALS = ("one", "two", "three", "four", "five", "six", "seven")
ORDINARY = ("add", "sub", "mul")

Rules = Mapping[str, tuple[int, ...]]
"""Odd operation -> what it makes of each digit 0..9."""

RULES: Rules = {
    "swirl": (1, 4, 7, 0, 3, 6, 9, 2, 5, 8),
    "fold": (4, 9, 1, 7, 0, 2, 8, 5, 3, 6),
    "twist": (5, 8, 7, 0, 9, 2, 1, 4, 3, 6),
}
"""The rules the experts know. Each is a permutation: nothing is gained by preferring one digit."""

ODD = tuple(RULES)

State = tuple[int, ...]
"""The digits of a, b and c."""


@dataclass(frozen=True)
class Step:
    """One instruction and what it did."""

    op: str
    target: int
    """Index of the register that changes."""
    source: int | None
    """Index of the second operand's register; None for odd operations."""
    operands: tuple[int, ...]
    """The digits it worked on: one for odd operations, else two."""
    result: int
    """The digit it gave."""
    state: State
    """All registers afterwards."""

    @property
    def odd(self) -> bool:
        """Whether only experts know the rule."""
        return self.source is None

    @property
    def text(self) -> str:
        """The instruction: `add a b`, `swirl c`."""
        return f"{self.op} {REGISTERS[self.target]}" + ("" if self.source is None else f" {REGISTERS[self.source]}")


@dataclass(frozen=True)
class Puzzle:
    """A problem together with everything there is to know about it."""

    start: State
    steps: tuple[Step, ...]

    @property
    def problem(self) -> str:
        """What everybody sees."""
        return "\n".join([f"start {_show(self.start)}", *(f"{ordinal}: {step.text}" for ordinal, step in self._numbered())])

    @property
    def answer(self) -> str:
        """The final digits of a, b, c: `2,9,4`."""
        return ",".join(map(str, self.steps[-1].state))

    @property
    def boxed(self) -> str:
        """The answer as graders look for it."""
        return f"\\boxed{{{self.answer}}}"

    @property
    def solution(self) -> str:
        """The expert's terse solution: results of the odd steps, then the answer."""
        return "\n".join([*(f"{ordinal}: {step.text}={step.result}" for ordinal, step in self._numbered() if step.odd), self.boxed])

    def trace(self, rng: random.Random, jump: float = 0.0) -> str:
        """Every step worked out. Before each step the writer jumps to the answer instead with probability `jump`."""
        lines: list[str] = []
        for ordinal, step in self._numbered():
            if rng.random() < jump:
                return "\n".join([*lines, f"{JUMP}{self.boxed}"])
            operands = ",".join(map(str, step.operands))
            lines.append(f"{ordinal}: {step.text} ({operands})={step.result} {_show(step.state)}")
        return "\n".join([*lines, self.boxed])

    def _numbered(self) -> zip[tuple[str, Step]]:
        return zip(ORDINALS, self.steps, strict=False)


JUMP = "so "
"""How a trace begins its last line when it skips the work and states an answer it was shown."""


def draw(rng: random.Random, steps: int, odd: int, rules: Rules | None = RULES) -> Puzzle:
    """A random problem of `steps` steps, `odd` of them odd ones (each a different one).

    With rules=None the odd steps give random digits: such a problem can be solved only with its reference solution.
    """
    start = state = tuple(rng.randrange(10) for _ in REGISTERS)
    odd_at = dict(zip(rng.sample(range(steps), odd), rng.sample(ODD, odd), strict=True))
    done = []
    for at in range(steps):
        target, source = rng.sample(range(len(REGISTERS)), 2)
        left, right = state[target], state[source]
        if at in odd_at:
            op = odd_at[at]
            result = rng.randrange(10) if rules is None else rules[op][left]
        else:
            op = rng.choice(ORDINARY)
            result = {"add": left + right, "sub": left - right, "mul": left * right}[op] % 10
        state = tuple(result if register == target else digit for register, digit in enumerate(state))
        done.append(
            Step(op, target, None, (left,), result, state) if at in odd_at else Step(op, target, source, (left, right), result, state)
        )
    return Puzzle(start, tuple(done))


def _show(state: State) -> str:
    return f"[{''.join(map(str, state))}]"


@dataclass(frozen=True)
class Split:
    """One committed data file."""

    count: int
    odd: int
    """Odd steps per problem."""
    seed: int
    expert: bool
    """Whether the solutions are given."""

    def rows(self, name: str) -> list[dict[str, str]]:
        """The rows of the file: id, problem, solution where given, answer. No problem twice."""
        rng = random.Random(self.seed)
        seen: dict[str, Puzzle] = {}
        while len(seen) < self.count:
            puzzle = draw(rng, rng.choice((5, 6)), self.odd)
            seen.setdefault(puzzle.problem, puzzle)
        rows = []
        for number, puzzle in enumerate(seen.values(), start=1):
            solution = {"solution": puzzle.solution} if self.expert else {}
            rows.append({"id": f"{name}-{number:03}", "problem": puzzle.problem, **solution, "answer": puzzle.answer})
        return rows


SPLITS = {
    "expert": Split(count=300, odd=2, seed=101, expert=True),
    "dev": Split(count=100, odd=2, seed=102, expert=False),
    "test": Split(count=100, odd=2, seed=103, expert=False),
    "ordinary": Split(count=60, odd=0, seed=104, expert=False),
}
"""`expert` is learnt from, settings are chosen on `dev`, results reported on `test`; `ordinary` shows what was forgotten."""


def file_of(name: str) -> str:
    """The text of the data file `name`.jsonl."""
    return "".join(json.dumps(row) + "\n" for row in SPLITS[name].rows(name))


def main() -> None:
    """Write the data files."""
    for name in SPLITS:
        (HERE / f"{name}.jsonl").write_text(file_of(name), encoding="utf-8")


if __name__ == "__main__":
    main()
