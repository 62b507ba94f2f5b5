"""The tinymath example: its problems are what they claim, and its model and job files fit them and each other."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Sequence

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from dail_runtime.evaluate.grading import Grader
from dail_runtime.prompts.landmarks import landmarks
from dail_runtime.spec.load import load_job
from dail_runtime.spec.train import TrainSpec
from examples.tinymath import tune
from examples.tinymath.lessons import IGNORED, JUMP_NEGATIVE, JUMP_PRIVILEGED, Course, Encoder, batches, draw_lesson, wording
from examples.tinymath.pretrain import build_model, build_tokenizer, pretrain, respond
from examples.tinymath.problems import HERE, JUMP, ODD, RULES, SPLITS, draw, file_of

MODEL = HERE / "model"
LINE = re.compile(r"(\w+): (\w+) ([abc])(?: ([abc]))? \((\d)(?:,(\d))?\)=(\d) \[(\d)(\d)(\d)\]")


def rows(name: str) -> list[dict[str, str]]:
    return [json.loads(line) for line in (HERE / f"{name}.jsonl").read_text().splitlines()]


def run_by_hand(problem: str) -> tuple[list[tuple[str, str]], str]:
    """A second implementation of the machine: (odd instruction, result) pairs and the answer, from the problem's text alone."""
    first, *steps = problem.splitlines()
    registers = dict(zip("abc", map(int, re.findall(r"\d", first)), strict=True))
    odd = []
    for step in steps:
        ordinal, op, target, *source = step.replace(":", "").split()
        if op in RULES:
            registers[target] = RULES[op][registers[target]]
            odd.append((f"{ordinal}: {op} {target}", str(registers[target])))
        else:
            sign = {"add": "+", "sub": "-", "mul": "*"}[op]
            registers[target] = eval(f"({registers[target]} {sign} {registers[source[0]]}) % 10")
    return odd, ",".join(map(str, registers.values()))


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return Encoder(AutoTokenizer.from_pretrained(MODEL), wording())


@pytest.mark.parametrize("name", SPLITS)
def test_the_committed_problems_are_what_the_generator_writes(name: str) -> None:
    assert (HERE / f"{name}.jsonl").read_text() == file_of(name)


@pytest.mark.parametrize("name", SPLITS)
def test_every_committed_answer_and_solution_follows_from_the_rules(name: str) -> None:
    for row in rows(name):
        odd, answer = run_by_hand(row["problem"])
        assert row["answer"] == answer
        assert len(odd) == SPLITS[name].odd
        if "solution" in row:
            assert row["solution"] == "\n".join([*(f"{step}={result}" for step, result in odd), f"\\boxed{{{answer}}}"])


def test_no_problem_stands_in_two_splits() -> None:
    problems = [row["problem"] for name in SPLITS for row in rows(name)]
    assert len(set(problems)) == len(problems) == 560


def test_the_expert_solutions_show_every_odd_rule_in_full() -> None:
    seen = set()
    for row in rows("expert"):
        puzzle_odd, _ = run_by_hand(row["problem"])
        seen |= {(step.split()[1], result) for step, result in puzzle_odd}
    assert seen == {(op, str(digit)) for op in ODD for digit in range(10)}


def test_a_trace_works_out_every_step_and_a_jump_ends_it_early() -> None:
    rng = random.Random(0)
    for _ in range(50):
        puzzle = draw(rng, 6, odd=2)
        *lines, box = puzzle.trace(rng).splitlines()
        registers = dict(zip("abc", puzzle.start, strict=True))
        for line, text in zip(lines, puzzle.problem.splitlines()[1:], strict=True):
            ordinal, op, target, source, left, right, result, *state = LINE.fullmatch(line).groups()  # type: ignore[union-attr]
            assert text == f"{ordinal}: {op} {target}" + (f" {source}" if source else "")
            assert registers[target] == int(left)
            assert right is None or registers[source] == int(right)
            registers[target] = int(result)
            assert list(map(int, state)) == list(registers.values())
        assert box == puzzle.boxed == f"\\boxed{{{','.join(map(str, registers.values()))}}}"
        assert puzzle.trace(rng, jump=1.0) == JUMP + puzzle.boxed


def test_pretraining_tells_nothing_about_the_rules() -> None:
    rng = random.Random(0)
    results: dict[tuple[str, int], list[int]] = {(op, digit): [] for op in ODD for digit in range(10)}
    for _ in range(4000):
        for step in draw_lesson(rng, 6).puzzle.steps:
            if step.odd:
                results[step.op, step.operands[0]].append(step.result)
    for (op, digit), found in results.items():
        hits = found.count(RULES[op][digit]) / len(found)
        assert hits == pytest.approx(0.1, abs=0.08), (op, digit, len(found))


def test_lessons_jump_as_often_as_they_should() -> None:
    rng = random.Random(1)
    lessons = [draw_lesson(rng, 6) for _ in range(6000)]
    for context, chance in (("student", 0.0), ("privileged", JUMP_PRIVILEGED), ("negative", JUMP_NEGATIVE)):
        here = [lesson for lesson in lessons if lesson.context == context]
        first = sum(lesson.response.startswith(JUMP) for lesson in here) / len(here)
        assert first == pytest.approx(chance, abs=0.03), context


def test_landmarks_are_the_results_of_the_odd_steps() -> None:
    rng = random.Random(2)
    for _ in range(100):
        puzzle = draw(rng, 6, odd=3, rules=None)
        odd = list(dict.fromkeys(str(step.result) for step in puzzle.steps if step.odd))
        assert landmarks(puzzle.solution, answer=puzzle.answer, problem=puzzle.problem) == odd


def test_the_order_of_the_registers_matters_to_the_grader() -> None:
    with Grader() as grader:
        assert grader.grade("\\boxed{2,9,4}", "2,9,4").verdict == "right"
        assert grader.grade("\\boxed{9,2,4}", "2,9,4").verdict == "wrong"
        assert grader.grade("\\boxed{294}", "2,9,4").verdict == "wrong"


def test_the_committed_tokenizer_is_what_the_script_builds() -> None:
    committed = AutoTokenizer.from_pretrained(MODEL)
    built = build_tokenizer(wording())
    assert built.get_vocab() == committed.get_vocab()
    assert built.backend_tokenizer.to_str() == committed.backend_tokenizer.to_str()
    assert built.chat_template == committed.chat_template


def test_a_digit_is_one_token_and_the_turn_ends_with_a_token_of_its_own(encoder: Encoder) -> None:
    tokenizer = encoder.tokenizer
    assert all(len(tokenizer.encode(str(digit), add_special_tokens=False)) == 1 for digit in range(10))
    assert tokenizer.tokenize("[294]\n\\boxed{2,9,4}") == ["[", "2", "9", "4", "]Ċ", "\\boxed{", "2", ",", "9", ",", "4", "}"]
    assert (tokenizer.eos_token, tokenizer.pad_token) == ("<|im_end|>", "<|endoftext|>")
    assert len({tokenizer.eos_token_id, tokenizer.pad_token_id}) == 2


def test_any_text_survives_the_tokenizer(encoder: Encoder) -> None:
    text = "Größe: \\frac{1}{2} → 3.14\n\t名"
    assert encoder.tokenizer.decode(encoder.tokenizer.encode(text, add_special_tokens=False)) == text


def test_the_three_contexts_read_as_the_model_was_taught(encoder: Encoder) -> None:
    puzzle = draw(random.Random(6), 2, odd=1)
    head, tail = f"<|im_start|>user\n{puzzle.problem}", "<|im_end|>\n<|im_start|>assistant\n"
    (odd,) = (step.result for step in puzzle.steps if step.odd)
    texts = {context: encoder.tokenizer.decode(encoder.prompt(context, puzzle)) for context in ("student", "privileged", "negative")}
    assert texts == {
        "student": head + tail,
        "privileged": f"{head}\n## Reference solution\n{puzzle.solution}\nExplain it in full.{tail}",
        "negative": f"{head}\n## Hint\nanswer {puzzle.answer} numbers {odd}{tail}",
    }


@pytest.mark.parametrize("name", ["job.yaml", "smoke.yaml"])
def test_the_job_files_are_valid_and_word_the_contexts_alike(name: str) -> None:
    job = load_job(HERE / name)
    assert job.spec.prompts == wording()
    assert (HERE / job.spec.data.solutions).is_file()
    assert all((HERE / one.path).is_file() for one in job.spec.data.evaluation)
    # The development split chose the settings, so it must not be what the result is read from.
    assert "dev.jsonl" not in "".join(one.path for one in job.spec.data.evaluation)


def test_every_arm_of_the_job_makes_as_many_passes_and_the_control_differs_by_its_reference_alone() -> None:
    spec = load_job(HERE / "job.yaml").spec
    assert spec.variant_names() == ("contrastive", "distill", "nll", "sft", "control")
    assert spec.primary() == "contrastive"
    train = {name: spec.settings(name).train for name in spec.variant_names()}
    passes = {one.epochs + (one.warmup.epochs if one.warmup else 0) for one in train.values()}
    assert (passes, {(one.batch_size, one.lora.r) for one in train.values()}) == ({tune.EPOCHS}, {(8, 32)})
    assert train["control"] == train["contrastive"].model_copy(update={"reference": "other"})


@pytest.mark.parametrize("arm", tune.ARMS)
def test_every_arm_gets_the_same_number_of_trials_and_goes_on_with_its_best(arm: str) -> None:
    values = iter([0.1, 0.3, 0.2, 0.25])
    counted = []

    def measure(before: int, asked: Sequence[tune.Settings]) -> list[float]:
        counted.append((before, len(asked)))
        return [next(values) for _ in asked]

    trials = tune.search(tune.ARMS[arm], measure)
    assert counted == [(0, 2), (2, 2)]
    base = {**tune.ARMS[arm].fixed, "epochs": tune.EPOCHS}
    assert [settings for settings, _ in trials] == [
        *({**base, "learningRate": rate} for rate in tune.RATES),
        *({**base, "learningRate": tune.RATES[1], **own} for own in tune.ARMS[arm].own.values()),
    ]
    for settings, _ in trials:
        train = TrainSpec.model_validate(settings)
        assert train.epochs + (train.warmup.epochs if train.warmup else 0) == tune.EPOCHS
    shown = tune.table({arm: trials}).splitlines()
    assert len(shown) == 2 + len(trials)
    assert [line.endswith("**30.0%** |") for line in shown[2:]] == [False, True, False, False]


def test_the_committed_model_is_small_safe_and_solves_ordinary_problems(encoder: Encoder) -> None:
    names = {path.name for path in MODEL.iterdir()}
    assert names == {
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
        "chat_template.jinja",
    }
    assert (MODEL / "model.safetensors").stat().st_size < 4_000_000
    model = AutoModelForCausalLM.from_pretrained(MODEL, dtype=torch.float32)
    assert (model.config.model_type, model.config.eos_token_id) == ("qwen3", encoder.tokenizer.eos_token_id)
    rng = random.Random(7)
    puzzles = [draw(rng, 5, odd=0) for _ in range(24)]
    right = sum(text.endswith(one.boxed) for text, one in zip(respond(model, encoder, "student", puzzles, seed=0), puzzles, strict=True))
    assert right >= 19


@pytest.mark.slow
def test_a_short_pretraining_learns_the_form_of_the_answers() -> None:
    tokenizer = build_tokenizer(wording())
    encoder, model = Encoder(tokenizer, wording()), build_model(tokenizer)
    assert pretrain(model, encoder, Course(steps=80, batch=16, longest=3, warmup=20)) < 1.5
    puzzles = [draw(random.Random(seed), 2, odd=0) for seed in range(8)]
    texts = respond(model, encoder, "student", puzzles, seed=0)
    assert sum(bool(LINE.match(text)) for text in texts) >= 4


def test_pretraining_repeats_itself_bit_by_bit() -> None:
    tokenizer = build_tokenizer(wording())
    weights = []
    for _ in range(2):
        model = build_model(tokenizer)
        pretrain(model, Encoder(tokenizer, wording()), Course(steps=2, batch=4, longest=3))
        weights.append(model.state_dict())
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_labels_cover_the_response_and_its_end_only(encoder: Encoder) -> None:
    course = Course(steps=1, batch=6)
    ((ids, labels), _) = next(batches(encoder, course))
    for row, wanted in zip(ids, labels, strict=True):
        learnt = wanted != IGNORED
        assert torch.equal(row[learnt], wanted[learnt])
        assert encoder.tokenizer.decode(row[: learnt.int().argmax()]).endswith("<|im_start|>assistant\n")
        assert set(row[~learnt].tolist()[len(row) - int(learnt.flip(0).int().argmax()) :]) <= {encoder.tokenizer.pad_token_id}
        assert wanted[learnt][-1] == encoder.tokenizer.eos_token_id
