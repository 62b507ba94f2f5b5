"""The stage `evaluate` with an engine that follows a script: what is asked of the model, what is stored, what is taken up again."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from dail_runtime.errors import DataError, Interrupted, ModelError, ResultError
from dail_runtime.evaluate.meter import Meter
from dail_runtime.evaluate.records import RESPONSES, RESULTS, SUMMARY, ProblemResult, Summary
from dail_runtime.models import load_tokenizer
from dail_runtime.records import Problem, Rollout, to_jsonl
from dail_runtime.rewrite.engine import problem_seed
from dail_runtime.spec import DailJob, plan
from dail_runtime.stages import evaluate
from dail_runtime.stages.base import StageContext
from dail_runtime.store import Store, open_store, safe_key
from tests.support.evaluating import Notes, Script, ScriptedEngine, chance
from tests.support.tiny import make_tiny_model


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("model"))


@dataclass
class Bed:
    """A run ready to evaluate."""

    root: Store
    job: DailJob
    engines: list[ScriptedEngine]
    adapters: list[Path | None]
    notes: Notes

    def context(self, target: str = "base", stop: threading.Event | None = None) -> StageContext:
        task = {task.name: task for task in plan(self.job, {})}[f"evaluate/{target}"]
        inputs = {name: self.root.at(name) for name in task.inputs}
        return StageContext(self.job, task, self.root, self.root.at(f"out/{target}"), inputs, self.notes, stop or threading.Event())

    def run(self, target: str = "base") -> dict[str, Any]:
        return evaluate.run(self.context(target))

    def summary(self, target: str = "base") -> Summary:
        return Summary.model_validate_json(self.root.at(f"out/{target}").get(SUMMARY))

    def result(self, id_: str, set_: str = "dev", target: str = "base") -> ProblemResult:
        return ProblemResult.model_validate_json(self.root.at(f"out/{target}").get(f"{RESULTS}{safe_key(f'{set_}/{id_}')}.json"))

    def objects(self, target: str = "base") -> dict[str, bytes]:
        out = self.root.at(f"out/{target}")
        return {info.key: out.get(info.key) for info in out.list()}


PROBLEMS = [Problem(id=f"p{n}", problem=f"What is {n} + {n}?", answer=str(2 * n), set="dev") for n in range(5)]


def answers(prompt: str, seed: int, index: int) -> str:
    """Right for even problems, half the time for odd ones."""
    n = int(prompt.split("What is ")[1].split(" +")[0])
    right = n % 2 == 0 or chance(seed, index) < 0.5
    return f"{n} + {n} = so \\boxed{{{2 * n if right else 77}}}."


@pytest.fixture
def bed(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Bed]:
    def make(
        script: Script = answers,
        *,
        sets: dict[str, list[Problem]] | None = None,
        thinking: bool = False,
        max_length: int = 400,
        **settings: Any,
    ) -> Bed:
        sets = {"dev": PROBLEMS} if sets is None else sets
        root = open_store(str(tmp_path / "run"))
        for name, problems in sets.items():
            root.at("prepare").put(f"evaluation/{name}.jsonl", to_jsonl(problems))
        for name in ("adapter_config.json", "adapter_model.safetensors"):
            root.at("train/tuned").put(f"adapter/{name}", name.encode())
        job = DailJob.model_validate(
            {
                "apiVersion": "dail/v1alpha1",
                "kind": "DailJob",
                "metadata": {"name": "t"},
                "spec": {
                    "model": {"id": str(model), "thinking": thinking, "maxLength": max_length},
                    "data": {"solutions": "/s.jsonl", "evaluation": [{"name": name, "path": f"/{name}.jsonl"} for name in sets]},
                    "evaluate": {"samples": 4, "maxTokens": 40, **settings},
                    "seed": 7,
                },
            }
        )
        tokenizer = load_tokenizer(job.spec.model)
        made = Bed(root, job, [], [], Notes())

        def open_engine(*_: Any, adapter: Path | None = None, responses: int | None = None, **_named: Any) -> ScriptedEngine:
            assert responses == sum(map(len, sets.values())) * job.spec.evaluate.samples or adapter is None
            if adapter is not None:
                assert (adapter / "adapter_model.safetensors").read_bytes() == b"adapter_model.safetensors"
                assert (adapter / "adapter_config.json").is_file()
            made.adapters.append(adapter)
            made.engines.append(ScriptedEngine(tokenizer, script, tokenizer.eos_token_id))
            return made.engines[-1]

        monkeypatch.setattr(evaluate, "open_engine", open_engine)
        return made

    return make


def test_every_problem_is_answered_graded_and_summed_up(bed: Callable[..., Bed]) -> None:
    run = bed(sets={"dev": PROBLEMS, "test": [one.model_copy(update={"set": "test"}) for one in PROBLEMS[:2]]})
    counts = run.run()
    figures = run.summary().sets
    assert list(figures) == ["dev", "test"]
    odd = {f"p{n}": sum(chance(problem_seed(7, "evaluate", "dev", f"p{n}"), index) < 0.5 for index in range(4)) for n in (1, 3)}
    assert figures["dev"].right == {"p0": 4, "p1": odd["p1"], "p2": 4, "p3": odd["p3"], "p4": 4}
    assert figures["dev"].pass_at[1].value == pytest.approx((12 + sum(odd.values())) / 20)
    assert list(figures["dev"].pass_at) == [1, 2, 4]
    assert (counts["problems"], counts["samples"], counts["unparsed"], counts["left_out"]) == (7, 28, 0, 0)
    assert counts["right"] + counts["wrong"] == 28
    assert counts["right"] == sum(sum(one.right.values()) for one in figures.values())
    rollout = Rollout.model_validate_json(run.root.at("out/base").get(f"{RESPONSES}{safe_key('dev/p3')}.json"))
    assert [sample.index for sample in rollout.samples] == [0, 1, 2, 3]
    assert figures["dev"].mean_tokens == pytest.approx(sum(len(s.ids) for s in rollout.samples) / 4, abs=1)
    assert run.engines[0].closed
    assert run.adapters == [None]


def test_the_summary_is_written_as_others_read_it(bed: Callable[..., Bed]) -> None:
    run = bed(budgets=[5])
    run.run()
    text = run.root.at("out/base").get(SUMMARY).decode()
    for key in ('"passAt"', '"1"', '"meanTokens"', '"unparsed"', '"lenient"', '"right"', '"budgets"', '"5"', '"accuracy"', '"low"'):
        assert key in text


def test_the_prompt_is_the_one_that_training_uses(bed: Callable[..., Bed]) -> None:
    run = bed()
    run.run()
    tokenizer = run.engines[0].tokenizer
    prompt = tokenizer.decode(run.engines[0].requests[0].contexts[0])
    assert "What is 0 + 0?\n\nPlease reason step by step" in prompt
    assert prompt.endswith("<|im_start|>assistant\n<think>\n\n</think>\n\n")


def test_a_variant_is_measured_with_its_adapter_and_the_same_seeds_as_base(bed: Callable[..., Bed]) -> None:
    run = bed()
    run.run("base")
    run.run("tuned")
    assert run.adapters[0] is None
    assert run.adapters[1] is not None
    assert not run.adapters[1].exists()  # it was fetched for the time of the stage only
    seeds = [{request.key: request.seed for request in engine.requests} for engine in run.engines]
    assert seeds[0] == seeds[1]
    assert len(set(seeds[0].values())) == 5
    assert run.summary("tuned").target == "tuned"


def test_a_finished_evaluation_needs_no_engine(bed: Callable[..., Bed]) -> None:
    run = bed(budgets=[5])
    run.run()
    before = run.objects()
    run.root.at("out/base").delete(SUMMARY)
    run.run()
    assert len(run.engines) == 1
    assert run.objects() == before


def test_only_what_is_missing_is_drawn_again(bed: Callable[..., Bed]) -> None:
    run = bed(budgets=[5])
    run.run()
    before = run.objects()
    out = run.root.at("out/base")
    one, two, three = (f"{safe_key(f'dev/p{n}')}.json" for n in (1, 2, 3))
    for key in (RESULTS + one, RESPONSES + one, RESULTS + two):  # p1 is lost, p2 was sampled and not graded
        out.delete(key)
    half = ProblemResult.model_validate_json(out.get(RESULTS + three)).model_copy(update={"budgets": None})
    out.put(RESULTS + three, half.model_dump_json().encode())  # p3 was not measured within the budget
    run.run()
    asked = [request.key for request in run.engines[1].requests]
    assert asked == ["dev/p1", *(f"dev/p{n}, sample 0 cut at 5 tokens" for n in (1, 2, 3))]
    assert run.objects() == before


def test_a_stop_saves_what_is_finished_and_the_next_run_goes_on(bed: Callable[..., Bed]) -> None:
    whole = bed()
    whole.run()
    before = whole.objects()
    for key in before:
        whole.root.at("out/base").delete(key)
    stop = threading.Event()

    def stopping(prompt: str, seed: int, index: int) -> str:
        if "What is 2" in prompt:
            stop.set()
        return answers(prompt, seed, index)

    run = bed(stopping)
    with pytest.raises(Interrupted):
        evaluate.run(run.context(stop=stop))
    saved = [key for key in run.objects() if key.startswith(RESULTS)]
    assert 0 < len(saved) < 5
    assert run.engines[0].closed
    run.run()
    assert run.objects() == before


def test_progress_counts_problems_and_never_goes_back(bed: Callable[..., Bed]) -> None:
    run = bed(budgets=[5])
    run.run()
    for unit, total in (("problems", 5), ("forced answers", 5)):
        done = [update[0] for update in run.notes.updates if update[2] == unit]
        assert done == sorted(done)
        assert done[-1] == total
        assert all(update[1] == total for update in run.notes.updates if update[2] == unit)


def test_a_cut_answer_is_forced_to_an_end_within_its_budget(bed: Callable[..., Bed]) -> None:
    def script(prompt: str, *_: int) -> str:
        if "final answer is \\boxed{" in prompt:
            return "4} because" if "What is 2" in prompt else "5}"
        return "Let us think about it for a while, 1 2 3 4 5 6 7 8 9, so \\boxed{4}."

    run = bed(script, sets={"dev": PROBLEMS[2:4]}, maxTokens=60, budgets=[6, 55], budgetSamples=2)
    run.run()
    tokenizer = run.engines[0].tokenizer
    length = len(tokenizer.encode("Let us think about it for a while, 1 2 3 4 5 6 7 8 9, so \\boxed{4}.", add_special_tokens=False)) + 1
    assert 6 < length <= 55
    p2, p3 = run.result("p2"), run.result("p3")
    assert p2.budgets is not None
    assert p3.budgets is not None
    ending = len(tokenizer.encode("4} because", add_special_tokens=False)) + 1
    assert [(a.forced, a.right, a.tokens) for a in p2.budgets[6]] == [(True, True, 6 + ending)] * 2
    assert [a.right for a in p3.budgets[6]] == [False, False]
    assert [(a.forced, a.right, a.tokens) for a in p2.budgets[55]] == [(False, True, length)] * 2
    figures = run.summary().sets["dev"].budgets
    assert (figures[6].accuracy, figures[6].forced, figures[55].accuracy, figures[55].forced) == (0.5, 1.0, 0.5, 0.0)
    assert figures[55].mean_tokens == length
    assert run.engines[0].calls == 2  # all endings of all problems go through the engine together
    forced = run.engines[0].requests[2:]
    assert sorted(request.samples for request in forced) == [(0,), (0,), (1,), (1,)]
    cut = tokenizer.decode(tokenizer.encode("Let us think about it", add_special_tokens=False)[:6])
    assert tokenizer.decode(forced[0].contexts[0]).endswith(f"</think>\n\n{cut}\n\nThe final answer is \\boxed{{")


def test_an_answer_cut_at_max_tokens_is_forced_from_there(bed: Callable[..., Bed]) -> None:
    def script(prompt: str, *_: int) -> str:
        return "4}" if "final answer is" in prompt else "1 2 3 4 5 6 7 8 9 " * 9

    run = bed(script, sets={"dev": PROBLEMS[2:3]}, budgets=[40])
    counts = run.run()
    result = run.result("p2")
    assert {answer.finish for answer in result.answers} == {"length"}
    assert result.budgets is not None
    assert result.budgets[40][0].right
    assert counts["truncated"] == 4
    assert any("were cut at 40 tokens; raise evaluate.maxTokens" in sentence for sentence in run.notes.said)


def test_a_thinking_model_cut_in_its_reasoning_closes_it_before_it_answers(bed: Callable[..., Bed]) -> None:
    def script(prompt: str, _seed: int, index: int) -> str:
        if "The final answer is \\boxed{" in prompt:
            return "4}."
        return ("<think>is it \\boxed{9}?</think>" if index else "<think>is it \\boxed{9}? hm") + " it may be 1 2 3 4 5 6 7 8 9 \\boxed{4}"

    run = bed(script, sets={"dev": PROBLEMS[2:3]}, thinking=True, maxTokens=60, budgets=[30], budgetSamples=2)
    run.run()
    result = run.result("p2")
    assert [answer.verdict for answer in result.answers] == ["unparsed", "right", "right", "right"]
    contexts = {request.samples[0]: run.engines[0].tokenizer.decode(request.contexts[0]) for request in run.engines[0].requests[1:]}
    assert contexts[0].endswith("\n</think>\n\nThe final answer is \\boxed{")
    assert contexts[1].count("</think>") == 1
    assert result.budgets is not None
    assert [answer.right for answer in result.budgets[30]] == [True, True]


def test_a_problem_that_ends_within_every_budget_needs_no_ending(bed: Callable[..., Bed]) -> None:
    run = bed(lambda *_: "\\boxed{4}", budgets=[30])
    counts = run.run()
    assert len(run.engines[0].requests) == 5
    assert counts["forced"] == 0
    assert all(run.result(f"p{n}").budgets is not None for n in range(5))


def test_a_problem_too_long_for_the_model_is_left_out_and_said(bed: Callable[..., Bed]) -> None:
    long = Problem(id="long", problem="word " * 400, answer="1", set="dev")
    run = bed(sets={"dev": [*PROBLEMS[:2], long]})
    counts = run.run()
    assert (counts["left_out"], counts["problems"]) == (1, 2)
    assert run.summary().sets["dev"].problems == 2
    assert any("1 problems of dev are left out" in sentence and "'long'" in sentence for sentence in run.notes.said)


def test_a_set_of_which_nothing_fits_is_an_error(bed: Callable[..., Bed]) -> None:
    long = Problem(id="long", problem="word " * 400, answer="1", set="dev")
    with pytest.raises(ResultError, match="no problem can be shown to the model"):
        bed(sets={"dev": [long]}).run()


def test_forced_endings_count_in_the_room_a_prompt_leaves(bed: Callable[..., Bed]) -> None:
    with pytest.raises(ModelError, match="leave no room for a problem"):
        bed(max_length=64, budgets=[40]).run()


def test_an_evaluation_problem_without_an_answer_is_an_error(bed: Callable[..., Bed]) -> None:
    with pytest.raises(DataError, match="'p9' has no answer"):
        bed(sets={"dev": [Problem(id="p9", problem="?", set="dev")]}).run()


def test_answers_without_a_box_count_as_unparsed_and_the_lenient_figure_reads_them(bed: Callable[..., Bed]) -> None:
    run = bed(lambda *_: "The answer is 4.", sets={"dev": PROBLEMS[1:3]})
    run.run()
    figures = run.summary().sets["dev"]
    assert (figures.unparsed, figures.pass_at[1].value, figures.lenient) == (1.0, 0.0, 0.5)
    assert any("no \\boxed{} answer" in sentence for sentence in run.notes.said)


def test_pass_at_one_is_there_whatever_is_asked_for(bed: Callable[..., Bed]) -> None:
    run = bed(passAt=[2])
    run.run()
    assert list(run.summary().sets["dev"].pass_at) == [1, 2]


def test_hostile_ids_stay_inside_the_stage(bed: Callable[..., Bed]) -> None:
    problems = [Problem(id=id_, problem="What is 2 + 2?", answer="4", set="dev") for id_ in ("../../x", "a/b", "A/b", "\u2028", "x" * 3000)]
    run = bed(sets={"dev": problems})
    assert run.run()["right"] == 20
    assert len([key for key in run.objects() if key.startswith(RESULTS)]) == 5


def test_a_resumed_evaluation_counts_on_from_where_it_was() -> None:
    notes = Notes()
    meter = Meter(notes, lambda: None)
    with meter.generating(done=3, total=5, unit="problems", each=4):
        meter.tick(2, 100)  # half of a problem
        meter.add(200)
        meter.tick(2, 200)  # the engine has not counted that problem's last responses yet
        meter.tick(9, 300)
    assert [update[:2] for update in notes.updates] == [(3.5, 5), (4, 5), (4, 5), (5, 5)]
    assert meter.tokens == 200
    assert meter.seconds > 0
