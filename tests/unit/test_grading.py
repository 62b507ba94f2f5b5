"""What counts as the same answer, and what a response is worth."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dail_runtime.evaluate.grading import Grade, Grader
from dail_runtime.evaluate.grading.compare import MAX_TEXT, same
from dail_runtime.evaluate.grading.normalize import clean
from dail_runtime.evaluate.grading.numbers import read_number
from dail_runtime.evaluate.grading.pool import WorkerPool

SAME = {
    "numbers": r"""
        73 | 073
        1000 | 1,000
        1000 | 1{,}000
        1000 | 1\,000
        1000 | 1 000
        1,234.5 | 1234.5
        5 | +5
        5 | 5.
        5 | 5.0
        0 | -0
        5 | $5$
        5 | \(5\)
        5 | \text{5}
        5 | {5}
        5 | = 5
        5 | **5**
        -3 | −3
        (-3) | -3
        0.5 | 1/2
        0.5 | \frac12
        \frac{1}{2} | \dfrac{1}{2}
        \frac{1}{2} | .5
        \frac{2}{4} | \frac12
        -\frac{1}{2} | \frac{-1}{2}
        -\frac{1}{2} | -1/2
        1\frac{1}{2} | \frac{3}{2}
        1\frac{1}{2} | 1½
        1 1/2 | 1.5
        -1\frac12 | -1.5
        3.2\times 10^5 | 320000
        3.2\times10^{-2} | 0.032
        3.2 × 10⁵ | 320,000
        1e3 | 1000
        10^{10} | 10000000000
        0.\overline{3} | 1/3
        0.1\overline{6} | \frac16
        \frac{1}{3} | 0.333333
        \frac{1}{3} | 0.3333333333333333
        0.3 | 0.30000000000000004
        1 | 0.9999999999999999
        123_5 | 123_{5}
        15^{\text{th}} | 15
        ４２ | 42
    """,
    "percent": r"""
        50 | 50\%
        50\% | 50
        50\% | 0.5
        0.5 | 50\%
        100 | 100\text{ percent}
        12.5% | \frac{1}{8}
        \frac{1}{3} | 33.3333%
    """,
    "units": r"""
        45 | 45^\circ
        45 | 45^{\circ}
        45 | 45°
        45^\circ | 45
        45 | 45 degrees
        5 \text{ cm} | 5
        5 | 5\text{ cm}
        5 \text{ cm} | 5 centimeters
        5 \text{ cm}^2 | 5 square centimeters
        5 | 5 apples
        9.8 \text{ m/s} | 9.8 meters per second
        \$5 | 5
        5 | $5.00
        5 | 5 dollars
        72 | \$72
        72 | \mathrm{72 dollars}
        3\sqrt{5}\text{ cm} | 3\sqrt{5}
        3\sqrt{5} | 3\sqrt5\text{ cm}^2
    """,
    "several": r"""
        \{1,2\} | \{2,1\}
        \left\{1,2\right\} | \{1, 2\}
        \{1,2,3\} | 1,2,3
        \{1,2,3\} | 3,1,2
        \{5\} | 5
        5 | \{5\}
        \emptyset | \{\}
        \left(1,2\right) | (1, 2)
        \bigl(1,2\bigr) | (1, 2)
        [1,2) | \left[1,2\right)
        2,9,4 | 2, 9, 4
        2,9,4 | (2,9,4)
        2,9,4 | 02,9,4
        2,9,4 | 2, 9, and 4
        100,200 | (100,200)
        3,5,7,12,13,127 | 3, 5, 7, 12, 13, 127
        (1,2),(3,4) | (1, 2), (3, 4)
        x=1 \text{ or } x=2 | 2, 1
        1,2 | x=1 or x=2
        1,2 | x=2 or x=1
        1,2 | x=2, x=1
        12 \text{ and } 15 | 15 and 12
        x=1,y=2 | y=2,x=1
        a=3, b=4 | 3,4
        (x,y)=(1,2) | (1,2)
        1\pm\sqrt{2} | 1+\sqrt{2}, 1-\sqrt{2}
        1-\sqrt2,1+\sqrt2 | 1\pm\sqrt{2}
        \pm 3 | 3,-3
        (-\infty,-1)\cup(1,\infty) | (-\infty, -1) \cup (1, \infty)
        (-\infty,-1)\cup(1,\infty) | (1,\infty)∪(-\infty,-1)
        \begin{pmatrix}1&2\\3&4\end{pmatrix} | \begin{bmatrix} 1 & 2 \\ 3 & 4 \end{bmatrix}
        \begin{pmatrix}\frac12\\2\end{pmatrix} | \begin{pmatrix}0.5\\2\end{pmatrix}
    """,
    "equations": r"""
        x=5 | 5
        5 | x = 5
        y=2x+3 | 2x+3
        2x+3 | y=2x+3
        f(x)=x^2 | x^2
        x \in [1,2] | [1,2]
    """,
    "words": r"""
        \text{Evelyn} | evelyn
        \text{yes} | Yes.
        \text{east} | East
        \text{no solution} | No solution
        12:30 | 12:30
    """,
    "choices": r"""
        C | \text{(C)}
        C | C. 12
        C | (C) 12
        C | \mathrm{C}
        C | Option C
        (C) | C
        (A) 3 | A
        (A) 3 | 3
        A, C | A,C
    """,
    "algebra": r"""
        2\pi | 2π
        \frac{\pi}{2} | pi/2
        \frac{3\pi}{2} | 1.5\pi
        \sqrt{8} | 2\sqrt{2}
        √8 | 2√2
        \frac{\sqrt{3}}{2} | \frac{1}{2}\sqrt{3}
        p\sqrt{q} | \sqrt{q}p
        x^2-1 | (x-1)(x+1)
        x^2+y^2=1 | y^2+x^2=1
        x>3 | (3,\infty)
        [0,1] | 0\le x\le 1
        \binom{5}{2} | 10
        120 | 5!
        2^{10} | 1024
        10 | 5+5
        3.14159265 | \pi
        6 - 5i | -5i+6
    """,
}
DIFFERENT = {
    "numbers": r"""
        \frac{1}{2} | \frac{1}{3}
        \frac{1}{3} | 0.33
        1 1/2 | 11/2
        123_5 | 123_6
        5 | 6
        5 | -5
        5 | 5x
        5 | 5!
        1,23 | 123
        5 5 | 10
        10 | 5 5
        1:2 | 2:4
        \frac{1}{0} | 5
        0.1 | 0.11
        100001 | 100000.9
        1 | 1.0000001
        5 | five
        5 | .
    """,
    "percent": r"""
        50 | 0.5
        50\% | 5
        \frac{1}{3} | 33.3433%
    """,
    "units": r"""
        5 \text{ cm} | 5 \text{ m}
        5 \text{ cm} | 5 \text{ cm}^2
        5 | 5 or six
        5 | 5 or 6
        5 | 5\text{ or maybe }6
        5 | 5 and a half
        2h | 2
        5c | 5d
    """,
    "several": r"""
        \{1,2\} | (1,2)
        (1,2) | \{1,2\}
        (1,2) | (2,1)
        (1,2) | [1,2]
        [1,2) | (1,2]
        2,9,4 | 294
        294 | 2,9,4
        2,9,4 | 2,4,9
        2,9,4 | 2,9
        2,9,4 | 2,9,4,4
        1,-2 | -2,1
        \{1,1\} | \{1,2\}
        x=1,y=2 | x=2,y=1
        (1,2),(3,4) | (3,4),(1,2)
        \pm 3 | 3
        (-\infty,-1)\cup(1,\infty) | (-\infty, -1] \cup (1, \infty)
        \begin{pmatrix}1\\2\end{pmatrix} | \begin{pmatrix}1&2\end{pmatrix}
        \begin{pmatrix}1&2\end{pmatrix} | \begin{pmatrix}1&3\end{pmatrix}
    """,
    "equations": r"""
        y=5 | x=5
        x=5 | x=6
    """,
    "words": r"""
        Evelyn | Eve
        no | yes
        tea | eat
        \text{Monday} | Tuesday
    """,
    "choices": r"""
        C | (B)
        C | B. C
        C | 12
        A, C | A
        (a) 3, (b) 4 | (a) 4
    """,
    "algebra": r"""
        \sqrt{8} | 2\sqrt{3}
        3.14 | \pi
        i | -i
        x+1 | x+2
        x>3 | [3,\infty)
    """,
}


def rows(table: dict[str, str]) -> list[tuple[str, str]]:
    lines = [line.strip() for block in table.values() for line in block.strip().splitlines()]
    return [(gold, answer) for gold, _, answer in (line.partition(" | ") for line in lines)]


@pytest.fixture(scope="module")
def grader() -> Iterator[Grader]:
    with Grader(workers=1, seconds=20) as one:
        yield one


@pytest.mark.parametrize(("gold", "answer"), rows(SAME))
def test_these_answers_are_the_same(grader: Grader, gold: str, answer: str) -> None:
    assert grader.same(gold, answer)


@pytest.mark.parametrize(("gold", "answer"), rows(DIFFERENT))
def test_these_answers_differ(grader: Grader, gold: str, answer: str) -> None:
    assert not grader.same(gold, answer)


@pytest.mark.parametrize("name", ["numbers", "percent", "several", "equations", "words", "choices"])
def test_only_algebra_needs_a_worker(name: str) -> None:
    assert all(same(gold, answer, symbolic=lambda _gold, _answer: None) for gold, answer in rows({name: SAME[name]}))


@pytest.mark.parametrize(
    ("response", "answer", "verdict", "extracted"),
    [
        (r"so \boxed{073}", "73", "right", "073"),
        (r"so \boxed{74}", "73", "wrong", "74"),
        (r"\boxed{8} no wait \boxed{7}", "7", "right", "7"),
        (r"\boxed{8} no wait \boxed{7}", "8", "wrong", "7"),
        (r"\boxed{1} and \boxed{2}", "1", "wrong", "2"),
        (r"\boxed{\frac{1}{2}}", r"$\frac{1}{2}$", "right", r"\frac{1}{2}"),
        (r"\boxed{\frac{1}{2}}", r"\frac{1}{3}", "wrong", r"\frac{1}{2}"),
        (r"\boxed{\frac{1}{2}", r"\frac{1}{2}", "unparsed", None),
        (r"\boxed{}", "5", "unparsed", None),
        (r"\boxed{@@@}", "5", "wrong", "@@@"),
        ("the answer is 5", "5", "unparsed", None),
        ("", "5", "unparsed", None),
        (r"\boxed{5}", "", "wrong", "5"),
    ],
)
def test_the_box_alone_decides_the_verdict(grader: Grader, response: str, answer: str, verdict: str, extracted: str | None) -> None:
    grade = grader.grade(response, answer)
    assert (grade.verdict, grade.extracted) == (verdict, extracted)


@pytest.mark.parametrize(
    ("response", "verdict"),
    [
        (r"<think>\boxed{5}</think> So \boxed{5}.", "right"),
        (r"<think>\boxed{5}</think> So \boxed{6}.", "wrong"),
        (r"<think>\boxed{5}</think> Done.", "unparsed"),
        (r"<think>\boxed{5}", "unparsed"),
        (r"\boxed{5}", "unparsed"),
        (r"</think> \boxed{4} </think> \boxed{5}", "right"),
    ],
)
def test_of_a_thinking_model_only_the_answer_part_is_graded(grader: Grader, response: str, verdict: str) -> None:
    assert grader.grade(response, "5", thinking=True).verdict == verdict


@pytest.mark.parametrize(
    ("response", "thinking", "lenient"),
    [
        ("The answer is 28 dollars.", False, True),
        ("6 * 3 = 18 and 18 + 10 = 28", False, True),
        ("28 + 1 = 29", False, False),
        ("28\n#### 29", False, False),
        ("#### 28", False, True),
        (r"\boxed{28}", False, True),
        (r"The answer is 28. \boxed{29}", False, False),
        (r"The answer is 28, \boxed{", False, True),
        ("<think>the answer is 28", True, False),
        ("<think>29</think>the answer is 28", True, True),
    ],
)
def test_the_lenient_figure_reads_looser_forms_where_there_is_no_box(grader: Grader, response: str, thinking: bool, lenient: bool) -> None:
    assert grader.grade(response, "28", thinking=thinking).lenient is lenient


def test_many_responses_come_back_in_order_and_each_pair_is_compared_once(grader: Grader, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, str]] = []
    compare = WorkerPool.compare

    def counting(self: WorkerPool, pairs: list[tuple[str, str]]) -> list[str]:
        asked.extend(pairs)
        return list(compare(self, pairs))

    monkeypatch.setattr(WorkerPool, "compare", counting)
    responses = [(r"\boxed{\sqrt{18}}", r"3\sqrt{2}"), ("none", r"3\sqrt{2}"), (r"\boxed{\sqrt{19}}", r"3\sqrt{2}")] * 50
    grades = grader.grade_many(responses)
    grades += grader.grade_many(responses)
    assert [grade.verdict for grade in grades] == ["right", "unparsed", "wrong"] * 100
    assert sorted(asked) == sorted([(r"3\sqrt{2}", r"\sqrt{18}"), (r"3\sqrt{2}", r"\sqrt{19}")])
    assert grades[0] == Grade("right", r"\sqrt{18}", True)


def test_a_list_of_digits_is_never_read_as_one_number() -> None:
    assert read_number("2,9,4") is None
    assert read_number("1,000,00") is None
    number = read_number("1,000")
    assert number is not None
    assert number.value == 1000


def test_a_longer_answer_than_any_is_compared_character_by_character() -> None:
    long = "7" * (MAX_TEXT + 1)
    assert same(long, long, lambda _gold, _answer: None) is True
    assert same(long, long[:-1] + "8", lambda _gold, _answer: None) is False


COMMANDS = r"""\frac \sqrt \text{ \left( \right) \{ \} \pm \cup \begin{pmatrix} \end{pmatrix} \\ \overline{ x= \in (A) \infty \% ^\circ"""
PIECES = ["or ", " and ", *COMMANDS.split(), *"0123456789xy+-*/^_=<>(){}[],.;:|!%$ \\&°½√π"]
LATEX = st.lists(st.sampled_from(PIECES), max_size=25).map("".join)


@given(LATEX | st.text(max_size=40), LATEX | st.text(max_size=40))
def test_whatever_the_answers_hold_comparing_ends_in_a_verdict(gold: str, answer: str) -> None:
    assert same(gold, answer, lambda _gold, _answer: False) in (True, False)
    assert same(gold, gold, lambda _gold, _answer: False) is bool(clean(gold))


@given(st.integers(-(10**9), 10**9), st.integers(1, 10**6))
def test_a_fraction_equals_itself_in_every_spelling(over: int, under: int) -> None:
    spellings = [rf"\frac{{{over}}}{{{under}}}", f"{over}/{under}", rf"$\dfrac{{{over}}}{{{under}}}$."]
    assert all(same(one, two, lambda _gold, _answer: None) for one in spellings for two in spellings)
    assert same(spellings[0], f"{over + 1}/{under}", lambda _gold, _answer: None) is False
