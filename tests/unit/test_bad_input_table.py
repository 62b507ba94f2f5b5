"""Bad input, by the library's own doors: whatever is wrong with a job file or its data is told in sentences, and nothing is written.

Each row spoils one thing of a good folder and goes the whole way: load_job, resolve_paths, content_of, plan, prepare.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from dail_runtime.errors import DailError, DataError, ModelError, SpecError
from dail_runtime.spec import plan
from dail_runtime.spec.content import content_of
from dail_runtime.spec.load import load_job, resolve_paths
from dail_runtime.stages import prepare
from dail_runtime.stages.base import StageContext
from dail_runtime.store import open_store
from tests.support.cli import tree
from tests.support.rollouts import Silent

JOB = """\
apiVersion: dail/v1alpha1
kind: DailJob
metadata: {name: one}
spec:
  model: {id: owner/model}
  data:
    solutions: x.jsonl
    evaluation: [{name: test, path: t.jsonl}]
"""
ROW = b'{"id": "a", "problem": "1+1?", "solution": "It is \\\\boxed{2}."}\n'
TEST = b'{"problem": "3+4?", "answer": 7}\n'

Spoil = Callable[[Path], object]


def row(text: bytes) -> Spoil:
    """A second row in the solutions file."""
    return lambda folder: (folder / "x.jsonl").write_bytes(ROW + text + b"\n")


def file(name: str, content: bytes) -> Spoil:
    """A file of that name and content."""
    return lambda folder: (folder / name).write_bytes(content)


def solutions(name: str, content: bytes) -> Spoil:
    """Another solutions file."""

    def spoil(folder: Path) -> None:
        (folder / name).write_bytes(content)
        (folder / "job.yaml").write_text(JOB.replace("x.jsonl", name))

    return spoil


def line(text: str) -> Spoil:
    """One more line below `spec`: line 9."""
    return lambda folder: (folder / "job.yaml").write_text(f"{JOB}  {text}\n")


def change(old: str, new: str) -> Spoil:
    """Another text in the job file."""

    def spoil(folder: Path) -> None:
        assert old in JOB
        (folder / "job.yaml").write_text(JOB.replace(old, new))

    return spoil


def not_utf8(folder: Path) -> None:
    """A link to a solutions file whose name holds a byte that no text holds."""
    odd = folder / os.fsdecode(b"x\xff.jsonl")
    (folder / "x.jsonl").rename(odd)
    (folder / "x.jsonl").symlink_to(odd)


@dataclass(frozen=True)
class Bad:
    """One way to be wrong."""

    name: str
    spoil: Spoil
    kind: type[DailError]
    place: str
    """What some line begins with."""
    told: str
    """What that line says."""


TABLE = [
    # The job file as a text.
    Bad("no file", lambda folder: (folder / "job.yaml").unlink(), SpecError, "job.yaml: ", "there is no such file"),
    Bad(
        "a folder",
        lambda folder: (folder / "job.yaml").rename(folder / "j") and (folder / "job.yaml").mkdir(),
        SpecError,
        "job.yaml: ",
        "folder",
    ),
    Bad("empty", file("job.yaml", b"\n"), SpecError, "job.yaml: ", "the file is empty"),
    Bad("binary", file("job.yaml", bytes(range(256))), SpecError, "job.yaml:", "is not UTF-8"),
    Bad("zeros", file("job.yaml", bytes(100)), SpecError, "job.yaml:1:1: ", "U+0000"),
    Bad("10 MB", file("job.yaml", b"#" * 10_000_000), SpecError, "job.yaml: ", "larger than 256 KiB"),
    Bad("a list", file("job.yaml", b"- a\n"), SpecError, "job.yaml:1:1: ", "not a mapping"),
    Bad("a tab", change("    solutions", "\tsolutions"), SpecError, "job.yaml:7:1: ", "a tab"),
    Bad("an open bracket", change("one}", "one"), SpecError, "job.yaml:4:", "from line 3"),
    Bad(
        "two documents", lambda folder: (folder / "job.yaml").write_text(f"{JOB}---\n{JOB}"), SpecError, "job.yaml:9:1: ", "second document"
    ),
    Bad("another tool's file", file("job.yaml", b"kind: Pod\nspec: {}\n"), SpecError, "job.yaml:1:7: ", "write kind: DailJob"),
    Bad("a key twice", change("  model:", "  model: {}\n  model:"), SpecError, "job.yaml:6:3: ", "already on line 5"),
    Bad("code in a tag", line("seed: !!python/name:os.system x"), SpecError, "job.yaml:9:9: ", "not allowed"),
    # Its fields.
    Bad("a slip in a name", line("trian: {}"), SpecError, "job.yaml:9:3: ", "did you mean train?"),
    Bad("snake case", line("train: {batch_size: 4}"), SpecError, "job.yaml:9:11: ", "did you mean batchSize?"),
    Bad("a field one level up", line("samples: 4"), SpecError, "job.yaml:9:3: ", "it belongs under spec.evaluate"),
    Bad("nothing where a group belongs", line("train:"), SpecError, "job.yaml:9:", "is empty"),
    Bad("a word for a number", line("train: {epochs: five}"), SpecError, "job.yaml:9:19: ", "expects a number, not 'five'"),
    Bad("a number out of range", line("rewrite: {topP: 1.5}"), SpecError, "job.yaml:9:19: ", "at most 1"),
    Bad("true for a number", line("train: {batchSize: true}"), SpecError, "job.yaml:9:22: ", "expects a number"),
    Bad("a leading zero", line("seed: 0123"), SpecError, "job.yaml:9:9: ", "write 123"),
    Bad("infinity", line("train: {weightDecay: .inf}"), SpecError, "job.yaml:9:24: ", "not a finite number"),
    Bad("gamma of 1", line("train: {gamma: 1.0}"), SpecError, "job.yaml:9:18: ", "less than 1"),
    Bad(
        "a budget over the limit",
        line("evaluate: {maxTokens: 10, budgets: [20]}"),
        SpecError,
        "job.yaml:9:",
        "raise maxTokens or lower the budget",
    ),
    Bad(
        "a variant's slip",
        line("variants: {a: {train: {epoch: 1}}}"),
        SpecError,
        "job.yaml:9:26: spec.variants.a.train.epoch",
        "did you mean epochs?",
    ),
    Bad(
        "a token",
        line("cluster: {secrets: {hfToken: hf_" + "aB3" * 12 + "}}"),
        SpecError,
        "job.yaml:9:32: ",
        "looks like a Hugging Face token",
    ),
    Bad("one set twice", change("}]", "}, {name: test, path: t.jsonl}]"), SpecError, "job.yaml:8:", "give each its own name"),
    # What it names.
    Bad("no solutions file", change("x.jsonl", "z.jsonl"), DataError, "data.solutions: ", "z.jsonl: there is no such file; did you mean"),
    Bad("no evaluation file", change("t.jsonl", "sets/t.jsonl"), DataError, "data.evaluation.0.path: ", "there is no such file"),
    Bad("a web address", change("x.jsonl", "https://example.org/x.jsonl"), DataError, "data.solutions: ", "download it first"),
    Bad("nobody's home", change("x.jsonl", "~nobody-here/x.jsonl"), SpecError, "data.solutions: ", "is no path on this machine"),
    Bad("a NUL in a path", change("x.jsonl", '"x\\0.jsonl"'), SpecError, "data.solutions: ", "is no path on this machine"),
    Bad("a path that is not UTF-8", not_utf8, SpecError, "data.solutions: ", "not UTF-8; rename"),
    Bad("no model folder", change("owner/model", "./model"), ModelError, "model.id: ", "there is no such folder"),
    Bad("no model package", change("owner/model", "python:no-such"), ModelError, "model.id: ", "install it"),
    # The data files.
    Bad("no rows", file("x.jsonl", b"\n\n"), DataError, "x.jsonl: ", "has no rows"),
    Bad("an unknown ending", solutions("x.csv", b"a,b\n"), DataError, "x.csv: ", "the ending .csv is none of"),
    Bad("lines called json", solutions("x.json", ROW + ROW), DataError, "x.json: ", "write data.format: jsonl"),
    Bad("a cut-off json file", solutions("x.json", b"[\n" + ROW.strip() + b",\n" + ROW[:30]), DataError, "x.json:3: ", "breaks off"),
    Bad("no parquet", solutions("x.parquet", b"PAR1"), DataError, "x.parquet: ", "check that it is a whole parquet file"),
    Bad("no gzip", solutions("x.jsonl.gz", ROW), DataError, "x.jsonl.gz: ", "damaged or cut off"),
    Bad(
        "unknown columns",
        file("x.jsonl", b'{"text": "1+1?", "reply": "2"}\n'),
        DataError,
        "x.jsonl: ",
        "the columns are: text, reply; name one in data",
    ),
    Bad("two problem columns", file("x.jsonl", ROW.replace(b'"id"', b'"question"')), DataError, "x.jsonl: ", "say which"),
    Bad(
        "a mapped column that is not there",
        change("solutions:", "columns: {problem: q}\n    solutions:"),
        DataError,
        "x.jsonl: ",
        "its columns are",
    ),
    # Their rows.
    Bad("a broken row", row(b'{"problem": '), DataError, "x.jsonl:2: ", "breaks off before its end"),
    Bad("two rows on a line", row(ROW.strip() * 2), DataError, "x.jsonl:2: ", "each row on a line of its own"),
    Bad("a row that is a list", row(b"[]"), DataError, "x.jsonl:2: ", "not an object of columns"),
    Bad("a row not in UTF-8", row(b'{"problem": "\xe4"}'), DataError, "x.jsonl:2: ", "0xE4 at column 14 is not UTF-8"),
    Bad("half a pair", row(b'{"problem": "\\ud800", "solution": "s"}'), DataError, "x.jsonl:2: ", "half a \\u pair"),
    Bad("a line of 10 MB", row(b'{"problem": "' + b"x" * 10_000_000 + b'"}'), DataError, "x.jsonl:2: ", "more than 8 MiB"),
    Bad("a row without a column", row(b'{"id": "b", "problem": "p"}'), DataError, "x.jsonl:2: ", "the row has no column 'solution'"),
    Bad(
        "an empty solution",
        row(b'{"id": "b", "problem": "p", "solution": " "}'),
        DataError,
        "x.jsonl:2: ",
        "'solution' is empty; fill it in",
    ),
    Bad("NaN for a solution", row(b'{"id": "b", "problem": "p", "solution": NaN}'), DataError, "x.jsonl:2: ", "'solution' is empty"),
    Bad(
        "a nested problem",
        row(b'{"id": "b", "problem": {"t": 1}, "solution": "s"}'),
        DataError,
        "x.jsonl:2: ",
        "holds an object where a text belongs",
    ),
    Bad(
        "an id twice",
        row(b'{"id": "a", "problem": "2+2?", "solution": "s"}'),
        DataError,
        "x.jsonl:2: ",
        "the id 'a' stands for another problem",
    ),
    Bad(
        "two answers",
        row(b'{"id": "a", "problem": "1+1?", "solution": "\\\\boxed{3}"}'),
        DataError,
        "x.jsonl:2: ",
        "answers the same problem with '2'",
    ),
    Bad(
        "a test without its answer",
        file("t.jsonl", TEST + b'{"problem": "5+5?"}\n'),
        DataError,
        "t.jsonl:2: ",
        "which an evaluation set needs; add it",
    ),
    Bad(
        "proofs to be graded",
        file("x.jsonl", b'{"problem": "Show it.", "solution": "Clear."}\n'),
        DataError,
        "x.jsonl: ",
        "requireCorrect: false",
    ),
    Bad(
        "one row to hold out",
        change("[{name: test, path: t.jsonl}]", "[]"),
        DataError,
        "data.evaluation is empty",
        "name a file of problems",
    ),
]


def go(folder: Path) -> None:
    """The whole way of a job up to its first results."""
    job = resolve_paths(load_job(folder / "job.yaml"), folder)
    task = plan(job, content_of(job))[0]
    out = open_store(job.spec.storage.uri).at("one").at(task.prefix)
    prepare.run(StageContext(job=job, task=task, run=out, out=out, inputs={}, progress=Silent()))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder in which nothing is wrong."""
    for name, content in {"job.yaml": JOB.encode(), "x.jsonl": ROW, "t.jsonl": TEST}.items():
        (tmp_path / name).write_bytes(content)
    return tmp_path


def test_the_good_folder_is_good(folder: Path) -> None:
    go(folder)
    assert {path.name for path in folder.rglob("*.jsonl")} == {"x.jsonl", "t.jsonl", "problems.jsonl", "test.jsonl"}


@pytest.mark.parametrize("bad", TABLE, ids=lambda bad: bad.name)
def test_bad_input_is_told_with_place_and_remedy_and_writes_nothing(bad: Bad, folder: Path) -> None:
    bad.spoil(folder)
    before = tree(folder)
    with pytest.raises(DailError) as caught:
        go(folder)
    assert type(caught.value) is bad.kind
    assert 2 <= caught.value.exit_code <= 63
    lines = str(caught.value).replace(f"{folder}/", "").splitlines()
    fitting = [line for line in lines if line.startswith(bad.place) and bad.told in line]
    assert fitting, lines
    assert all(re.search("[;?]", line) for line in lines), "no remedy"
    assert not re.search(r"Traceback|Input should|Errno|pydantic|<class", str(caught.value))
    assert tree(folder) == before


def test_the_table_is_long_and_no_two_rows_are_the_same() -> None:
    assert len(TABLE) >= 30
    assert len({bad.name for bad in TABLE}) == len(TABLE)
