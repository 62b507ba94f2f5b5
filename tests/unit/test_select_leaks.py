"""The leak filter: what gives the reference away, and what only sounds like it."""

from __future__ import annotations

import time

import pytest

from dail_runtime.select import LeakFilter

PROBLEM = "Find the sum of all positive integers n such that n divides 12."

LEAKS = [
    "According to the reference solution, the sum is 28.",
    "The given solution says that n = 3.",
    "As in the Expert's Solution, we factor first.",
    "This matches the provided answer.",
    "which agrees with the expected answer of 28",
    "as provided, the sum is 28",
    "As stated in the solution, we have 12 = 2^2 * 3.",
    "as shown by the\n  reference",
    "Following the hint, we factor.",
    "The hint tells us to factor.",
    "The expert skips this step, so let me do it.",
    "The reference says 28.",
    "This is done in the reference.",
    "I will write it in my own words.",
    "I'll solve this without mentioning the reference solution.",
    "I have not seen the solution, of course.",
    "I was given the answer 28, so I work backwards.",
    "The answer is supposed to be 28.",
    "the solution provided uses divisors",
    "the solution that was provided uses divisors",
    "THE REFERENCE SOLUTION gives 28",
    "the official solution is shorter",
    "According to the solution, the divisors are 1, 2, 3, 4, 6 and 12.",
    "The solution mentions that 12 has 6 divisors.",
    "Your given solution is correct.",
    "The expected answer is 28.",
]

CLEAN = [
    "Let us solve the equation. The solution set is {1, 2, 3}.",
    "In the reference frame of the train, the velocity is 0.",
    "The reference angle is 30 degrees, and relative to the reference point it is 0.",
    "The solution given by the quadratic formula is x = 2.",
    "The given solution set has three elements.",
    "Among the given answer choices, (B) fits.",
    "The answer is 28. The final answer is \\boxed{28}.",
    "The correct answer is 28.",
    "As given in the problem, n divides 12.",
    "The table lists the values as provided in the problem.",
    "The solution to the system is (1, 2); following the solution of the first equation we get y.",
    "A sufficient condition is provided that x > 0.",
    "The answer provided that n is even is different.",
    "We are given a triangle with the given sides.",
    "I am given a number n, and I was told nothing of its sign.",
    "An expertly chosen substitution helps. Expertise is not needed.",
    "Hinting at symmetry is not needed. We use Hintikka's lemma.",
    "Let me solve this step by step from scratch.",
    "For any given solution (x, y), (y, x) is one too.",
    "The given solution of the equation x^2 = 4 is x = 2.",
    "The known result of Euler gives the sum.",
]


@pytest.mark.parametrize("text", LEAKS)
def test_traces_that_speak_of_the_reference_leak(text: str) -> None:
    assert LeakFilter().find(text, PROBLEM) is not None
    assert LeakFilter().find(f"First, 12 = 3 * 4. {text} So it goes.", PROBLEM) is not None


@pytest.mark.parametrize("text", CLEAN)
def test_ordinary_mathematics_does_not_leak(text: str) -> None:
    assert LeakFilter().find(text, PROBLEM) is None


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("The expert types 60 words a minute, so in 5 minutes 300.", "An expert types 60 words a minute. How many in 5?"),
        ("The given solution has 20 g of salt.", "A beaker holds 100 ml. The given solution is 20% salt. How much salt?"),
        ("The hint is hidden in box 3.", "Anna hides a hint in one of 3 boxes."),
    ],
)
def test_words_of_the_problem_itself_are_no_leak(text: str, problem: str) -> None:
    assert LeakFilter().find(text, problem) is None
    assert LeakFilter().find(text, PROBLEM) is not None


def test_the_users_phrases_are_taken_as_they_stand() -> None:
    own = LeakFilter(["sample answer (see above)", "  "])
    assert own.find("The Sample  answer\n(see above) says", PROBLEM) == "sample answer (see above)"
    assert own.find("The sample answer", PROBLEM) is None
    assert LeakFilter(["a+"]).find("aaa", PROBLEM) is None


def test_the_phrase_is_told_in_one_form() -> None:
    assert LeakFilter().find("Per the  Reference\nSolution", PROBLEM) == "the reference solution"


@pytest.mark.parametrize("text", ["the " * 200_000, "as given in the " * 50_000, "the given " * 80_000, " " * 500_000, "I" * 500_000])
def test_a_long_trace_takes_no_time(text: str) -> None:
    start = time.process_time()
    LeakFilter().find(text, PROBLEM)
    assert time.process_time() - start < 2
