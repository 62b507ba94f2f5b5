"""The engine `vllm` and its plugin on real vLLM: one engine with a KV cache so small that pairs are preempted all the time."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch

from dail_runtime.errors import ModelError, SetupError
from dail_runtime.models import load_model, load_tokenizer
from dail_runtime.rewrite.engine import Request, Sampling
from dail_runtime.rewrite.policies import Shaping, distribution
from dail_runtime.rewrite.transformers_engine import TransformersGenerator
from dail_runtime.rewrite.vllm_engine import VllmGenerator
from dail_runtime.rewrite.vllm_plugin import check
from dail_runtime.rewrite.vllm_plugin.requests import Role, Row
from dail_runtime.rewrite.vllm_settings import arguments, sequences
from dail_runtime.spec.model import ModelSpec
from dail_runtime.spec.rewrite import DirectPolicy, MixedPolicy
from tests.support.drawing import HOW, LENGTH, MIXED, drawn, ends_at_once, fills_the_model, prompt, requests
from tests.support.law import mixed_law, surprise

pytestmark = [pytest.mark.engine, pytest.mark.slow]


@pytest.fixture(scope="module")
def engine(spec: ModelSpec) -> Iterator[VllmGenerator]:
    engine = VllmGenerator(
        Path(spec.id),
        load_tokenizer(spec),
        length=LENGTH,
        dtype=torch.float32,
        max_num_seqs=32,
        max_num_batched_tokens=256,
        num_gpu_blocks_override=120,
    )
    yield engine
    engine.close()
    engine.close()


def params(tokens: int, row: Row | None = None) -> Any:
    """Greedy settings of vLLM, with the plugin's arguments where there is a row."""
    from vllm import SamplingParams
    from vllm.sampling_params import RequestOutputKind

    extra = {} if row is None else {"extra_args": row.to_args()}
    return SamplingParams(
        temperature=0, max_tokens=tokens, ignore_eos=True, detokenize=False, output_kind=RequestOutputKind.FINAL_ONLY, **extra
    )


def submit(engine: VllmGenerator, name: str, ids: Sequence[int], settings: Any) -> None:
    from vllm.inputs.engine import tokens_input

    engine.vllm.add_request(name, tokens_input(list(ids)), settings)


def finished(engine: VllmGenerator) -> dict[str, Any]:
    """Run until nothing is left; the outputs by name."""
    found = {}
    while engine.vllm.has_unfinished_requests():
        found.update({output.request_id: output.outputs[0] for output in engine.vllm.step()})
    return found


def half(role: Role, pair: str, **changes: Any) -> Row:
    return replace(Row(role, pair, 7, 0, 0.9, 0.97, tau=0.05, tries=2), **changes)


def test_eighty_pairs_among_plain_requests_stay_identical_while_they_are_preempted(engine: VllmGenerator) -> None:
    source = random.Random(5)
    plain = {f"plain{n}": prompt(source, 20, 60) for n in range(20)}
    for name, ids in plain.items():
        submit(engine, name, ids, params(40))
    alone = finished(engine)
    work: list[tuple[str, Sequence[int], Any]] = [(name, ids, params(40)) for name, ids in plain.items()]
    for n in range(84):
        for role, longest in (("student", 40), ("teacher", 500)):
            work.append((f"{role}{n}", prompt(source, 2, longest), params(50, half(role, f"pair{n}", seed=n, sample=n % 3))))
    source.shuffle(work)
    before = engine.scheduler.preempted_pairs
    for item in work:
        submit(engine, *item)
    found = finished(engine)
    for n in range(84):
        student, teacher = found[f"student{n}"], found[f"teacher{n}"]
        assert (student.finish_reason, teacher.finish_reason) == ("length", "length")
        assert len(student.token_ids) == 50
        assert list(student.token_ids) == list(teacher.token_ids)
    assert all(list(found[name].token_ids) == list(alone[name].token_ids) for name in plain)
    assert engine.scheduler.preempted_pairs > before


def test_plain_requests_get_their_own_log_probabilities_beside_pairs(engine: VllmGenerator) -> None:
    ids, settings = prompt(random.Random(6), 20, 60), params(12)
    settings.logprobs = 1

    def logprobs() -> list[float]:
        submit(engine, "plain", ids, settings)
        # vLLM would compile its ranking of log-probabilities, for half a minute.
        with torch.compiler.set_stance("force_eager"):
            plain = finished(engine)["plain"]
        return [place[token].logprob for token, place in zip(plain.token_ids, plain.logprobs, strict=True)]

    alone = logprobs()
    for role in ("student", "teacher"):
        submit(engine, role, range(30, 60), params(30, half(role, "beside")))
    assert logprobs() == pytest.approx(alone, abs=1e-4)
    assert len(alone) == 12
    assert max(alone) < 0


def test_what_is_left_to_vllms_sampler_is_a_distribution(engine: VllmGenerator, monkeypatch: pytest.MonkeyPatch) -> None:
    from dail_runtime.rewrite.vllm_plugin.processor import PolicyProcessor

    apply, masses = PolicyProcessor.apply, []

    def watched(processor: PolicyProcessor, logits: torch.Tensor) -> torch.Tensor:
        masses.append(torch.softmax(apply(processor, logits), dim=-1).sum(dim=-1))
        return logits

    monkeypatch.setattr(PolicyProcessor, "apply", watched)
    drawn(engine, requests(2, 2), HOW)
    assert torch.cat(masses).sub(1).abs().max() < 1e-5


@pytest.mark.parametrize("policy", [DirectPolicy(), MIXED], ids=["direct", "mixed"])
def test_samples_are_those_of_the_transformers_engine(engine: VllmGenerator, spec: ModelSpec, policy: DirectPolicy | MixedPolicy) -> None:
    how = replace(HOW, policy=policy)
    asked = requests(12, 3)
    if policy is not MIXED:
        asked = [replace(request, contexts=request.contexts[1:]) for request in asked]
    other = TransformersGenerator(load_model(spec, device=torch.device("cpu")), load_tokenizer(spec), length=LENGTH, batch_size=32)
    expected, found = drawn(other, asked, how), drawn(engine, asked, how)
    assert found.keys() == expected.keys()
    same = [place for place in expected if found[place].ids == expected[place].ids]
    # A draw that lies within rounding of the border between two tokens may fall on its other side.
    assert len(same) >= 0.9 * len(expected)
    for place in same:
        assert found[place].logprob == pytest.approx(expected[place].logprob, abs=1e-3)
        assert found[place].distance == pytest.approx(expected[place].distance, abs=1e-3)
        assert (found[place].text, found[place].finish) == (expected[place].text, expected[place].finish)
        assert found[place].accepted == expected[place].accepted
    assert {one.finish for one in found.values()} == {"stop", "length"}
    assert any(one.accepted for one in found.values()) == (policy is MIXED)


def test_order_and_neighbours_do_not_change_samples(engine: VllmGenerator) -> None:
    asked = requests(12, 3)
    whole = drawn(engine, asked, HOW)
    parts = {**drawn(engine, asked[:1], HOW), **drawn(engine, asked[:0:-1], HOW)}
    assert sum(parts[place].ids == whole[place].ids for place in whole) >= 0.9 * len(whole)


@pytest.mark.parametrize(("tau", "context"), [(0.0, 0), (1.5, 1)], ids=["student", "teacher"])
def test_the_ends_of_tau_are_plain_greedy_decoding(engine: VllmGenerator, tau: float, context: int) -> None:
    asked = requests(16, 1)
    for request in asked:
        submit(engine, request.key, request.contexts[context], params(40))
    plain = finished(engine)
    policy = MixedPolicy(kind="mixed", tau=tau)
    found = drawn(engine, asked, Sampling(40, 0.0, 1.0, policy, (), frozenset()))
    assert {key: list(one.ids) for (key, _), one in found.items()} == {key: list(one.token_ids) for key, one in plain.items()}
    assert all(one.accepted == (0 if context else 40) for one in found.values())


@torch.inference_mode()
def test_first_tokens_follow_the_distribution_of_the_retry_loop(engine: VllmGenerator, spec: ModelSpec) -> None:
    count, tau, tries = 1200, 0.02, 3
    (request,) = requests(1, count)
    how = Sampling(1, 1.2, 0.95, MixedPolicy(kind="mixed", tau=tau, tries=tries), (), frozenset())
    found = drawn(engine, [request], how)
    model = load_model(spec, device=torch.device("cpu"))
    logits = [model(torch.tensor([ids])).logits[:, -1] for ids in request.contexts]
    student, teacher = (distribution(row, Shaping.of([1.2], [0.95])).double() for row in logits)
    exact = mixed_law(student, teacher, tau, tries)[0]
    seen = torch.bincount(torch.tensor([one.ids[0] for one in found.values()]), minlength=len(exact)).double()
    assert not seen[exact == 0].any()
    assert surprise(exact * count, seen) < 4
    for one in islice(found.values(), 50):
        assert one.logprob == pytest.approx(float(exact[one.ids[0]].log()), abs=1e-4)


def test_a_response_may_end_at_once(engine: VllmGenerator) -> None:
    ends_at_once(engine)


def test_prompts_fill_the_model_up_to_the_last_token(engine: VllmGenerator) -> None:
    fills_the_model(engine)


def test_prompts_that_are_cached_whole_still_pair_up(engine: VllmGenerator) -> None:
    # Borders of blocks, where the whole prompt but its last token is found in the cache.
    source = random.Random(2)
    contexts = [tuple(source.randrange(20, 300) for _ in range(size)) for size in (33, 65, 64, 2)]
    asked = [Request(str(n), (contexts[n], contexts[n - 1]), tuple(range(4)), n) for n in range(4)]
    assert {one.ids for one in drawn(engine, asked, HOW).values()} == {one.ids for one in drawn(engine, asked, HOW).values()}


def test_a_half_that_vllm_preempts_takes_its_mate_along(engine: VllmGenerator) -> None:
    for role in ("student", "teacher"):
        submit(engine, role, range(30, 60), params(30, half(role, "torn")))
    for _ in range(6):
        engine.vllm.step()
    scheduler = engine.scheduler
    mate, victim = scheduler.running
    scheduler.running.remove(victim)
    scheduler._preempt_request(victim, 0.0)
    engine.vllm.step()
    assert not scheduler.running
    assert (mate.num_preemptions, victim.num_preemptions) == (1, 1)
    found = finished(engine)
    assert len(found["student"].token_ids) == 30
    assert list(found["student"].token_ids) == list(found["teacher"].token_ids)


def test_a_half_whose_mate_is_aborted_ends_with_the_reason(engine: VllmGenerator) -> None:
    for role in ("student", "teacher"):
        submit(engine, role, range(30, 60), params(20, half(role, "widow")))
    engine.vllm.step()
    while engine.scheduler.running[-1].num_output_tokens < 19:
        engine.vllm.step()
    engine.vllm.abort_request(["student"])
    widow = finished(engine)["teacher"]
    # Not even the one token that was left did it draw alone.
    assert (widow.finish_reason, widow.stop_reason) == ("abort", "its mate was aborted")
    assert len(widow.token_ids) == 19


def test_a_mate_that_never_comes_is_not_waited_for_forever(engine: VllmGenerator) -> None:
    submit(engine, "lonely", range(30, 60), params(20, half("student", "nobody", wait=3.0)))
    submit(engine, "double", range(30, 60), params(20, half("student", "nobody", wait=3.0)))
    found = finished(engine)
    assert (found["lonely"].finish_reason, found["lonely"].stop_reason) == ("abort", "its mate did not come within 3 s")
    assert found["double"].stop_reason == "the pair nobody has a student already"


def test_halves_that_drift_apart_fail_loudly_and_are_drawn_again(engine: VllmGenerator, monkeypatch: pytest.MonkeyPatch) -> None:
    from dail_runtime.rewrite.vllm_plugin import processor

    asked = requests(3, 1)
    calm = drawn(engine, asked, HOW)
    force, calls = processor._Group.force, []

    def disturbed(group: processor._Group, logits: torch.Tensor, token: torch.Tensor) -> None:
        calls.append(group)
        force(group, logits, token)
        if len(calls) == 10:
            # Once, some steps in, the teachers get another token than the students.
            logits[group.rows[1], token] = -torch.inf
            logits[group.rows[1], (token + 1) % 300] = torch.inf

    monkeypatch.setattr(processor._Group, "force", disturbed)
    before = engine.scheduler.drawn
    again = drawn(engine, asked, HOW)
    assert engine.scheduler.drawn - before > 2 * sum(len(one.ids) for one in again.values())
    assert {place: one.ids for place, one in again.items()} == {place: one.ids for place, one in calm.items()}


@pytest.mark.parametrize("policy", [DirectPolicy(), MIXED], ids=["direct", "mixed"])
def test_a_model_that_gives_no_numbers_is_refused_at_once(engine: VllmGenerator, policy: DirectPolicy | MixedPolicy) -> None:
    asked = requests(3, 1)
    if policy is not MIXED:
        asked = [replace(request, contexts=request.contexts[1:]) for request in asked]
    model = engine.vllm.engine_core.engine_core.model_executor.driver_worker.worker.get_model()
    norm = model.model.norm.weight.data
    whole = norm.clone()
    before = engine.scheduler.drawn
    try:
        norm[0] = torch.nan
        with pytest.raises(ModelError, match=r"the model gives logits that are not finite numbers; load it with model\.dtype float32"):
            drawn(engine, asked, replace(HOW, policy=policy))
        assert engine.scheduler.drawn - before < 20
    finally:
        norm.copy_(whole)
    assert len(drawn(engine, requests(2, 2), HOW)) == 4


def test_pairs_that_fit_nowhere_are_refused(engine: VllmGenerator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine.scheduler.kv_cache_config, "num_blocks", 6)
    with pytest.raises(SetupError, match=r"0: both contexts need \d+ blocks of KV cache and there are 5; give vLLM more memory"):
        drawn(engine, requests(1, 1), HOW)
    # Nor those for which there is room only in what vLLM keeps free.
    monkeypatch.undo()
    monkeypatch.setattr(engine.scheduler.kv_cache_manager, "watermark_blocks", 116)
    for role in ("student", "teacher"):
        submit(engine, role, range(30, 60), params(40, half(role, "dry")))
    for _ in range(50):
        ended = {output.request_id: output.outputs[0] for output in engine.vllm.step()}
        if ended:
            break
    engine.vllm.abort_request(["student", "teacher"])
    finished(engine)
    assert ended["student"].stop_reason.startswith("both contexts need 6 blocks of KV cache and there are 3; give vLLM more memory")


def test_a_stopped_generation_leaves_the_engine_free(engine: VllmGenerator) -> None:
    stopped = engine.generate(iter(requests(40, 2)), HOW)
    next(stopped)
    stopped.close()
    assert not engine.vllm.has_unfinished_requests()
    assert engine.scheduler.get_num_unfinished_requests() == 0
    assert len(drawn(engine, requests(2, 2), HOW)) == 4


def test_progress_is_told_and_may_stop_the_work(engine: VllmGenerator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dail_runtime.rewrite.vllm_engine.TICK_SECONDS", 0.0)
    told: list[tuple[int, int]] = []
    found = {request.key for request, _ in engine.generate(iter(requests(4, 2)), HOW, tick=lambda *now: told.append(now))}
    assert len(found) == 4
    assert told == sorted(told)
    assert told[0][0] == 0
    assert told[-1][1] > 8


def test_requests_that_vllm_would_change_are_refused(engine: VllmGenerator) -> None:
    from vllm.exceptions import VLLMValidationError
    from vllm.sampling_params import RepetitionDetectionParams, StructuredOutputsParams

    from dail_runtime.rewrite.vllm_plugin.processor import PolicyProcessor

    settings = params(5, half("single", ""))

    def changed(name: str, value: Any) -> Any:
        other = settings.clone()
        setattr(other, name, value)
        return other

    for name, value in (("temperature", 0.7), ("logprobs", 0), ("repetition_penalty", 1.2), ("allowed_token_ids", [30, 31])):
        with pytest.raises(VLLMValidationError, match=f"requests with dail's arguments .* {name}"):
            submit(engine, "odd", range(30, 40), changed(name, value))
    # Those that an engine without a tokenizer refuses by itself, or heeds only where it was started for them.
    repeated = RepetitionDetectionParams(max_pattern_size=2, min_count=2)
    others: list[tuple[str, Any]] = [("repetition_detection", repeated), ("structured_outputs", StructuredOutputsParams(regex="a*"))]
    others += [("thinking_token_budget", 0), ("trace_decode_token_ids", [30]), ("stop", ["a"]), ("n", 2)]
    PolicyProcessor.validate_params(settings)
    for name, value in others:
        with pytest.raises(ValueError, match=f"requests with dail's arguments take no {name}:"):
            PolicyProcessor.validate_params(changed(name, value))


@pytest.mark.usefixtures("engine")
def test_as_many_sequences_as_a_job_may_name_fit_into_a_step(spec: ModelSpec) -> None:
    from vllm.engine.arg_utils import EngineArgs

    stock = arguments(Path(spec.id), length=LENGTH, dtype=torch.float32)
    for most in (2, 2048, 2049, 2 * 4096):
        scheduler = EngineArgs(**stock, **sequences(most)).create_engine_config().scheduler_config
        assert scheduler.max_num_seqs == most <= scheduler.max_num_batched_tokens


@pytest.mark.usefixtures("engine")
def test_a_changed_hook_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    check.check_version()
    where, method, _ = check.HOOKS[0]
    monkeypatch.setattr(check, "HOOKS", ((where, method, ("self", "other")),))
    with pytest.raises(SetupError, match=r"relies on .*add_request taking self, other, and in this vLLM 0\.32"):
        check.check_version()
    monkeypatch.setattr(check, "HOOKS", ((where, "vanished", ("self",)),))
    with pytest.raises(SetupError, match=r"which this vLLM .* lacks"):
        check.check_version()
    monkeypatch.setattr(check, "HOOKS", ())
    monkeypatch.setattr(check, "FIELDS", ((check.FIELDS[0][0], ("total_num_scheduled_tokens", "vanished")),))
    with pytest.raises(SetupError, match=r"SchedulerOutput having vanished, which this vLLM .* lacks"):
        check.check_version()
