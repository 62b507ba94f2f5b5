"""Where the final answer of a text is found."""

from __future__ import annotations

import subprocess
import sys

import pytest

from dail_runtime.evaluate.grading import answer_from_solution, answer_part, last_boxed
from dail_runtime.evaluate.grading.extract import lenient_answers


@pytest.mark.parametrize(
    ("text", "content"),
    [
        (r"so \boxed{72}.", "72"),
        (r"\boxed{\frac{1}{2}}", r"\frac{1}{2}"),
        (r"\boxed{ \frac{\sqrt{3}}{\sqrt{2}} }", r"\frac{\sqrt{3}}{\sqrt{2}}"),
        (r"\fbox{5}", "5"),
        (r"\boxed {5}", "5"),
        ("\\boxed\n{5}", "5"),
        (r"\boxed 5", "5"),
        (r"$\boxed 57$ is it", "57"),
        (r"\(\boxed \frac{1}{2}\)", r"\frac{1}{2}"),
        (r"\boxed 5.", "5"),
        (r"\boxed{8} no wait \boxed{7}", "7"),
        (r"\boxed{1} and \fbox{2}", "2"),
        (r"\boxed{\{1,2\}}", r"\{1,2\}"),
        (r"\boxed{\left\{1,2\right.}", r"\left\{1,2\right."),
        (r"\boxed{\begin{pmatrix} 1 \\ 2 \end{pmatrix}}", r"\begin{pmatrix} 1 \\ 2 \end{pmatrix}"),
        (r"\boxed{\boxed{5}}", "5"),
        (r"\boxed{}", None),
        (r"\boxed{5} as asked, in \boxed{}", None),
        (r"\boxed{  }", None),
        (r"\boxed{\frac{1}{2}", None),
        (r"\boxed{8} no wait \boxed{7", None),
        (r"\boxed", None),
        (r"\boxed ", None),
        (r"\boxed \frac{1", None),
        (r"\boxedsomething{5}", None),
        ("no box, 5", None),
        ("", None),
    ],
)
def test_the_last_box_counts_and_its_braces_are_matched(text: str, content: str | None) -> None:
    assert last_boxed(text) == content


def test_a_thinking_model_answers_after_its_last_think_end() -> None:
    text = r"<think>maybe \boxed{7}</think> hm </think> it is \boxed{8}"
    assert answer_part(text, thinking=True) == r" it is \boxed{8}"
    assert answer_part(r"<think>maybe \boxed{7}", thinking=True) is None
    assert answer_part(text, thinking=False) == text


@pytest.mark.parametrize(
    ("solution", "answer"),
    [
        ("6 * 12 = 72\n#### 72", "72"),
        ("#### 1,234 \n", "1,234"),
        (r"So \boxed{\frac{3}{4}}.", r"\frac{3}{4}"),
        ("\\boxed{1}\n#### 2", "2"),
        ("#### 2\nor rather \\boxed{1}", "1"),
        ("#### 2\nor rather \\boxed{", "2"),
        ("#### 2\n#### 3", "3"),
        ("the answer is 5", None),
        ("#### ", None),
        ("", None),
    ],
)
def test_the_answer_of_an_expert_solution_is_its_last_box_or_hash_line(solution: str, answer: str | None) -> None:
    assert answer_from_solution(solution) == answer


@pytest.mark.parametrize(
    ("text", "guesses"),
    [
        ("12 + 16\n#### 28", ["28"]),
        ("The answer is 28.", ["28", "28"]),
        ("**Answer:** 28 dollars", ["28 dollars", "28"]),
        ("the answer is 3, no, the answer is $4$ because 5 is odd", ["$4$ because 5 is odd", "5"]),
        ("The answer to this is 3.5. We used 2 steps.", ["3.5", "3.5"]),
        ("so 6 * 3 = 18 and 18 + 10 = 28.", ["28"]),
        ("it costs 1,250 dollars", ["1,250"]),
        ("nothing", []),
    ],
)
def test_lenient_guesses_come_from_hashes_then_phrases_then_the_last_number(text: str, guesses: list[str]) -> None:
    assert list(lenient_answers(text)) == guesses


def test_extraction_is_linear_in_a_huge_text() -> None:
    assert last_boxed("\\boxed{" * 200_000) is None
    assert last_boxed("{" * 1_000_000 + "\\boxed{" + "{" * 500_000 + "}" * 500_000 + "}") == "{" * 500_000 + "}" * 500_000
    assert list(lenient_answers("answer is " * 2_000))
    assert list(lenient_answers("1" * 1_000_000)) == ["1" * 1_000_000]


def test_grading_imports_neither_torch_nor_sympy() -> None:
    code = "import sys, dail_runtime.evaluate.grading; sys.exit(any(name in sys.modules for name in ('torch', 'sympy', 'transformers')))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
