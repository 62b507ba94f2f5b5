"""The three contexts: exact ids for both template families, worked examples, placeholders, and what is cut."""

from __future__ import annotations

import pytest

from dail_runtime.errors import DataError, ModelError
from dail_runtime.prompts import Prompts, PromptTooLong
from dail_runtime.records import Problem
from dail_runtime.spec.prompts import Example, PromptSpec
from tests.support.tiny import Style, make_tiny_tokenizer

TOKENIZERS = {style: make_tiny_tokenizer(style) for style in ("qwen2.5", "qwen3")}
SHORT = PromptSpec(student="{problem}", privileged="{problem} S: {solution}", negative="{problem} A: {answer} L: {landmarks}")
PROBLEM = Problem(id="p", problem="2+3+4?", solutions=("2+3=5, 5+4=9\n#### 9",))
EXAMPLE = Example(problem="1+1?", solution="1+1=2", response="<think>\n1 and 1\n</think>\n\n\\boxed{2}")

# <|im_start|>system\nYou are Qwen, created by Alibaba Cloud. You are a helpful assistant.<|im_end|>\n
QWEN25_SYSTEM = (
    *(402, 82, 332, 267, 76, 198, 309, 341, 220, 375, 288, 11, 220, 385, 381, 67, 304, 220),
    *(367, 396, 311, 220, 368, 266, 67, 13, 340, 341, 256, 338, 398, 391, 364, 13, 400, 198),
)
USER = (402, 84, 82, 265, 198)  # <|im_start|>user\n
TURN_END = (400, 198)  # <|im_end|>\n
ASSISTANT = (402, 287, 327, 353, 198)  # <|im_start|>assistant\n
NO_THOUGHT = (403, 198, 198, 404, 198, 198)  # <think>\n\n</think>\n\n
CONTENT = {
    "student": (17, 10, 18, 10, 19, 30),
    "privileged": (17, 10, 18, 10, 19, 30, 335, 25, 220, 17, 10, 18, 28, 20, 11, 220, 20, 10, 19, 28, 24, 198, 2, 2, 2, 2, 220, 24),
    "negative": (17, 10, 18, 10, 19, 30, 220, 32, 25, 220, 24, 220, 43, 25, 220, 20),
}


def prompts(style: Style = "qwen3", spec: PromptSpec = SHORT, *, thinking: bool = False, max_tokens: int = 4000) -> Prompts:
    return Prompts(TOKENIZERS[style], spec, thinking=thinking, max_tokens=max_tokens)


def three(made: Prompts, problem: Problem = PROBLEM, reference: Problem | None = None) -> dict[str, tuple[int, ...]]:
    shown = reference or problem
    return {
        "student": made.student(problem).ids,
        "privileged": made.privileged(problem, shown).ids,
        "negative": made.negative(problem, shown).ids,
    }


def texts(made: Prompts, style: Style = "qwen3", problem: Problem = PROBLEM, reference: Problem | None = None) -> dict[str, str]:
    return {name: TOKENIZERS[style].decode(ids) for name, ids in three(made, problem, reference).items()}


@pytest.mark.parametrize("context", CONTENT)
@pytest.mark.parametrize("thinking", [False, True])
def test_exact_ids_of_a_qwen25_style_prompt(context: str, thinking: bool) -> None:
    expected = (*QWEN25_SYSTEM, *USER, *CONTENT[context], *TURN_END, *ASSISTANT)
    assert three(prompts("qwen2.5", thinking=thinking))[context] == expected


@pytest.mark.parametrize("context", CONTENT)
@pytest.mark.parametrize("thinking", [False, True])
def test_exact_ids_of_a_qwen3_style_prompt(context: str, thinking: bool) -> None:
    expected = (*USER, *CONTENT[context], *TURN_END, *ASSISTANT, *(() if thinking else NO_THOUGHT))
    assert three(prompts("qwen3", thinking=thinking))[context] == expected


def test_the_system_message_replaces_the_templates_own() -> None:
    spec = SHORT.model_copy(update={"system": "Be brief."})
    for text in texts(prompts("qwen2.5", spec), "qwen2.5").values():
        assert text.startswith("<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\n")


def test_worked_examples_come_first_in_every_context_each_in_its_wording() -> None:
    made = texts(prompts("qwen3", SHORT.model_copy(update={"examples": (EXAMPLE,)})))
    answer = "<|im_end|>\n<|im_start|>assistant\n\\boxed{2}<|im_end|>\n<|im_start|>user\n"
    assert made["student"].startswith("<|im_start|>user\n1+1?" + answer + "2+3+4?<")
    assert made["privileged"].startswith("<|im_start|>user\n1+1? S: 1+1=2" + answer + "2+3+4? S: 2+3=5")
    assert made["negative"].startswith("<|im_start|>user\n1+1? A: 2 L: none" + answer + "2+3+4? A: 9 L: 5<")


def test_a_template_that_keeps_thinking_shows_the_examples_thinking() -> None:
    made = texts(prompts("qwen2.5", SHORT.model_copy(update={"examples": (EXAMPLE,)})), "qwen2.5")
    assert all(EXAMPLE.response in text for text in made.values())


def test_placeholders_are_filled_in_a_single_pass() -> None:
    odd = Problem(id="p", problem="{solution} {answer} {x}", solutions=("{problem}",), answer="{landmarks}", hint="{problem}")
    made = texts(prompts(), problem=odd)
    assert "{solution} {answer} {x} S: {problem}<" in made["privileged"]
    assert "{solution} {answer} {x} A: {landmarks} L: {problem}<" in made["negative"]


def test_the_student_never_sees_what_only_the_teacher_knows() -> None:
    secret = Problem(id="p", problem="q", solutions=("SECRET1",), answer="SECRET2", hint="SECRET3")
    made = texts(prompts(), problem=secret)
    assert "SECRET" not in made["student"]
    assert "SECRET1" not in made["negative"]
    assert "A: SECRET2 L: SECRET3" in made["negative"], "the user's hint goes before the extracted landmarks"


def test_another_problems_solution_answer_and_landmarks_are_shown_as_a_control() -> None:
    other = Problem(id="o", problem="7+7+1?", solutions=("7+7=14, 14+1=15\n#### 15",))
    made = texts(prompts(), reference=other)
    assert "2+3+4? S: 7+7=14, 14+1=15\n#### 15<" in made["privileged"]
    assert "2+3+4? A: 15 L: 14<" in made["negative"]
    assert made["student"] == texts(prompts())["student"]


def test_an_unknown_answer_is_called_unknown() -> None:
    proof = Problem(id="p", problem="Show it.", solutions=("It is clear.",))
    assert "Show it. A: unknown L: none<" in texts(prompts(), problem=proof)["negative"]


def test_several_solutions_are_numbered() -> None:
    two = PROBLEM.model_copy(update={"solutions": ("first", "second")})
    assert "S: Solution 1:\nfirst\n\nSolution 2:\nsecond<" in texts(prompts(), problem=two)["privileged"]


def test_solutions_that_do_not_fit_are_dropped_whole_from_the_end_and_counted() -> None:
    many = PROBLEM.model_copy(update={"solutions": ("aaaa", "bbbb", "cccc")})
    tokenizer = TOKENIZERS["qwen3"]
    whole = prompts().privileged(many, many)
    assert whole.solutions_cut == 0
    exact = prompts(max_tokens=len(whole.ids)).privileged(many, many)
    assert exact == whole
    two = prompts(max_tokens=len(whole.ids) - 1).privileged(many, many)
    assert two.solutions_cut == 1
    assert "Solution 2:\nbbbb<" in tokenizer.decode(two.ids)
    one = prompts(max_tokens=len(two.ids) - 1).privileged(many, many)
    assert one.solutions_cut == 2
    assert "S: aaaa<" in tokenizer.decode(one.ids)
    with pytest.raises(PromptTooLong, match=f"its privileged prompt has {len(one.ids)} tokens, and {len(one.ids) - 1} fit"):
        prompts(max_tokens=len(one.ids) - 1).privileged(many, many)


@pytest.mark.parametrize("context", ["student", "negative"])
def test_the_other_contexts_are_never_cut(context: str) -> None:
    fits = len(three(prompts())[context])
    assert three(prompts(max_tokens=max(len(ids) for ids in three(prompts()).values())))[context]
    made = prompts(max_tokens=fits - 1)
    with pytest.raises(PromptTooLong, match=f"problem 'p': its {context} prompt has {fits} tokens, and {fits - 1} fit"):
        made.student(PROBLEM) if context == "student" else made.negative(PROBLEM, PROBLEM)


def test_no_room_for_any_prompt_is_refused_at_once() -> None:
    with pytest.raises(ModelError, match="leaves no room for a prompt"):
        prompts(max_tokens=0)


def test_a_reference_without_a_solution_is_refused_in_a_sentence() -> None:
    bare = PROBLEM.model_copy(update={"solutions": ()})
    with pytest.raises(DataError, match="problem 'p' has no solution"):
        prompts().privileged(PROBLEM, bare)
