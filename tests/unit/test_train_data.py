"""What training learns from: rows, the order of steps, micro-batches, the learning rate."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dail_runtime.errors import DataError, ModelError
from dail_runtime.prompts.contexts import Prompts
from dail_runtime.prompts.reference import references
from dail_runtime.records import Kept, Problem
from dail_runtime.spec.prompts import PromptSpec
from dail_runtime.train.batches import Course, collate, micro_batches
from dail_runtime.train.data import expert_response, expert_texts, traces
from dail_runtime.train.schedule import learning_rate
from tests.support.tiny import make_tiny_tokenizer
from tests.support.training import train_spec

TOKENIZER = make_tiny_tokenizer()
END = TOKENIZER.eos_token_id
PROBLEMS = [
    Problem(id="a", problem="What is 1 + 2?", solutions=("1 + 2 = 3", "Count: 3"), answer="3"),
    Problem(id="b", problem="What is 4 + 5?", solutions=("So \\boxed{9}",), answer="9"),
]


def prompts(max_tokens: int = 1000, *, thinking: bool = False) -> Prompts:
    return Prompts(TOKENIZER, PromptSpec(), thinking=thinking, max_tokens=max_tokens)


def kept(id_: str, *ids: int) -> Kept:
    return Kept(id=id_, index=0, ids=ids, text="", verdict="right")


def test_every_context_is_the_prompt_that_rewriting_used_and_the_response_is_never_encoded_again() -> None:
    odd = (5, 5, 7, END)
    data = traces(
        [kept("a", *odd)], {one.id: one for one in PROBLEMS}, references(PROBLEMS, "own", 0), prompts(), "contrastive", frozenset({END})
    )
    assert data.rows[0].response == odd
    expected = {
        "student": prompts().student(PROBLEMS[0]).ids,
        "teacher": prompts().privileged(PROBLEMS[0], PROBLEMS[0]).ids,
        "negative": prompts().negative(PROBLEMS[0], PROBLEMS[0]).ids,
    }
    assert data.rows[0].prompts == expected
    assert data.tokens == 4


@pytest.mark.parametrize(("objective", "contexts"), [("distill", {"student", "teacher"}), ("nll", {"student"})])
def test_an_objective_gets_only_the_contexts_it_needs(objective: str, contexts: set[str]) -> None:
    data = traces(
        [kept("b", 1, END)], {one.id: one for one in PROBLEMS}, references(PROBLEMS, "own", 0), prompts(), objective, frozenset({END})
    )  # type: ignore[arg-type]
    assert set(data.rows[0].prompts) == contexts


def test_the_control_shows_both_references_another_problem() -> None:
    other = references(PROBLEMS, "other", 1)
    data = traces([kept("a", 1, END)], {one.id: one for one in PROBLEMS}, other, prompts(), "contrastive", frozenset({END}))
    assert data.rows[0].prompts["teacher"] == prompts().privileged(PROBLEMS[0], PROBLEMS[1]).ids
    assert data.rows[0].prompts["negative"] == prompts().negative(PROBLEMS[0], PROBLEMS[1]).ids


def test_solutions_are_cut_as_in_rewriting_and_counted_and_what_never_fits_is_dropped() -> None:
    both = len(prompts().privileged(PROBLEMS[0], PROBLEMS[0]).ids)
    by_id = {one.id: one for one in PROBLEMS}
    own = references(PROBLEMS, "own", 0)
    cut = traces([kept("a", 1, END)], by_id, own, prompts(both - 1), "distill", frozenset({END}))
    assert (len(cut.rows), cut.solutions_cut) == (1, 1)
    assert cut.rows[0].prompts["teacher"] == prompts(both - 1).privileged(PROBLEMS[0], PROBLEMS[0]).ids
    none = traces([kept("a", 1, END), kept("b", 1, END)], by_id, own, prompts(60), "distill", frozenset({END}))
    assert (len(none.rows), dict(none.dropped)) == (0, {"prompt_too_long": 2})


@pytest.mark.parametrize("ids", [(1, 2), ()])
def test_a_trace_without_its_end_is_refused(ids: Sequence[int]) -> None:
    with pytest.raises(ModelError, match=r"trace a#0 does not end with an end-of-text token of this model; run the stage rewrite again"):
        traces([kept("a", *ids)], {"a": PROBLEMS[0]}, {}, prompts(), "nll", frozenset({END}))


def test_a_trace_of_an_unknown_problem_is_refused() -> None:
    with pytest.raises(DataError, match="trace z#0 belongs to no problem"):
        traces([kept("z", END)], {}, {}, prompts(), "nll", frozenset({END}))


@pytest.mark.parametrize(
    ("solution", "answer", "thinking", "opened", "text", "added"),
    [
        ("So \\boxed{9}", "9", False, False, "So \\boxed{9}", False),
        (" 4 + 5 = 9\n#### 9 \n", "9", False, False, "4 + 5 = 9\n#### 9\n\nThe final answer is \\boxed{9}.", True),
        ("By induction.", None, False, False, "By induction.", False),
        ("4 + 5 = 9", "9", True, False, "<think>\n4 + 5 = 9\n</think>\n\nThe final answer is \\boxed{9}.", True),
        ("So \\boxed{9}", "9", True, True, "So \\boxed{9}\n</think>\n\nThe final answer is \\boxed{9}.", False),
        ("By induction.", None, True, True, "By induction.\n</think>\n\nBy induction.", False),
    ],
)
def test_the_experts_text_is_imitated_with_its_answer_in_a_box(
    solution: str, answer: str | None, thinking: bool, opened: bool, text: str, added: bool
) -> None:
    problem = Problem(id="x", problem="?", solutions=(solution,), answer=answer)
    assert expert_response(problem, thinking=thinking, opened=opened) == (text, added)


def test_sft_rows_are_the_first_solution_and_the_end_token() -> None:
    data = expert_texts(PROBLEMS, prompts(), TOKENIZER, eos=frozenset({END, 0}), thinking=False, longest=1000)
    assert [TOKENIZER.decode(row.response) for row in data.rows] == [
        "1 + 2 = 3\n\nThe final answer is \\boxed{3}.<|im_end|>",
        "So \\boxed{9}<|im_end|>",
    ]
    assert data.boxes_added == 1
    assert data.rows[0].prompts == {"student": prompts().student(PROBLEMS[0]).ids}
    too_long = expert_texts(PROBLEMS, prompts(), TOKENIZER, eos=frozenset({END}), thinking=False, longest=60)
    assert (len(too_long.rows), too_long.dropped["response_too_long"]) == (0, 2)


def test_sft_without_a_solution_says_so() -> None:
    with pytest.raises(DataError, match="problem 'q' has no solution to imitate"):
        expert_response(Problem(id="q", problem="?"))


@given(st.lists(st.integers(1, 300), max_size=40), st.integers(1, 400))
def test_micro_batches_hold_every_row_once_within_the_budget(lengths: list[int], budget: int) -> None:
    groups = micro_batches(lengths, budget)
    assert sorted(one for group in groups for one in group) == list(range(len(lengths)))
    assert all(len(group) == 1 or len(group) * max(lengths[one] for one in group) <= budget for group in groups)


def test_rows_that_predict_are_prompt_len_minus_1_to_t_minus_2_of_each_sequence() -> None:
    batch = collate([(7, 8, 9), (5,)], [(1, 2), (3, 4, 6, 2)], torch.device("cpu"))
    assert batch.ids.tolist() == [[7, 8, 9, 1], [5, 3, 4, 6]]
    assert batch.rows.tolist() == [2, 3, 4, 5, 6, 7]
    assert batch.labels.tolist() == [1, 2, 3, 4, 6, 2]
    assert batch.counts == (2, 4)


def test_an_epoch_shows_each_trace_once_and_epochs_differ_in_order() -> None:
    course = Course(train_spec(epochs=3, batchSize=4), 10, seed=5)
    assert (course.per_epoch, course.total) == (3, 9)
    epochs = [[row for step in range(3 * epoch, 3 * epoch + 3) for row in course[step].rows] for epoch in range(3)]
    assert all(sorted(rows) == list(range(10)) for rows in epochs)
    assert len({tuple(rows) for rows in epochs}) == 3
    assert course[8].epoch == 3


def test_a_step_follows_from_its_number_and_the_seed_alone() -> None:
    spec = train_spec(epochs=3, batchSize=4)
    forward = [Course(spec, 10, seed=5)[step] for step in range(9)]
    backward = Course(spec, 10, seed=5)
    assert [backward[step] for step in reversed(range(9))] == forward[::-1]
    assert [Course(spec, 10, seed=6)[step].rows for step in range(9)] != [step.rows for step in forward]


@pytest.mark.parametrize(("epochs", "steps"), [(0.5, 2), (1.25, 5), (0.01, 1)])
def test_epochs_may_be_fractions(epochs: float, steps: int) -> None:
    assert Course(train_spec(epochs=epochs, batchSize=4), 14, seed=0).total == steps


def test_warm_up_epochs_of_nll_come_first() -> None:
    course = Course(train_spec(epochs=1, warmup={"objective": "nll", "epochs": 0.5}, batchSize=4), 16, seed=0)
    assert [course[step].objective for step in range(course.total)] == ["nll"] * 2 + ["contrastive"] * 4
    assert course.reference_epochs == 1


def test_the_learning_rate_rises_and_falls_and_is_never_zero() -> None:
    def rates(schedule: str) -> list[float]:
        return [learning_rate(step, total=8, warmup=2, peak=3.0, schedule=schedule) for step in range(8)]  # type: ignore[arg-type]

    assert rates("linear") == pytest.approx([1, 2, 3, 2.5, 2, 1.5, 1, 0.5])
    assert rates("constant") == pytest.approx([1, 2, 3, 3, 3, 3, 3, 3])
    cosine = rates("cosine")
    assert cosine[2] == 3
    assert cosine[5] == pytest.approx(1.5)
    assert cosine == sorted(cosine[:2]) + sorted(cosine[2:], reverse=True)
    assert min(cosine) > 0
    assert [learning_rate(step, total=2, warmup=5, peak=6.0, schedule="linear") for step in range(2)] == pytest.approx([1, 2])


def test_rows_cannot_be_changed() -> None:
    data = expert_texts(PROBLEMS, prompts(), TOKENIZER, eos=frozenset({END}), thinking=False, longest=1000)
    with pytest.raises(dataclasses.FrozenInstanceError):
        data.rows[0].response = ()  # type: ignore[misc]


def test_a_thinking_model_whose_prompt_opens_the_thinking_is_not_given_a_second_opening() -> None:
    opening = make_tiny_tokenizer()
    opening.chat_template = opening.chat_template.replace(
        '{{- "<|im_start|>assistant\\n" -}}\n{%- if enable', '{{- "<|im_start|>assistant\\n<think>\\n" -}}\n{%- if enable'
    )
    built = Prompts(opening, PromptSpec(), thinking=True, max_tokens=1000)
    assert opening.decode(built.student(PROBLEMS[1]).ids).endswith("<think>\n")
    data = expert_texts(PROBLEMS[1:], built, opening, eos=frozenset({END}), thinking=True, longest=1000)
    assert opening.decode(data.rows[0].response).startswith("So \\boxed{9}\n</think>")
    closed = expert_texts(PROBLEMS[1:], prompts(thinking=True), TOKENIZER, eos=frozenset({END}), thinking=True, longest=1000)
    assert TOKENIZER.decode(closed.rows[0].response).startswith("<think>\nSo \\boxed{9}\n</think>")
