"""The transformers engine on tiny models: what it draws, that nothing around a sample changes it, and where it ends."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import torch
from transformers import PreTrainedModel

from dail_runtime.errors import Interrupted, ModelError, SetupError
from dail_runtime.models import load_model, load_tokenizer
from dail_runtime.records import Sample
from dail_runtime.rewrite.engine import Engine, Request, Sampling, open_engine, problem_seed
from dail_runtime.rewrite.limits import limits
from dail_runtime.rewrite.memory import Room
from dail_runtime.rewrite.policies import Draw, Shaping, direct, mixed
from dail_runtime.rewrite.slots import use_slots
from dail_runtime.rewrite.streams import BLOCK, uniforms
from dail_runtime.rewrite.text import Decoder
from dail_runtime.rewrite.transformers_engine import TransformersGenerator
from dail_runtime.spec.model import ModelSpec
from dail_runtime.spec.rewrite import DirectPolicy, MixedPolicy, TransformersEngine, VllmHttpEngine
from tests.support.tiny import Style, make_tiny_model

CPU = torch.device("cpu")
ENDS = frozenset({7, 9, 11, 13, 15})
"""Ids that end a response here: with five of them random models stop after some 50 tokens."""
MIXED = MixedPolicy(kind="mixed", tau=0.05, tries=2)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[Style, Path]:
    styles: tuple[Style, ...] = ("qwen3", "qwen2.5")
    return {style: make_tiny_model(tmp_path_factory.mktemp("model"), style=style) for style in styles}


@pytest.fixture(scope="module")
def spec(folders: dict[Style, Path]) -> ModelSpec:
    return ModelSpec(id=str(folders["qwen3"]))


def generator(spec: ModelSpec, *, batch_size: int | None = 16, length: int = 4096, responses: int | None = None) -> TransformersGenerator:
    return TransformersGenerator(
        load_model(spec, device=CPU), load_tokenizer(spec), length=length, batch_size=batch_size, responses=responses
    )


def sampling(
    max_tokens: int = 40,
    temperature: float = 0.9,
    top_p: float = 0.97,
    policy: DirectPolicy | MixedPolicy = DirectPolicy(),  # noqa: B008 (frozen)
    suppress: tuple[int, ...] = (),
    eos: frozenset[int] = ENDS,
) -> Sampling:
    return Sampling(max_tokens, temperature, top_p, policy, suppress, eos)


def prompt(seed: int, length: int) -> tuple[int, ...]:
    source = random.Random(seed)
    return tuple(source.randrange(20, 300) for _ in range(length))


def requests(count: int, samples: int, contexts: int = 1) -> list[Request]:
    sizes = itertools.cycle([5, 64, 33, 70, 1, 128])
    return [
        Request(
            str(number),
            tuple(prompt(10 * number + context, next(sizes)) for context in range(contexts)),
            tuple(range(samples)),
            problem_seed(0, "rewrite", "", str(number)),
        )
        for number in range(count)
    ]


def drawn(engine: Engine, asked: Sequence[Request], how: Sampling) -> dict[str, tuple[Sample, ...]]:
    return {request.key: samples for request, samples in engine.generate(iter(asked), how)}


@torch.inference_mode()
def logits_after(model: PreTrainedModel, ids: Sequence[int]) -> torch.Tensor:
    """Next-token logits of a plain forward pass, without any cache."""
    return model(torch.tensor([ids])).logits[:, -1]


@pytest.mark.parametrize("style", ["qwen3", "qwen2.5"])
def test_greedy_decoding_agrees_with_transformers_own(folders: dict[Style, Path], style: Style) -> None:
    spec = ModelSpec(id=str(folders[style]))
    model = load_model(spec, device=CPU)
    # Around block and chunk borders; the last takes five chunks.
    prompts = [prompt(length, length) for length in (1, 63, 64, 65, 600)]
    expected = [
        model.generate(
            torch.tensor([ids]), attention_mask=torch.ones(1, len(ids)), do_sample=False, max_new_tokens=70, eos_token_id=sorted(ENDS)
        )[0, len(ids) :].tolist()
        for ids in prompts
    ]
    found = drawn(
        generator(spec), [Request(str(n), (ids,), (0,), n) for n, ids in enumerate(prompts)], sampling(max_tokens=70, temperature=0)
    )
    assert [list(found[str(n)][0].ids) for n in range(len(prompts))] == expected


@pytest.mark.parametrize("policy", [DirectPolicy(), MIXED], ids=["direct", "mixed"])
def test_a_sample_is_what_the_policy_draws_from_plain_forward_passes(spec: ModelSpec, policy: DirectPolicy | MixedPolicy) -> None:
    contexts = 2 if policy is MIXED else 1
    request = Request("x", tuple(prompt(c, 50 + 30 * c) for c in range(contexts)), (3,), 99)
    how = sampling(max_tokens=BLOCK + 6, policy=policy, suppress=(21,), eos=frozenset())
    (sample,) = drawn(generator(spec), [request], how)["x"]
    model = load_model(spec, device=CPU)
    shaping = Shaping.of([how.temperature], [how.top_p], suppress=how.suppress)
    logprob = accepted = distance = 0.0
    for step, token in enumerate(sample.ids):
        rows = [logits_after(model, (*ids, *sample.ids[:step])) for ids in request.contexts]
        noise = torch.from_numpy(uniforms(99, 3, step // BLOCK))[step % BLOCK][None]
        draw: Draw
        if policy is MIXED:
            draw = mixed(rows[0], rows[1], shaping, torch.tensor([MIXED.tau]), torch.tensor([MIXED.tries]), noise)
            accepted, distance = accepted + int(draw.student), distance + float(draw.distance)
        else:
            draw = direct(rows[0], shaping, noise)
        assert int(draw.token) == token
        logprob += float(draw.logprob)
    assert sample.logprob == pytest.approx(logprob, abs=1e-3)
    assert sample.accepted == accepted
    assert sample.distance == pytest.approx(distance, abs=1e-4)
    assert (accepted > 0) == (policy is MIXED)
    assert sample.finish == "length"
    assert 21 not in sample.ids


@pytest.mark.parametrize(("policy", "dtype"), [(DirectPolicy(), "float32"), (MIXED, "float32"), (MIXED, "bfloat16")])
def test_samples_do_not_depend_on_order_neighbours_or_interruptions(
    spec: ModelSpec, policy: DirectPolicy | MixedPolicy, dtype: str
) -> None:
    spec = spec.model_copy(update={"dtype": dtype})
    how = sampling(max_tokens=90, policy=policy)
    asked = requests(7, 4, 2 if policy is MIXED else 1)
    engine = generator(spec)
    whole = drawn(engine, asked, how)
    assert len({sample.ids for samples in whole.values() for sample in samples}) == 28
    assert {sample.finish for samples in whole.values() for sample in samples} == {"stop", "length"}
    # Everything in another order; one problem alone; only some samples; the rest after a stop in the middle.
    assert drawn(engine, asked[::-1], how) == whole
    assert drawn(engine, asked[2:3], how) == {"2": whole["2"]}
    some = Request("5", asked[5].contexts, (3, 1), asked[5].seed)
    assert drawn(engine, [some], how)["5"] == (whole["5"][3], whole["5"][1])
    stopped = engine.generate(iter(asked), how)
    first, samples = next(stopped)
    stopped.close()
    rest = drawn(generator(spec), [request for request in asked if request.key != first.key], how)
    assert rest | {first.key: samples} == whole


def test_what_prompts_begin_with_in_common_is_computed_once_and_changes_nothing(spec: ModelSpec) -> None:
    common = prompt(1, 300)
    asked = [Request(str(n), ((*common, *prompt(2 + n, 40 + 30 * n)),), (0, 1), n) for n in range(4)]
    asked.append(Request("same", (common[:256],), (0,), 9))
    asked.append(Request("other", (prompt(8, 300),), (0,), 9))
    how = sampling(max_tokens=20)
    engine = generator(spec)
    read: list[int] = []
    assert engine._model is not None
    hook = engine._model.register_forward_pre_hook(lambda _module, inputs: read.append(inputs[0].numel()))
    together = drawn(engine, asked, how)
    hook.remove()
    # Chunks of 128 tokens; steps read 16. 340, 370, 400 and 430 tokens share 256; of 256 tokens the last chunk is always read.
    assert [size for size in read if size != 16] == [128, 128, 128, 128, 128, 64, 128, 64, 128, 128, 128, 64]
    for request in asked:
        assert drawn(generator(spec), [request], how)[request.key] == together[request.key]


def test_an_eos_as_the_first_token_ends_the_response(spec: ModelSpec) -> None:
    everything = frozenset(range(1000))
    (sample,) = drawn(generator(spec), requests(1, 1), sampling(eos=everything))["0"]
    assert len(sample.ids) == 1
    assert sample.finish == "stop"


@pytest.mark.parametrize(("max_tokens", "length", "expected"), [(6, 4096, 6), (40, 80, 16), (40, 65, 1), (1, 4096, 1)])
def test_a_response_ends_at_max_tokens_or_at_the_models_length(spec: ModelSpec, max_tokens: int, length: int, expected: int) -> None:
    engine = generator(spec, length=length)
    request = Request("x", (prompt(1, 64),), (0, 1, 2), 1)
    for sample in drawn(engine, [request], sampling(max_tokens, eos=frozenset()))["x"]:
        assert len(sample.ids) == expected
        assert sample.finish == "length"


def test_a_cut_response_is_the_beginning_of_the_longer_one(spec: ModelSpec) -> None:
    engine = generator(spec)
    whole, cut = (drawn(engine, requests(1, 3), sampling(size, eos=frozenset()))["0"] for size in (300, 30))
    assert [sample.ids[:30] for sample in whole] == [sample.ids for sample in cut]


def test_a_prompt_without_room_for_a_response_is_refused_by_name(spec: ModelSpec) -> None:
    engine = generator(spec, length=64)
    with pytest.raises(ModelError, match=r"problem-7: a prompt of 64 tokens leaves no room"):
        drawn(engine, [Request("problem-7", (prompt(1, 64),), (0,), 1)], sampling())


def test_a_tokenizer_of_another_model_is_known_by_an_id_that_the_model_lacks(spec: ModelSpec) -> None:
    with pytest.raises(ModelError, match=r"problem-7: its prompt holds the token id 9999, .* knows \d+ tokens; the tokenizer"):
        drawn(generator(spec), [Request("problem-7", ((30, 9999),), (0,), 1)], sampling())


def test_requests_are_pulled_as_room_appears(spec: ModelSpec) -> None:
    pulled = 0

    def feed() -> Iterator[Request]:
        nonlocal pulled
        for request in requests(300, 2):
            pulled += 1
            yield request

    seen = 0
    for _ in generator(spec).generate(feed(), sampling(max_tokens=3)):
        seen += 1
        # 16 slots are 8 requests of two samples.
        assert pulled - seen <= 9
    assert seen == 300


def test_more_samples_than_slots_are_drawn_in_turn(spec: ModelSpec) -> None:
    engine = generator(spec, batch_size=16)
    (samples,) = drawn(engine, requests(1, 50), sampling(max_tokens=20)).values()
    assert [sample.index for sample in samples] == list(range(50))
    assert engine.facts() == {"batch_size": 16}


def test_a_request_for_no_samples_comes_back_empty(spec: ModelSpec) -> None:
    asked = [Request("a", (prompt(1, 5),), (), 1), *requests(1, 1)]
    assert drawn(generator(spec), asked, sampling(max_tokens=2))["a"] == ()


def test_the_callers_mistakes_are_named(spec: ModelSpec) -> None:
    engine = generator(spec)
    with pytest.raises(ValueError, match=r"0: the policy mixed takes 2 context"):
        drawn(engine, requests(1, 1), sampling(policy=MIXED))
    with pytest.raises(ValueError, match="asked for twice"):
        drawn(engine, [Request("a", (prompt(1, 5),), (1, 1), 1)], sampling())
    engine.close()
    engine.close()
    with pytest.raises(RuntimeError, match="closed"):
        drawn(engine, requests(1, 1), sampling())


def test_tick_tells_the_progress_and_may_stop_the_work(spec: ModelSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dail_runtime.rewrite.transformers_engine.TICK_SECONDS", 0.0)
    told: list[tuple[int, int]] = []

    def tick(samples: int, tokens: int) -> None:
        told.append((samples, tokens))
        if len(told) == 10:
            raise Interrupted("stop")

    with pytest.raises(Interrupted):
        list(generator(spec).generate(requests(2, 2), sampling(eos=frozenset()), tick=tick))
    assert told == [(0, 4 * step) for step in range(1, 11)]


def test_weights_that_are_not_numbers_are_an_error_and_not_a_trace(spec: ModelSpec) -> None:
    model = load_model(spec, device=CPU)
    model.model.norm.weight[0] = torch.nan
    engine = TransformersGenerator(model, load_tokenizer(spec), length=4096, batch_size=16)
    with pytest.raises(ModelError, match="not finite"):
        drawn(engine, requests(1, 1), sampling())


def test_a_batch_that_memory_cannot_hold_is_refused_before_work_begins(spec: ModelSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dail_runtime.rewrite.memory.memory_total", lambda _: 200 * 2**20)
    # 1 kB a position, so 4096 positions are 4 MiB a response: some 20 of them are 100 MiB less the weights.
    with pytest.raises(SetupError, match=r"problem: 64 responses of up to 4096 tokens .* set rewrite.engine.batchSize to 16 or less"):
        drawn(generator(spec, batch_size=64), [Request("problem", (prompt(1, 96),), (0,), 1)], sampling(4000))
    engine = generator(spec, batch_size=None)
    assert list(drawn(engine, [Request("problem", (prompt(1, 96),), (0,), 1)], sampling(4000, eos=frozenset(range(999)))))
    assert engine.facts() == {"batch_size": 16}


def test_the_automatic_batch_size_follows_from_model_machine_and_task(spec: ModelSpec) -> None:
    room = Room(CPU, load_model(spec, device=CPU))
    shape = {"position": 1024, "length": 2048, "vocabulary": 432}
    assert room.automatic(**shape, contexts=1, responses=None) == 256
    assert room.automatic(**shape, contexts=1, responses=33) == 48
    assert room.automatic(**shape, contexts=2, responses=33) == 40
    room.parameters = 135_000_000
    assert room.automatic(**shape, contexts=1, responses=None) == 64


def test_models_that_the_cache_cannot_hold_are_refused(spec: ModelSpec) -> None:
    model = load_model(spec, device=CPU)
    model.config.layer_types = ["linear_attention", "full_attention"]
    with pytest.raises(ModelError, match="layers of type 'linear_attention'"):
        use_slots(model)
    model.config.layer_types = ["full_attention", "full_attention"]
    model.config.rope_parameters = {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}
    with pytest.raises(ModelError, match="'dynamic' position scaling"):
        use_slots(model)


def test_a_sliding_window_is_never_overrun_in_silence(spec: ModelSpec) -> None:
    model = load_model(spec, device=CPU)
    model.model.layers[0].self_attn.sliding_window = 128
    engine = TransformersGenerator(model, load_tokenizer(spec), length=4096, batch_size=16)
    assert drawn(engine, [Request("short", (prompt(1, 60),), (0,), 1)], sampling(20))
    with pytest.raises(ModelError, match="sliding window of 128 tokens"):
        drawn(engine, [Request("long", (prompt(1, 120),), (0,), 1)], sampling(20, eos=frozenset()))


def test_text_leaves_special_tokens_out_and_keeps_the_marks_of_thinking(spec: ModelSpec) -> None:
    tokenizer = load_tokenizer(spec)
    decode = Decoder(tokenizer)
    text = "<think>\nLet $x = 3$ .\n</think>\n\n\\boxed{ 3 } , and"
    ids = tokenizer.encode(text, add_special_tokens=False)
    assert decode([*ids, tokenizer.eos_token_id, tokenizer.pad_token_id]) == text
    tokenizer.add_special_tokens({"additional_special_tokens": ["</think>"]})
    assert Decoder(tokenizer)([*ids, tokenizer.eos_token_id]) == text
    assert decode([431]) == ""


def test_every_eos_of_the_generation_config_ends_a_response(spec: ModelSpec) -> None:
    tokenizer = load_tokenizer(spec)
    assert limits(spec, tokenizer) == (frozenset({tokenizer.eos_token_id, tokenizer.pad_token_id}), 4096)


def test_open_engine_loads_what_the_job_names(spec: ModelSpec) -> None:
    engine = open_engine(TransformersEngine(), spec, responses=20)
    (samples,) = drawn(engine, requests(1, 2), sampling(max_tokens=3)).values()
    assert len(samples) == 2
    assert engine.facts() == {"batch_size": 32}
    engine.close()


def test_servers_of_another_engine_are_refused(spec: ModelSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SetupError, match=r"no server is named: start one with python -m dail_runtime\.serve"):
        open_engine(VllmHttpEngine(kind="vllm-http"), spec)
    monkeypatch.setenv("DAIL_SERVERS", "http://somewhere:8000")
    with pytest.raises(SetupError, match=r"DAIL_SERVERS names servers, but the job's rewrite.engine is transformers"):
        open_engine(TransformersEngine(), spec)


def test_problem_seeds_differ_by_every_part_of_the_name() -> None:
    names = [(0, "rewrite", "", "a"), (1, "rewrite", "", "a"), (0, "evaluate", "", "a"), (0, "rewrite", "a", ""), (0, "rewrite", "", "b")]
    seeds = [problem_seed(*name) for name in names]
    assert len(set(seeds)) == 5
    assert all(0 <= seed < 2**63 for seed in seeds)
    # Pinned: another seed would mean other traces for an unchanged job.
    assert seeds[0] == 1132490592129010032
