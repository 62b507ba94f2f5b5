"""Draft-and-verify on a real vLLM server that knows nothing of dail: its responses have the policy's law."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch

from dail_runtime.errors import SetupError
from dail_runtime.models import load_model, load_tokenizer, pick_device
from dail_runtime.rewrite.engine import Request, Sampling
from dail_runtime.rewrite.transformers_engine import TransformersGenerator
from dail_runtime.rewrite.vllm_http.engine import VllmHttpGenerator
from dail_runtime.spec.model import ModelSpec
from dail_runtime.spec.rewrite import DirectPolicy, MixedPolicy, VllmHttpEngine
from tests.support.drawing import HOW, LENGTH, drawn, requests
from tests.support.law import LAW, assert_law
from tests.support.servers import VllmServer, vllm_server

pytestmark = [pytest.mark.engine, pytest.mark.slow]


@pytest.fixture(scope="module")
def server(spec: ModelSpec, tmp_path_factory: pytest.TempPathFactory) -> Iterator[VllmServer]:
    """Stock vLLM, started as the README says."""
    words = ["--model", spec.id, "--max-model-len", str(LENGTH), "--max-logprobs", "-1", "--enforce-eager", "--dtype", "float32"]
    with pytest.MonkeyPatch.context() as patch:
        if pick_device().type == "cpu":
            words.append("--no-enable-chunked-prefill")
            # It would compile its ranking of log-probabilities, for half a minute.
            patch.setenv("TORCHDYNAMO_DISABLE", "1")
        with vllm_server(words, tmp_path_factory.mktemp("server") / "log", module="vllm.entrypoints.openai.api_server") as one:
            yield one


@pytest.fixture
def engine(spec: ModelSpec, server: VllmServer) -> Iterator[VllmHttpGenerator]:
    named = VllmHttpEngine(kind="vllm-http", servers=(server.url,), inFlight=32, withoutPlugin="draft-and-verify")
    one = VllmHttpGenerator.open(named, spec)
    yield one
    one.close()


def test_it_is_never_chosen_silently(spec: ModelSpec, server: VllmServer) -> None:
    engine = VllmHttpGenerator.open(VllmHttpEngine(kind="vllm-http", servers=(server.url,)), spec)
    with pytest.raises(SetupError, match=r"lacks dail's vLLM plugin, which mixed rewriting needs; start it with .* draft-and-verify"):
        drawn(engine, requests(1, 1), HOW)
    alone = [replace(request, contexts=request.contexts[:1]) for request in requests(4, 2)]
    assert len(drawn(engine, alone, replace(HOW, policy=DirectPolicy()))) == 8
    engine.close()


@pytest.mark.parametrize("tau", [0.0, 0.5, 1.5])
def test_greedy_drafts_are_the_joint_samplers_token_for_token(engine: VllmHttpGenerator, spec: ModelSpec, tau: float) -> None:
    asked = [*requests(5, 1), Request("same", (requests(1, 1)[0].contexts[1],) * 2, (0,), 1)]
    how = Sampling(24, 0.0, 1.0, MixedPolicy(kind="mixed", tau=tau, tries=2), (21,), HOW.eos)
    other = TransformersGenerator(load_model(spec, device=torch.device("cpu")), load_tokenizer(spec), length=LENGTH, batch_size=8)
    found, expected = drawn(engine, asked, how), drawn(other, asked, how)
    assert {place: one.ids for place, one in found.items()} == {place: one.ids for place, one in expected.items()}
    assert {place: one.accepted for place, one in found.items()} == {place: one.accepted for place, one in expected.items()}
    # Where both contexts are one, the student's drafts are kept whole.
    assert found["same", 0].accepted == (0 if tau > 1 else len(found["same", 0].ids))


def test_drafted_responses_have_the_law_of_the_loop(engine: VllmHttpGenerator, spec: ModelSpec) -> None:
    # Short prompts: the server reads the teacher's anew for every draft.
    asked = requests(30, 1, longest=50)
    assert_law(load_model(spec, device=torch.device("cpu")), asked, drawn(engine, asked, LAW))
