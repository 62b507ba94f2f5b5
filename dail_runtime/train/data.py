"""What training learns from: each kept trace with its contexts as token ids; for `sft` the expert's own text as the response."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from dail_runtime.errors import DataError, ModelError
from dail_runtime.prompts.contexts import Prompts, PromptTooLong
from dail_runtime.records import Kept, Problem
from dail_runtime.spec.train import Objective

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Context = Literal["student", "teacher", "negative"]

REFERENCES: Mapping[Objective, tuple[Context, ...]] = {
    "contrastive": ("teacher", "negative"),
    "distill": ("teacher",),
    "nll": (),
    "sft": (),
}
"""The frozen contexts that each objective compares the student with."""


@dataclass(frozen=True)
class Row:
    """A response and the prompts it is seen under. One tuple of response ids serves all contexts: they cannot come apart."""

    id: str
    """The problem's id."""
    prompts: Mapping[Context, tuple[int, ...]]
    """Prompt ids of the student and of the references the objective needs."""
    response: tuple[int, ...]
    """Response ids, the end-of-text id included."""


@dataclass
class TrainingData:
    """The rows and what was left out."""

    rows: list[Row] = field(default_factory=list)
    """In the order of the kept traces."""
    dropped: Counter[str] = field(default_factory=Counter)
    """Reason -> number of rows left out."""
    solutions_cut: int = 0
    """Solutions left out of teacher prompts because they did not fit."""
    boxes_added: int = 0
    """Expert texts (`sft`) that got their answer in a box appended."""

    @property
    def tokens(self) -> int:
        """Response tokens of all rows."""
        return sum(len(row.response) for row in self.rows)


def traces(
    kept: Iterable[Kept],
    problems: Mapping[str, Problem],
    references: Mapping[str, Problem],
    prompts: Prompts,
    objective: Objective,
    eos: frozenset[int],
) -> TrainingData:
    """The kept traces under the contexts that `objective` needs.

    Args:
        kept: The traces.
        problems: Id -> problem.
        references: Id -> the problem whose solution the references are shown.
        prompts: Builds the prompts; made with the same limits as in rewriting, so that both cut the same solutions.
        objective: What is trained.
        eos: Ids that end a response.

    Raises:
        ModelError: a trace does not end with any of `eos`: another model wrote it.
        DataError: a trace belongs to no problem.
    """
    data = TrainingData()
    for trace in kept:
        problem = problems.get(trace.id)
        if problem is None:
            raise DataError(f"trace {trace.id}#{trace.index} belongs to no problem; run the stage prepare again")
        if not trace.ids or trace.ids[-1] not in eos:
            raise ModelError(
                f"trace {trace.id}#{trace.index} does not end with an end-of-text token of this model; run the stage rewrite again"
            )
        try:
            contexts: dict[Context, tuple[int, ...]] = {"student": prompts.student(problem).ids}
            if "teacher" in REFERENCES[objective]:
                teacher = prompts.privileged(problem, references[problem.id])
                contexts["teacher"] = teacher.ids
                data.solutions_cut += teacher.solutions_cut
            if "negative" in REFERENCES[objective]:
                contexts["negative"] = prompts.negative(problem, references[problem.id]).ids
        except PromptTooLong:
            data.dropped["prompt_too_long"] += 1
            continue
        data.rows.append(Row(trace.id, contexts, trace.ids))
    return data


def expert_texts(
    problems: Sequence[Problem],
    prompts: Prompts,
    tokenizer: PreTrainedTokenizerBase,
    *,
    eos: frozenset[int],
    thinking: bool,
    longest: int,
) -> TrainingData:
    """The first expert solution of each problem as the response to the student's prompt: direct imitation.

    The prompt asks for the answer in a box and only boxes are graded. A solution without one gets its known answer appended in
    a box: the comparison with rewritten traces is then about the reasoning, not about a format that the expert was not told of.
    A thinking model's answer comes after </think>; there the solution is the thinking, and the box follows it.

    Args:
        problems: Those with a kept trace, so that every objective learns from the same problems.
        prompts: Builds the prompts.
        tokenizer: The model's.
        eos: Ids that end a response.
        thinking: Whether the model thinks before it answers.
        longest: Most tokens of prompt plus response.
    """
    data = TrainingData()
    end = tokenizer.eos_token_id if tokenizer.eos_token_id in eos else min(eos)
    for problem in problems:
        try:
            prompt = prompts.student(problem).ids
        except PromptTooLong:
            data.dropped["prompt_too_long"] += 1
            continue
        text, added = expert_response(problem, thinking=thinking, opened=thinking and _opens_thinking(tokenizer, prompt))
        response = (*tokenizer.encode(text, add_special_tokens=False), end)
        if len(prompt) + len(response) > longest:
            data.dropped["response_too_long"] += 1
            continue
        data.boxes_added += added
        data.rows.append(Row(problem.id, {"student": prompt}, response))
    return data


def expert_response(problem: Problem, *, thinking: bool = False, opened: bool = False) -> tuple[str, bool]:
    """The text that `sft` imitates, and whether the answer in a box was appended; `opened`: the prompt itself ends with <think>.

    Raises:
        DataError: the problem has no solution.
    """
    if not problem.solutions:
        raise DataError(f"problem {problem.id!r} has no solution to imitate; add one, or drop the problem")
    solution = problem.solutions[0].strip()
    boxed = "\\boxed" in solution or "\\fbox" in solution
    box = f"The final answer is \\boxed{{{problem.answer}}}." if problem.answer is not None else ""
    if thinking:
        after = box if box else solution
        return f"{'' if opened else '<think>' + chr(10)}{solution}\n</think>\n\n{after}", bool(box) and not boxed
    if boxed or not box:
        return solution, False
    return f"{solution}\n\n{box}", True


def _opens_thinking(tokenizer: PreTrainedTokenizerBase, prompt: tuple[int, ...]) -> bool:
    return str(tokenizer.decode(prompt[-8:])).rstrip().endswith("<think>")
