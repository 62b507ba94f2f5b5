"""examples/smollm: its data files are what the script writes, say the same in every layout, and give sound prompts."""

from __future__ import annotations

from pathlib import Path

import pytest

from dail_runtime.data import read_problems
from dail_runtime.prompts import Prompts, landmarks
from dail_runtime.spec.load import load_job
from examples.smollm.words import EVALUATION, HERE, TRAINING, Word, check, files
from tests.support.tiny import make_tiny_tokenizer

LAYOUTS = ("gsm8k.jsonl", "boxed.jsonl", "columns.json")


def test_the_files_are_what_the_script_writes_and_every_step_is_right() -> None:
    for name, content in files().items():
        assert (HERE / name).read_text(encoding="utf-8") == content, f"run python -m examples.smollm.words to renew {name}"


@pytest.mark.parametrize("steps", ["2 * 3 = 7", "2 * 3 = 6, 6 + 9 = 15", "2 x 3 = 6"])
def test_a_wrong_step_is_found(steps: str) -> None:
    with pytest.raises(ValueError, match="step"):
        check(Word("2 boxes hold 3 pens each.", steps))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_gives_the_same_problems_and_answers(layout: str) -> None:
    problems, _ = read_problems(str(HERE / layout))
    assert [(problem.problem, problem.answer) for problem in problems] == [(word.problem, word.answer) for word in TRAINING]
    assert all(len(problem.solutions) == 1 for problem in problems)


def test_the_evaluation_problems_are_others() -> None:
    problems, _ = read_problems(str(HERE / "test.jsonl"), evaluation="test")
    assert [problem.answer for problem in problems] == [word.answer for word in EVALUATION]
    assert not {problem.problem for problem in problems} & {word.problem for word in TRAINING}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_landmarks_are_the_steps_results_without_the_answer(layout: str) -> None:
    problems, _ = read_problems(str(HERE / layout))
    for problem, word in zip(problems, TRAINING, strict=True):
        results = [step.rpartition("= ")[2] for step in word.steps.split(", ")]
        expected = list(dict.fromkeys(result for result in results if result != word.answer))
        assert landmarks(problem.solutions[0], answer=problem.answer) == expected


def test_the_worked_examples_show_what_each_context_may_see() -> None:
    job = load_job(Path(HERE / "job.yaml"))
    tokenizer = make_tiny_tokenizer()
    prompts = Prompts(tokenizer, job.spec.prompts, thinking=False, max_tokens=10_000)
    problem = read_problems(str(HERE / "gsm8k.jsonl"))[0][0]
    texts = [
        tokenizer.decode(one.ids)
        for one in (prompts.student(problem), prompts.privileged(problem, problem), prompts.negative(problem, problem))
    ]
    for example in job.spec.prompts.examples:
        assert all(text.count(example.response) == 1 for text in texts)
        assert [example.solution in text for text in texts] == [False, True, False]
    assert "The answer is 18. Numbers on the way: none." in texts[2], "the first example's"
    assert "The answer is 13. Numbers on the way: 12." in texts[2], "the second's"
    assert "The answer is 29. Numbers on the way: 24." in texts[2], "the problem's"
    assert "29" not in texts[0]
