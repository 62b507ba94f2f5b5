"""The word problems of this example, as an expert would note their solutions down, and the script that writes the data files.

`python -m examples.smollm.words` checks every step of every solution and writes the files. The training problems come in three
layouts that are common for such data; the job reads any of them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).parent


class Word(NamedTuple):
    """A problem with its solution."""

    problem: str
    steps: str
    """`a op b = c`, one after the other; the last c is the answer."""

    @property
    def answer(self) -> str:
        """The last result."""
        return self.steps.rpartition("= ")[2]


TRAINING = [
    Word("Mia has 4 bags with 6 marbles each. She finds 5 more marbles. How many marbles does she have?", "4 * 6 = 24, 24 + 5 = 29"),
    Word("A baker makes 30 rolls and sells 18 of them. Then he bakes 12 more. How many rolls are there now?", "30 - 18 = 12, 12 + 12 = 24"),
    Word("Tom buys 3 pens at $2 each and a book for $9. How much does he pay?", "3 * 2 = 6, 6 + 9 = 15"),
    Word("There are 5 rows of 8 chairs. 7 chairs are broken. How many chairs can be used?", "5 * 8 = 40, 40 - 7 = 33"),
    Word("Lena reads 12 pages on Monday and 15 pages on Tuesday. How many pages does she read in all?", "12 + 15 = 27"),
    Word("A farmer has 20 hens. Each of 9 hens lays 2 eggs. How many eggs are there?", "9 * 2 = 18"),
    Word("Sam has 50 cents. He buys a sticker for 7 cents. How many cents are left?", "50 - 7 = 43"),
    Word("36 children form teams of 4. Then 2 more teams join. How many teams are there?", "36 / 4 = 9, 9 + 2 = 11"),
    Word("Ana is 7 years old. Her father is 5 times as old. How old is he?", "7 * 5 = 35"),
    Word("A bus has 15 people on it. 6 get off and 10 get on. How many people are on the bus?", "15 - 6 = 9, 9 + 10 = 19"),
    Word("Ben runs 3 miles a day for 6 days and 5 miles on the seventh day. How many miles does he run?", "3 * 6 = 18, 18 + 5 = 23"),
    Word("A box holds 24 pencils. Three friends share 2 boxes equally. How many pencils does each get?", "24 * 2 = 48, 48 / 3 = 16"),
    Word("Kim picks 14 apples and Joe picks 9. They eat 5. How many apples are left?", "14 + 9 = 23, 23 - 5 = 18"),
    Word("A ticket costs $6 for a child and $10 for an adult. What do 4 children and 1 adult pay?", "4 * 6 = 24, 24 + 10 = 34"),
    Word("There are 45 birds in a tree. 17 fly away and then 8 come back. How many birds are in the tree?", "45 - 17 = 28, 28 + 8 = 36"),
    Word("Nora saves $5 a week. How much does she save in 8 weeks?", "5 * 8 = 40"),
    Word("A rope is 60 feet long. It is cut into 5 equal pieces. How long are 2 of them together?", "60 / 5 = 12, 12 * 2 = 24"),
    Word("A spider has 8 legs and an ant has 6. How many legs do 2 spiders and 3 ants have?", "2 * 8 = 16, 3 * 6 = 18, 16 + 18 = 34"),
    Word("Paul has 3 red cars and 4 times as many blue cars. How many cars has he in all?", "3 * 4 = 12, 3 + 12 = 15"),
    Word("A class of 28 has 13 girls. 4 boys are ill. How many boys are in class?", "28 - 13 = 15, 15 - 4 = 11"),
    Word("A pizza has 8 slices. How many slices do 3 pizzas have?", "3 * 8 = 24"),
    Word("Rosa plants 6 rows of 5 tulips and 10 roses. How many flowers does she plant?", "6 * 5 = 30, 30 + 10 = 40"),
    Word("A train goes 40 miles in an hour. How far does it go in 2 hours, if it then goes 15 miles more?", "40 * 2 = 80, 80 + 15 = 95"),
    Word("There are 54 cookies. 6 children share them equally. How many does each get?", "54 / 6 = 9"),
    Word("Ida has 16 stamps. She gets 7 from her aunt and gives 4 to her brother. How many has she now?", "16 + 7 = 23, 23 - 4 = 19"),
    Word("A shop sells milk at $3 and bread at $4. What do 5 milks and 2 breads cost?", "5 * 3 = 15, 2 * 4 = 8, 15 + 8 = 23"),
    Word("Max has $70. He buys 2 shirts at $18 each. How much money is left?", "2 * 18 = 36, 70 - 36 = 34"),
    Word("A garden has 7 trees with 9 pears each. How many pears are there?", "7 * 9 = 63"),
    Word("Eva does 11 sums in the morning and 3 times as many later. How many sums does she do in all?", "11 * 3 = 33, 11 + 33 = 44"),
    Word("A jar has 80 beans. Half of them are taken out and then 6 are put back. How many are in the jar?", "80 / 2 = 40, 40 + 6 = 46"),
    Word("Leo walks 2 miles to school and 2 miles back. How many miles does he walk in 5 days?", "2 + 2 = 4, 4 * 5 = 20"),
    Word("A hotel has 4 floors with 12 rooms each. 30 rooms are taken. How many are free?", "4 * 12 = 48, 48 - 30 = 18"),
    Word("Zoe has 9 dolls, which is 4 more than Ivy has. How many dolls have they in all?", "9 - 4 = 5, 9 + 5 = 14"),
    Word("A cow gives 7 liters of milk a day. How much do 3 cows give in 2 days?", "7 * 3 = 21, 21 * 2 = 42"),
    Word("There are 22 ducks and 13 swans on a lake. 9 more ducks come. How many birds are there?", "22 + 13 = 35, 35 + 9 = 44"),
    Word("A book has 90 pages. Finn reads 15 pages a day for 4 days. How many pages are left?", "15 * 4 = 60, 90 - 60 = 30"),
    Word("Each of 6 tables has 4 legs. How many legs are there?", "6 * 4 = 24"),
    Word("Amy bakes 5 trays of 10 muffins and gives away 26. How many muffins has she?", "5 * 10 = 50, 50 - 26 = 24"),
    Word("A ship has 64 crates. 8 trucks share them equally. How many crates do 3 trucks carry?", "64 / 8 = 8, 8 * 3 = 24"),
    Word("Olga buys 7 eggs at $1 each and 2 cakes at $11 each. How much does she pay?", "2 * 11 = 22, 7 + 22 = 29"),
    Word("A team scores 21 points, then 14, then 8. How many points is that in all?", "21 + 14 = 35, 35 + 8 = 43"),
    Word("Carl has 48 cards. He loses a third of them and wins 10. How many has he now?", "48 / 3 = 16, 48 - 16 = 32, 32 + 10 = 42"),
    Word("A candle is 20 inches long. It burns down by 9 inches. How long is it then?", "20 - 9 = 11"),
    Word("A van carries 9 boxes a trip. It makes 5 trips, and 4 boxes remain. How many boxes were there?", "9 * 5 = 45, 45 + 4 = 49"),
    Word("Uma has 27 beads on one string and 18 on another. She takes off 6. How many beads are left?", "27 + 18 = 45, 45 - 6 = 39"),
    Word("A cat eats 2 cans a day. How many cans do 4 cats eat in 6 days?", "2 * 4 = 8, 8 * 6 = 48"),
    Word("There are 100 seats. 37 are taken and 25 are reserved. How many are free?", "37 + 25 = 62, 100 - 62 = 38"),
    Word("Hal earns $8 an hour. He works 5 hours and pays $7 for lunch. How much does he keep?", "8 * 5 = 40, 40 - 7 = 33"),
]  # fmt: skip

EVALUATION = [
    Word("Gus has 3 boxes with 7 toys each. He gets 4 more toys. How many toys does he have?", "3 * 7 = 21, 21 + 4 = 25"),
    Word("A store has 40 lamps and sells 16 of them. Then 9 more arrive. How many lamps are there now?", "40 - 16 = 24, 24 + 9 = 33"),
    Word("Pia buys 4 cups at $3 each and a plate for $8. How much does she pay?", "4 * 3 = 12, 12 + 8 = 20"),
    Word("There are 6 shelves of 9 jars. How many jars are there?", "6 * 9 = 54"),
    Word("Dan swims 10 laps on Friday and 14 laps on Saturday. How many laps is that in all?", "10 + 14 = 24"),
    Word("Eli has $60. He buys a plant for $8. How much money is left?", "60 - 8 = 52"),
    Word("42 players form groups of 6. Then 3 more groups come. How many groups are there?", "42 / 6 = 7, 7 + 3 = 10"),
    Word("A bus has 24 people on it. 11 get off and 5 get on. How many people are on the bus?", "24 - 11 = 13, 13 + 5 = 18"),
    Word("Ruth saves $6 a week. How much does she save in 7 weeks?", "6 * 7 = 42"),
    Word("Ned picks 17 plums and May picks 8. They eat 6. How many plums are left?", "17 + 8 = 25, 25 - 6 = 19"),
    Word("A dog has 4 legs. How many legs do 5 dogs have?", "5 * 4 = 20"),
    Word("Iris has 6 green balls and 3 times as many white balls. How many balls has she in all?", "6 * 3 = 18, 6 + 18 = 24"),
    Word("A film lasts 90 minutes. Jan has seen 35 minutes and then 20 more. How many minutes are left?", "35 + 20 = 55, 90 - 55 = 35"),
    Word("A pie has 6 slices. How many slices do 5 pies have?", "5 * 6 = 30"),
    Word("Vera drives 30 miles and then 12 miles more. How far does she drive?", "30 + 12 = 42"),
    Word("There are 72 nuts. 8 squirrels share them equally. How many does each get?", "72 / 8 = 9"),
]  # fmt: skip

_STEP = re.compile(r"(\d+) ([-+*/]) (\d+) = (\d+)")


def check(word: Word) -> None:
    """Raise ValueError where a step is wrong, or uses a number that neither the problem nor an earlier step gives."""
    said = {"Half": 2, "third": 3, "Three": 3}
    known = {int(number) for number in re.findall(r"\d+", word.problem)} | {value for text, value in said.items() if text in word.problem}
    for step in word.steps.split(", "):
        match = _STEP.fullmatch(step)
        if match is None:
            raise ValueError(f"not a step: {step!r} in {word}")
        a, b, result = int(match[1]), int(match[3]), int(match[4])
        right = {"+": a + b, "-": a - b, "*": a * b, "/": a / b}[match[2]]
        if right != result or not {a, b} <= known:
            raise ValueError(f"wrong step: {step!r} in {word}")
        known.add(result)


def files() -> dict[str, str]:
    """Name -> content of every data file."""
    words = [*TRAINING, *EVALUATION]
    for word in words:
        check(word)
    if len({word.problem for word in words}) != len(words):
        raise ValueError("a problem occurs twice")
    gsm8k = [{"question": one.problem, "answer": f"{one.steps}\n#### {one.answer}"} for one in TRAINING]
    boxed = [{"problem": one.problem, "solution": f"${_boxed(one)}$"} for one in TRAINING]
    columns = [
        {"id": f"word-{number:02}", "question": one.problem, "solution": f"{one.steps}.", "answer": one.answer}
        for number, one in enumerate(TRAINING, start=1)
    ]
    evaluation = [
        {"id": f"test-{number:02}", "problem": one.problem, "answer": one.answer} for number, one in enumerate(EVALUATION, start=1)
    ]
    return {
        "gsm8k.jsonl": _lines(gsm8k),
        "boxed.jsonl": _lines(boxed),
        "columns.json": json.dumps(columns, indent=1) + "\n",
        "test.jsonl": _lines(evaluation),
    }


def _boxed(word: Word) -> str:
    steps = word.steps.replace("*", r"\cdot")
    return steps.removesuffix(word.answer) + f"\\boxed{{{word.answer}}}"


def _lines(rows: Iterable[dict[str, str]]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


if __name__ == "__main__":
    for name, content in files().items():
        (HERE / name).write_text(content, encoding="utf-8")
        print(f"{HERE / name}: {content.count(chr(10))} lines")
