"""Landmarks: the results on a solution's way, without its end."""

from __future__ import annotations

import time

import pytest

from dail_runtime.prompts import landmarks


@pytest.mark.parametrize(
    ("solution", "expected"),
    [
        ("5 * 6 = 30, 30 - 19 = 11", ["30", "11"]),
        ("48/2 = <<48/2=24>>24 clips in May.\n48+24 = <<48+24=72>>72 clips.\n#### 72", ["24"]),
        (
            r"$x = \frac{3}{4}$, $y^2 = 2x + 1 = \frac{5}{2}$, so $$\sqrt{y} \approx 1.25.$$ \boxed{x = 7}",
            [r"\frac{3}{4}", "2x + 1", r"\frac{5}{2}", "1.25"],
        ),
        (r"$n \equiv 3 \pmod{7}$ and $x = \boxed{10}$", [r"3 \pmod{7}"]),
        ("Cost = $1,000 and tax = $50.50; total = $1050.50.\n#### 1050.5", ["1,000", "50.50"]),
        (
            r"\begin{align*} a &= b+c \\ &= 2(1,2) \\ &= \left(1, \frac{2}{3}\right) \end{align*}",
            ["b+c", "2(1,2)", r"\left(1, \frac{2}{3}\right)"],
        ),
        ("a = 5 a day, b = 2 x + 1, c = 12 cm, d = 50%", ["5", "2 x + 1", "12", "50%"]),
        ("where n = number of cats, x == 3, y <= 4, z != 5, w >= 6; so n = 7", ["7"]),
        (r"$9 \cdot 2 = \boxed{18}$", []),
        ("12 × 3 = 36 apples, 36 ÷ 4 = 9 → 9 each, 2 * 18 = 36", ["36", "9"]),
        ("unbalanced = (1 + 2, but c = 5", ["5"]),
        ("", []),
    ],
)
def test_results_behind_a_sign_are_found(solution: str, expected: list[str]) -> None:
    assert landmarks(solution) == expected


def test_the_final_answer_is_left_out_however_it_is_written() -> None:
    assert landmarks("a = 7/2, b = 3.5, c = 4", answer="3.50") == ["4"]


def test_a_solution_in_prose_gives_the_numbers_that_the_problem_lacks() -> None:
    found = landmarks("Step 1: half of 48 is 24.\n2. So 24 and 48 make 72.", answer="72", problem="She sold 48 clips, then half as many.")
    assert found == ["24"]


def test_the_order_is_kept_and_the_number_capped() -> None:
    solution = ", ".join(f"x = {n}" for n in [5, 3, 5, 9, 1])
    assert landmarks(solution) == ["5", "3", "9", "1"]
    assert landmarks(solution, limit=2) == ["5", "3"]


@pytest.mark.parametrize("text", ["(=" * 10**6, "= " + " " * 10**6, "\\boxed{" * 10**5, "<<" * 10**6, "1," * 10**6])
def test_no_text_takes_long(text: str) -> None:
    start = time.process_time()
    landmarks(text, answer="1")
    # Seconds at most. What reads the text again from each of its characters takes hours.
    assert time.process_time() - start < 300
