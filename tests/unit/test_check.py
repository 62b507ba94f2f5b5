"""The teacher check: scores against plain forward passes, accuracies against known answers, and the sentence."""

from __future__ import annotations

import json
import random
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import PreTrainedModel

from dail_runtime.check import scoring
from dail_runtime.check.records import TEACHER, Accuracy, TeacherCheck, TraceFigures
from dail_runtime.check.verdict import verdict
from dail_runtime.errors import Interrupted
from dail_runtime.evaluate.records import Interval
from dail_runtime.models import load_model, load_tokenizer
from dail_runtime.records import Kept, Problem, to_jsonl
from dail_runtime.spec import DailJob, plan
from dail_runtime.spec.model import ModelSpec
from dail_runtime.stages import check
from dail_runtime.stages.base import StageContext
from dail_runtime.store import Store, open_store
from dail_runtime.train.data import Row
from tests.support.evaluating import Notes, Script, ScriptedEngine, chance
from tests.support.tiny import make_tiny_model


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def model(folder: Path) -> PreTrainedModel:
    return load_model(ModelSpec(id=str(folder)), device=torch.device("cpu"))


def ids(seed: int, length: int) -> tuple[int, ...]:
    source = random.Random(seed)
    return tuple(source.randrange(20, 300) for _ in range(length))


def row(seed: int, response: int) -> Row:
    return Row("x", {"student": ids(seed, 9), "teacher": ids(seed + 1, 40), "negative": ids(seed + 2, 21)}, ids(seed + 3, response))


@torch.inference_mode()
def plain(model: PreTrainedModel, prompt: tuple[int, ...], response: tuple[int, ...]) -> torch.Tensor:
    """Log-probabilities of the rows that predict the response, from one forward pass over everything."""
    logits = model(torch.tensor([[*prompt, *response]])).logits[0]
    return torch.log_softmax(logits[len(prompt) - 1 : len(prompt) + len(response) - 1].double(), dim=-1)


def test_scores_are_those_of_plain_forward_passes(model: PreTrainedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scoring, "CHUNK", 8)
    rows = [row(1, 1), row(2, 8), row(3, 9), row(4, 30)]
    found = scoring.score(model, rows)
    assert found is not None
    assert (found.traces, found.tokens) == (4, 48)
    totals = dict.fromkeys(("teacher", "negative", "student"), 0.0)
    masses = []
    for one in rows:
        scores = {context: plain(model, prompt, one.response) for context, prompt in one.prompts.items()}
        labels = torch.tensor(one.response)[:, None]
        for context in totals:
            totals[context] -= float(scores[context].gather(1, labels).sum())
        masses.append(scores["student"].exp().gather(1, scores["teacher"].argmax(dim=-1, keepdim=True)))
    assert found.nll_teacher == pytest.approx(totals["teacher"] / 48, rel=1e-5)
    assert found.nll_negative == pytest.approx(totals["negative"] / 48, rel=1e-5)
    assert found.nll_student == pytest.approx(totals["student"] / 48, rel=1e-5)
    assert found.teacher_top_mass == pytest.approx(float(torch.cat(masses).mean()), rel=1e-4)
    assert found.cold_tokens == pytest.approx(float((torch.cat(masses) < 0.01).double().mean()))
    assert 0 < found.cold_tokens < 1


def test_logits_of_a_whole_trace_never_exist(model: PreTrainedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scoring, "CHUNK", 16)
    sizes: list[int] = []
    hook = model.lm_head.register_forward_hook(lambda _module, _inputs, logits: sizes.append(logits.shape[1]))
    scoring.score(model, [row(5, 50)])
    hook.remove()
    assert sorted(sizes) == sorted([16, 16, 16, 2] * 3)


def test_no_trace_gives_no_figures(model: PreTrainedModel) -> None:
    assert scoring.score(model, []) is None


def accuracy(value: float, temperature: float = 1.0, top_p: float = 1.0) -> Accuracy:
    right = Interval(value=value, low=value - 0.1, high=value + 0.1)
    return Accuracy(temperature=temperature, top_p=top_p, problems=10, samples=20, right=right)


def figures(cold: float) -> TraceFigures:
    return TraceFigures(traces=1, tokens=9, nll_teacher=0.1, nll_negative=0.5, nll_student=2.0, teacher_top_mass=0.4, cold_tokens=cold)


def test_a_weak_teacher_is_told_with_the_objective_to_prefer() -> None:
    weak, sentence = verdict(accuracy(0.41, 0.6, 0.95), accuracy(0.23), figures(0.0))
    assert weak
    assert sentence == (
        "The teacher is weak: shown the solution, it answers 23% right (13 to 33) at temperature 1, "
        "and 41% right (31 to 51) at temperature 0.6 and top-p 0.95. "
        "KL objectives (contrastive, distill) learn its whole distribution, errors included: prefer train.objective nll, "
        "which learns from graded traces only, or begin with train.warmup."
    )


def test_a_sound_teacher_is_told_as_such_and_cold_tokens_call_for_a_warm_up() -> None:
    same = accuracy(0.9)
    assert verdict(same, same, figures(0.01)) == (
        False,
        "The teacher is sound: shown the solution, it answers 90% right (80 to 100) at temperature 1.",
    )
    weak, sentence = verdict(same, same, figures(0.12))
    assert not weak
    assert "At 12% of the traces' tokens the student gives the teacher's first choice less than 1%" in sentence
    assert "set train.warmup" in sentence


def test_a_control_and_proofs_get_no_advice() -> None:
    assert "train." not in verdict(None, accuracy(0.0), figures(0.5), control=True)[1]
    assert verdict(None, None, figures(0.0)) == (False, "The teacher could not be graded, as no problem has an answer.")


PROBLEMS = [
    Problem(id=f"p{n}", problem=f"How much is {n} + {n}?", solutions=(f"It is \\boxed{{{2 * n}}}",), answer=str(2 * n)) for n in range(6)
]


@dataclass
class Bed:
    """A run whose select has finished."""

    root: Store
    job: DailJob
    engines: list[ScriptedEngine]
    notes: Notes = field(default_factory=Notes)

    def run(self, stop: threading.Event | None = None) -> dict[str, Any]:
        task = next(task for task in plan(self.job, {}) if task.stage == "check")
        inputs = {name: self.root.at(name) for name in task.inputs}
        return check.run(StageContext(self.job, task, self.root, self.root.at("out"), inputs, self.notes, stop or threading.Event()))

    def result(self) -> TeacherCheck:
        return TeacherCheck.model_validate_json(self.root.at("out").get(TEACHER))


def half_right(prompt: str, _: int, index: int) -> str:
    """The first sample is right, the second is not."""
    n = int(prompt.rsplit("How much is ", 1)[1].split(" +")[0])
    return f"So \\boxed{{{2 * n + index}}}."


@pytest.fixture
def bed(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Bed]:
    def make(script: Script = half_right, problems: list[Problem] = PROBLEMS, **settings: Any) -> Bed:
        tokenizer = load_tokenizer(ModelSpec(id=str(folder)))
        root = open_store(str(tmp_path / "run"))
        root.at("prepare").put("problems.jsonl", to_jsonl(problems))
        ends = (tokenizer.eos_token_id,)
        kept = [Kept(id=one.id, index=0, ids=ids(n, 12) + ends, text="", verdict="right") for n, one in enumerate(problems[:4])]
        lines = [{"id": one.id, "verdicts": ["right", "wrong", "unparsed", "right"], "fates": []} for one in problems]
        root.at("select/tuned").put("kept.jsonl", to_jsonl(kept))
        root.at("select/tuned").put("verdicts.jsonl", "".join(json.dumps(line) + "\n" for line in lines).encode())
        spec = {
            "model": {"id": str(folder), "maxLength": 600},
            "data": {"solutions": "/none.jsonl"},
            "rewrite": {"samples": 4, "maxTokens": 60, **settings},
        }
        job = DailJob.model_validate({"apiVersion": "dail/v1alpha1", "kind": "DailJob", "metadata": {"name": "t"}, "spec": spec})
        one = Bed(root, job, [])

        def opened(*_: Any, **__: Any) -> ScriptedEngine:
            one.engines.append(ScriptedEngine(tokenizer, script, tokenizer.eos_token_id))
            return one.engines[-1]

        monkeypatch.setattr(check, "open_engine", opened)
        return one

    return make


def test_accuracy_comes_from_graded_traces_and_at_temperature_one_from_fresh_ones(bed: Callable[..., Bed]) -> None:
    one = bed()
    counts = one.run()
    result = one.result()
    assert result.accuracy is not None
    assert (result.accuracy.temperature, result.accuracy.top_p, result.accuracy.samples) == (0.6, 0.95, 24)
    assert result.accuracy.right.value == pytest.approx(0.5)
    assert result.accuracy_at_one is not None
    assert (result.accuracy_at_one.temperature, result.accuracy_at_one.problems, result.accuracy_at_one.samples) == (1.0, 6, 12)
    assert result.accuracy_at_one.right.value == pytest.approx(0.5)
    assert result.accuracy_at_one.right.low < 0.5 < result.accuracy_at_one.right.high
    assert result.traces is not None
    assert (result.traces.traces, result.traces.tokens) == (4, 52)
    assert not result.weak
    assert one.notes.said == [result.sentence]
    assert counts["accuracy_at_one"] == 0.5
    assert counts["nll_student"] == result.traces.nll_student
    # Drawn from the teacher alone, which sees the solution.
    (engine,) = one.engines
    assert engine.calls == 1
    assert engine.closed
    assert all(len(request.contexts) == 1 for request in engine.requests)
    assert "\\boxed{10}" in engine.tokenizer.decode(next(request for request in engine.requests if request.key == "p5").contexts[0])


def test_mixed_traces_say_nothing_of_the_teacher_so_both_accuracies_are_drawn(bed: Callable[..., Bed]) -> None:
    one = bed(lambda prompt, seed, index: half_right(prompt, seed, chance(seed, index) < 0.9), policy={"kind": "mixed", "tau": 0.8})
    one.run()
    result = one.result()
    assert result.accuracy is not None
    assert result.accuracy.samples == 12
    assert result.weak
    assert "prefer train.objective nll" in one.notes.said[0]
    assert one.engines[0].calls == 2


def test_plain_rewrites_need_no_further_samples(bed: Callable[..., Bed]) -> None:
    one = bed(temperature=1.0, topP=1.0)
    one.run()
    assert not one.engines
    assert one.result().accuracy == one.result().accuracy_at_one


def test_at_most_64_problems_are_drawn_from_and_32_traces_scored(bed: Callable[..., Bed]) -> None:
    many = [PROBLEMS[3].model_copy(update={"id": f"m{n}"}) for n in range(80)]
    one = bed(problems=many)
    kept = [Kept(id=p.id, index=0, ids=(30, one_eos(one)), text="", verdict="right") for p in many]
    one.root.at("select/tuned").put("kept.jsonl", to_jsonl(kept))
    one.run()
    result = one.result()
    assert result.accuracy_at_one is not None
    assert result.accuracy_at_one.problems == 64
    assert result.traces is not None
    assert result.traces.traces == 32
    assert {request.key for request in one.engines[0].requests} != {p.id for p in many[:64]}


def one_eos(bed: Bed) -> int:
    return int(load_tokenizer(bed.job.spec.model).eos_token_id)


def test_problems_without_answers_are_scored_but_not_graded(bed: Callable[..., Bed]) -> None:
    one = bed(problems=[problem.model_copy(update={"answer": None}) for problem in PROBLEMS])
    lines = [{"id": problem.id, "verdicts": [None] * 4, "fates": []} for problem in PROBLEMS]
    one.root.at("select/tuned").put("verdicts.jsonl", "".join(json.dumps(line) + "\n" for line in lines).encode())
    one.run()
    result = one.result()
    assert result.accuracy is None
    assert result.accuracy_at_one is None
    assert result.traces is not None
    assert not result.weak
    assert not one.engines


def test_a_stopped_check_keeps_what_it_drew(bed: Callable[..., Bed], monkeypatch: pytest.MonkeyPatch) -> None:
    one = bed()
    stop = threading.Event()
    with monkeypatch.context() as patch:
        patch.setattr(check, "load_model", lambda *_, **__: stop.set())
        with pytest.raises(Interrupted):
            one.run(stop)
    one.run()
    assert one.result().accuracy_at_one is not None
    assert len(one.engines) == 1


def test_two_checks_agree_to_the_last_digit(bed: Callable[..., Bed]) -> None:
    one = bed()
    one.run()
    before = one.root.at("out").get(TEACHER)
    for info in list(one.root.at("out").list()):
        one.root.at("out").delete(info.key)
    one.run()
    assert one.root.at("out").get(TEACHER) == before
