"""The stage rewrite: which prompts the engine gets, what is stored, and that nothing is drawn twice or differently."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from dail_runtime.errors import Interrupted, ModelError, ResultError, SpecError, TransientError
from dail_runtime.models import load_tokenizer
from dail_runtime.records import Problem, Rollout, Sample, to_jsonl
from dail_runtime.rewrite.engine import Request, Sampling, Tick, open_engine, problem_seed
from dail_runtime.rewrite.limits import limits
from dail_runtime.rewrite.writer import Writer
from dail_runtime.spec import DailJob, plan
from dail_runtime.spec.model import ModelSpec
from dail_runtime.spec.rewrite import Engine as EngineSpec
from dail_runtime.stages import rewrite
from dail_runtime.stages.base import StageContext
from dail_runtime.store import ObjectInfo, Store, open_store
from tests.support.evaluating import Notes, ScriptedEngine
from tests.support.tiny import make_tiny_model

PROBLEMS = [
    Problem(id=f"p/{n}", problem=f"How much is {n} + {n}?", solutions=(f"It is {2 * n}: \\boxed{{{2 * n}}}",), answer=str(2 * n))
    for n in range(5)
]
MIXED = {"kind": "mixed", "tau": 0.02, "tries": 2}
ENGINE = {"kind": "transformers", "batchSize": 16}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("model"))


@dataclass
class Bed:
    """A run that is ready to rewrite."""

    root: Store
    job: DailJob
    notes: Notes = field(default_factory=Notes)

    def run(self, *, out: str = "out", stop: threading.Event | None = None) -> dict[str, Any]:
        task = next(task for task in plan(self.job, {}) if task.stage == "rewrite")
        inputs = {"prepare": self.root.at("prepare")}
        return rewrite.run(StageContext(self.job, task, self.root, self.root.at(out), inputs, self.notes, stop or threading.Event()))

    def objects(self, out: str = "out") -> dict[str, bytes]:
        return {info.key: self.root.at(out).get(info.key) for info in self.root.at(out).list()}

    def rollout(self, id_: str, out: str = "out") -> Rollout:
        return Rollout.model_validate_json(self.root.at(out).get(rewrite.rollout_key(id_)))


@pytest.fixture
def bed(model: Path, tmp_path: Path) -> Callable[..., Bed]:
    def make(
        problems: list[Problem] = PROBLEMS,
        *,
        max_length: int = 600,
        thinking: bool = False,
        later: dict[str, Any] | None = None,
        **settings: Any,
    ) -> Bed:
        root = open_store(str(tmp_path / "run"))
        root.at("prepare").put("problems.jsonl", to_jsonl(problems))
        spec = {
            "model": {"id": str(model), "maxLength": max_length, "thinking": thinking},
            "data": {"solutions": "/none.jsonl"},
            "rewrite": {"samples": 3, "maxTokens": 24, "engine": ENGINE, **settings},
            "seed": 7,
            "evaluate": {"maxTokens": 24},
            **(later or {}),
        }
        job = {"apiVersion": "dail/v1alpha1", "kind": "DailJob", "metadata": {"name": "t"}, "spec": spec}
        return Bed(root, DailJob.model_validate(job))

    return make


@pytest.fixture
def scripted(model: Path, monkeypatch: pytest.MonkeyPatch) -> list[ScriptedEngine]:
    """Engines that were opened in place of real ones."""
    engines: list[ScriptedEngine] = []
    tokenizer = load_tokenizer_of(model)

    def opened(*_: Any, **__: Any) -> ScriptedEngine:
        engines.append(ScriptedEngine(tokenizer, lambda prompt, seed, index: f"{len(prompt)} {seed} {index}", tokenizer.eos_token_id))
        return engines[-1]

    monkeypatch.setattr(rewrite, "open_engine", opened)
    return engines


def load_tokenizer_of(model: Path) -> Any:
    from dail_runtime.spec.model import ModelSpec

    return load_tokenizer(ModelSpec(id=str(model)))


def shown(engine: ScriptedEngine) -> dict[str, list[str]]:
    return {request.key: [engine.tokenizer.decode(ids) for ids in request.contexts] for request in engine.requests}


def test_direct_traces_are_drawn_from_the_privileged_context(bed: Callable[..., Bed], scripted: list[ScriptedEngine]) -> None:
    one = bed()
    counts = one.run()
    contexts = shown(scripted[0])
    for problem in PROBLEMS:
        (privileged,) = contexts[problem.id]
        assert problem.solutions[0] in privileged
    assert {request.seed for request in scripted[0].requests} == {problem_seed(7, "rewrite", "", problem.id) for problem in PROBLEMS}
    assert [sample.index for sample in one.rollout("p/3").samples] == [0, 1, 2]
    assert counts["problems"] == 5
    assert counts["samples"] == 15
    assert counts["tokens"] == sum(len(sample.ids) for problem in PROBLEMS for sample in one.rollout(problem.id).samples)
    assert counts["dropped"] == {}
    assert "accept_rate" not in counts
    assert scripted[0].closed


def test_mixed_traces_are_proposed_by_the_student(bed: Callable[..., Bed], scripted: list[ScriptedEngine]) -> None:
    bed(policy=MIXED).run()
    student, privileged = shown(scripted[0])["p/4"]
    assert PROBLEMS[4].problem in student
    assert PROBLEMS[4].solutions[0] not in student
    assert PROBLEMS[4].solutions[0] in privileged


def test_the_control_shows_another_problems_solution(bed: Callable[..., Bed], scripted: list[ScriptedEngine]) -> None:
    bed(reference="other").run()
    for problem in PROBLEMS:
        (privileged,) = shown(scripted[0])[problem.id]
        assert problem.problem in privileged
        assert problem.solutions[0] not in privileged
        assert sum(other.solutions[0] in privileged for other in PROBLEMS) == 1


@pytest.mark.parametrize("policy", [{"kind": "direct"}, MIXED], ids=["direct", "mixed"])
def test_traces_are_the_same_after_any_interruption(bed: Callable[..., Bed], policy: dict[str, Any]) -> None:
    one = bed(policy=policy)
    counts = one.run(out="whole")
    whole = one.objects("whole")
    assert len(whole) == 6
    # Some are there, in no particular order: as after a kill.
    for key in (rewrite.FACTS, rewrite.rollout_key("p/3"), rewrite.rollout_key("p/1")):
        one.root.at("out").put(key, whole[key])
    again = one.run()
    assert one.objects() == whole
    clock = {"tokens_per_s": 0}
    assert {**again, **clock} == {**counts, **clock}
    # Everything is there: the model is not even loaded.
    assert {**one.run(), **clock} == {**counts, **clock}
    assert ("accept_rate" in counts) == (policy is MIXED)
    if policy is MIXED:
        assert 0 < counts["accept_rate"] < 1
        assert 0 < counts["distance"] < 1


def test_a_stopped_rewrite_keeps_what_it_finished_and_goes_on_the_same(bed: Callable[..., Bed], monkeypatch: pytest.MonkeyPatch) -> None:
    one = bed()
    one.run(out="whole")
    stop = threading.Event()
    put = Writer.put

    def put_and_stop(writer: Writer, key: str, data: bytes) -> None:
        put(writer, key, data)
        stop.set()

    monkeypatch.setattr(Writer, "put", put_and_stop)
    with pytest.raises(Interrupted, match="run again to go on"):
        one.run(stop=stop)
    monkeypatch.undo()
    kept = one.objects()
    assert len(kept) == 2
    one.run()
    assert one.objects() == one.objects("whole")
    assert kept.items() <= one.objects().items()


def test_a_task_that_goes_on_keeps_its_batch_size(bed: Callable[..., Bed], monkeypatch: pytest.MonkeyPatch) -> None:
    one = bed(engine={"kind": "transformers"})
    counts = one.run()
    assert json.loads(one.root.at("out").get(rewrite.FACTS)) == {"batch_size": 16} == {"batch_size": counts["batch_size"]}
    asked: list[EngineSpec] = []

    def opened(engine: EngineSpec, *args: Any, **named: Any) -> Any:
        asked.append(engine)
        return open_engine(engine, *args, **named)

    monkeypatch.setattr(rewrite, "open_engine", opened)
    one.root.at("out").put(rewrite.FACTS, b'{"batch_size": 48}')
    one.root.at("out").delete(rewrite.rollout_key("p/0"))
    assert one.run()["batch_size"] == 48
    assert asked[0].batch_size == 48  # type: ignore[union-attr]


def test_problems_whose_prompt_is_too_long_are_counted_and_left_out(bed: Callable[..., Bed], scripted: list[ScriptedEngine]) -> None:
    long = Problem(id="long", problem="word " * 700, solutions=("short",))
    several = Problem(id="several", problem="Short?", solutions=("First. " * 5, "word " * 600))
    one = bed([*PROBLEMS, long, several])
    counts = one.run()
    assert counts["problems"] == 6
    assert counts["dropped"] == {"prompt_too_long": 1}
    assert counts["solutions_cut"] == 1
    assert rewrite.rollout_key("long") not in one.objects()
    assert any("1 of 7 problems are left out, for example: problem 'long'" in sentence for sentence in one.notes.said)
    assert any("1 solutions were left out" in sentence for sentence in one.notes.said)
    # The same numbers where nothing is left to draw.
    assert one.run()["solutions_cut"] == 1
    assert len(scripted) == 1


@pytest.mark.parametrize(
    ("later", "says"),
    [
        ({"evaluate": {"maxTokens": 600}}, r"^evaluate\.maxTokens 600: .* within the 600 tokens of the model; lower it"),
        ({"variants": {"a": {}, "b": {"train": {"lora": {"targets": ["c_attn"]}}}}}, r"^train\.lora\.targets: .* no linear layer 'c_attn'"),
    ],
)
def test_what_would_end_a_later_stage_is_told_before_the_work(bed: Callable[..., Bed], later: dict[str, Any], says: str) -> None:
    run = bed(later=later)
    with pytest.raises(ModelError, match=says):
        run.run()
    assert not run.objects()


def test_a_rewrite_of_nothing_is_an_error(bed: Callable[..., Bed], scripted: list[ScriptedEngine]) -> None:
    with pytest.raises(ResultError, match="no problem can be shown to the model with its solution, for example: problem 'long'"):
        bed([Problem(id="long", problem="word " * 700, solutions=("short",))]).run()
    assert not scripted
    with pytest.raises(ModelError, match="leaves no room for a prompt"):
        bed(max_length=24).run()


def test_suppressed_tokens_are_named_by_their_text(bed: Callable[..., Bed], scripted: list[ScriptedEngine]) -> None:
    with pytest.raises(SpecError, match=r"rewrite\.suppress: 'never one token' is"):
        bed(suppress=["never one token"]).run()
    with pytest.raises(SpecError, match="every token that ends a response"):
        bed(suppress=["<|im_end|>", "<|endoftext|>"]).run()
    assert not scripted
    bed(suppress=["</think>"]).run()


def test_a_suppressed_token_is_never_drawn(bed: Callable[..., Bed], model: Path) -> None:
    one = bed(samples=8, temperature=2.0, topP=1.0, suppress=["e", "</think>"])
    one.run()
    tokenizer = load_tokenizer_of(model)
    banned = {tokenizer.convert_tokens_to_ids(token) for token in ("e", "</think>")}
    drawn = {id_ for problem in PROBLEMS for sample in one.rollout(problem.id).samples for id_ in sample.ids}
    assert len(drawn) > 100
    assert not drawn & banned


def test_progress_only_rises_and_ends_at_the_total(bed: Callable[..., Bed], monkeypatch: pytest.MonkeyPatch) -> None:
    class Eager(ScriptedEngine):
        """Tells of finished samples of problems that are still under way."""

        def generate(
            self, requests: Iterable[Request], sampling: Sampling, *, tick: Tick | None = None
        ) -> Iterator[tuple[Request, tuple[Sample, ...]]]:
            assert tick is not None
            for done, result in enumerate(super().generate(requests, sampling)):
                tick(min(25, 5 * done + 8), 100)
                yield result

    tokenizer = load_tokenizer_of(Path(bed().job.spec.model.id))
    monkeypatch.setattr(rewrite, "open_engine", lambda *_, **__: Eager(tokenizer, lambda *_: "x", tokenizer.eos_token_id))
    one = bed(samples=5)
    one.run()
    assert [update[0] for update in one.notes.updates] == [8, 8, 13, 13, 18, 18, 23, 23, 25, 25]
    assert {update[1:] for update in one.notes.updates} == {(25, "samples")}


@pytest.mark.usefixtures("scripted")
def test_most_traces_cut_is_worth_a_sentence(bed: Callable[..., Bed]) -> None:
    one = bed(maxTokens=2)
    assert one.run()["truncated"] == 15
    assert "100% of the traces were cut at 2 tokens; raise rewrite.maxTokens." in one.notes.said


def test_a_rollout_that_the_store_refuses_ends_the_stage(
    bed: Callable[..., Bed], scripted: list[ScriptedEngine], monkeypatch: pytest.MonkeyPatch
) -> None:
    one = bed()
    put = type(one.root).put

    def refuse_one(self: Any, key: str, data: bytes) -> ObjectInfo:
        if key == rewrite.rollout_key("p/2"):
            raise TransientError("the store is away")
        return put(self, key, data)

    monkeypatch.setattr(type(one.root), "put", refuse_one)
    with pytest.raises(TransientError, match="away"):
        one.run()
    assert scripted[0].closed


def test_results_do_not_depend_on_the_order_in_which_problems_finish(bed: Callable[..., Bed], monkeypatch: pytest.MonkeyPatch) -> None:
    one = bed(policy=MIXED)
    counts = one.run(out="one")

    class Backwards:
        """A real engine whose results come back in the opposite order."""

        def __init__(self, *args: Any, **named: Any) -> None:
            self.engine = open_engine(*args, **named)
            self.facts, self.close = self.engine.facts, self.engine.close

        def generate(
            self, requests: Iterable[Request], sampling: Sampling, *, tick: Tick | None = None
        ) -> Iterator[tuple[Request, tuple[Sample, ...]]]:
            return reversed(list(self.engine.generate(list(requests)[::-1], sampling, tick=tick)))

    monkeypatch.setattr(rewrite, "open_engine", Backwards)
    other = one.run(out="other")
    assert one.objects("one") == one.objects("other")
    assert {**counts, "tokens_per_s": 0} == {**other, "tokens_per_s": 0}


def test_a_model_that_needs_code_of_its_own_is_refused_in_one_line(tmp_path: Path) -> None:
    config = make_tiny_model(tmp_path / "model") / "config.json"
    own = {"model_type": "theirs", "auto_map": {"AutoConfig": "code.Config"}}
    config.write_text(json.dumps({**json.loads(config.read_text()), **own}))
    spec = ModelSpec(id=str(config.parent))
    with pytest.raises(ModelError, match=r"it needs code of its own, which dail never runs") as caught:
        limits(spec, load_tokenizer(spec))
    assert "\n" not in str(caught.value)
