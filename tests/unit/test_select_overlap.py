"""Decontamination: copies of evaluation problems are found however they are written, ordinary wording is not."""

from __future__ import annotations

import random

import pytest

from dail_runtime.select.overlap import Overlap, words_of

WORDS = [f"w{n}" for n in range(5000)]


def text(seed: int, length: int = 40) -> str:
    return " ".join(random.Random(seed).choices(WORDS, k=length))


def test_words_ignore_case_punctuation_and_latex_spacing() -> None:
    one = words_of("Let $x=\\dfrac{1}{2}$, and \\(y \\leq 3\\).  Find \\left( x+y \\right)!")
    assert one == words_of("let  x \\, = \\frac 1 2 and y \\leq 3 find\n(x + y)")
    assert one == ["let", "x", "frac", "1", "2", "and", "y", "leq", "3", "find", "x", "y"]


def test_each_chinese_character_is_a_word_and_wide_digits_are_digits() -> None:
    assert words_of("求１２的因数。") == ["求", "12", "的", "因", "数"]


def test_a_copy_within_a_longer_text_is_found_and_told() -> None:
    copy = text(1)
    overlap = Overlap([text(0), copy], [], 13)
    assert overlap.find(f"{text(2)} {copy.upper()}!? {text(3)}") == " ".join(copy.split()[:13])
    assert overlap.find(text(4)) is None


@pytest.mark.parametrize(("shared", "found"), [(12, False), (13, True)])
def test_it_takes_n_words_in_a_row(shared: int, found: bool) -> None:
    copy = text(1)
    problem = f"{text(2)} {' '.join(copy.split()[5 : 5 + shared])} {text(3)}"
    assert (Overlap([copy], [problem], 13).find(problem) is not None) is found


def test_the_last_words_of_a_problem_count_like_the_first() -> None:
    last = " ".join(text(1).split()[-13:])
    assert Overlap([f"{text(2)} {last}"], [], 13).find(f"{text(3)} {last}") == last
    assert Overlap([last], [], 13).find(f"{text(3)} {last}") == last


def test_short_problems_must_be_equal_word_for_word() -> None:
    overlap = Overlap(["What is 2 + 2?", "What is 3+3?"], [], 13)
    assert overlap.find("what is $2+2$") == "what is 2 2"
    assert overlap.find("What is 2 + 3?") is None
    assert overlap.find("What is 2 + 2? Explain why this is so, in as few words as you can manage.") is None


ENDING = "can be written as m/n where m and n are relatively prime positive integers. Find m + n."


def test_a_manner_of_speaking_is_no_copy() -> None:
    measured = [f"{text(n)} {ENDING}" for n in range(3)]
    problem = f"{text(50)} {ENDING}"
    assert Overlap(measured, [problem], 13).find(problem) is None
    assert Overlap(measured[:1], [problem], 13).find(problem) is not None
    trained = [f"{text(100 + n)} {ENDING}" for n in range(11)]
    assert Overlap(measured[:1], trained, 13).find(trained[0]) is None


def test_a_copy_is_found_behind_a_manner_of_speaking() -> None:
    measured = [f"{text(n)} {ENDING}" for n in range(5)]
    assert Overlap(measured, measured, 13).find(f"{text(3)} {ENDING}") is not None
    changed = f"{text(3, 14)} {ENDING}"
    assert Overlap(measured, [changed], 13).find(changed) is not None


def test_a_problem_repeated_in_the_training_file_cannot_hide_its_copy() -> None:
    measured = text(1)
    trained = [f"{measured} {text(100 + n, 10)}" for n in range(30)]
    overlap = Overlap([measured], trained, 13)
    assert all(overlap.find(problem) is not None for problem in trained)


def test_the_same_evaluation_problem_in_several_sets_counts_once() -> None:
    measured = text(1)
    problem = f"{text(2)} {measured}"
    assert Overlap([measured, measured.upper(), f"{measured}!", measured], [problem], 13).find(problem) is not None
