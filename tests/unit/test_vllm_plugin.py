"""What the vLLM plugin decides without vLLM: its requests, what comes back, and which settings it refuses."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any

import pytest

from dail_runtime.errors import SetupError
from dail_runtime.rewrite.vllm_plugin import PROCESSOR, WORKER
from dail_runtime.rewrite.vllm_plugin.check import check_settings, check_version
from dail_runtime.rewrite.vllm_plugin.requests import Row, Told, read

STUDENT = Row("student", "p", 2**63 + 1, 3, 0.6, 0.95, tau=0.8, tries=2, suppress=(5, 9), wait=2.5)


def test_a_row_survives_its_way_through_flat_arguments() -> None:
    args = STUDENT.to_args()
    assert Row.of(args) == STUDENT
    assert all(isinstance(value, str | int | float | list) for value in args.values())
    assert Row.of({"other": 1}) is None
    assert Row.of(None) is None


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"dail_role": "judge"}, "dail_role is 'judge'; give single, student or teacher"),
        ({"dail_pair": ""}, "dail_pair names the two halves"),
        ({"dail_role": "single"}, "dail_pair names the two halves"),
        ({"dail_seed": -1}, "out of range"),
        ({"dail_suppress": [-1]}, "out of range"),
        ({"dail_top_p": 0}, "out of range"),
        ({"dail_colour": 1}, "dail_colour: dail's plugin has no such argument"),
        ({"dail_suppress": 5}, "cannot be read"),
    ],
)
def test_arguments_that_make_no_sense_are_refused(change: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        Row.of({**STUDENT.to_args(), **change})


def test_a_missing_argument_is_named() -> None:
    args = STUDENT.to_args()
    del args["dail_seed"]
    with pytest.raises(ValueError, match="dail_seed is missing"):
        Row.of(args)


def test_values_are_read_back() -> None:
    assert read([-0.5, -0.25]) == Told(-0.75, 0, 0.0)
    assert read([-0.5, 0.0, -1.0], [2.25, 0.5, 3.0]) == Told(-1.5, 2, 1.75)


def settings(**changes: Any) -> SimpleNamespace:
    """A VllmConfig as the plugin wants it, but for `changes` ("section.name" with __ for the dot)."""
    config = SimpleNamespace(
        use_v2_model_runner=False,
        speculative_config=None,
        kv_transfer_config=None,
        scheduler_config=SimpleNamespace(
            async_scheduling=False,
            policy="fcfs",
            enable_chunked_prefill=True,
            max_num_seqs=2,
            max_num_active_seqs=None,
            max_num_scheduled_tokens=None,
        ),
        parallel_config=SimpleNamespace(pipeline_parallel_size=1, data_parallel_size=1, worker_cls=WORKER),
        model_config=SimpleNamespace(logits_processors=[PROCESSOR]),
    )
    for path, value in changes.items():
        section, _, name = path.rpartition("__")
        setattr(getattr(config, section) if section else config, name, value)
    return config


@pytest.mark.parametrize(
    ("changes", "remedy"),
    [
        ({"use_v2_model_runner": True}, "set VLLM_USE_V2_MODEL_RUNNER=0"),
        ({"scheduler_config__async_scheduling": True}, "add --no-async-scheduling"),
        ({"scheduler_config__policy": "priority"}, "leave out --scheduling-policy"),
        ({"scheduler_config__enable_chunked_prefill": False}, "--no-enable-chunked-prefill"),
        ({"scheduler_config__max_num_seqs": 1}, "raise --max-num-seqs"),
        ({"scheduler_config__max_num_active_seqs": 1}, "leave out --max-num-active-seqs"),
        ({"scheduler_config__max_num_scheduled_tokens": 1}, "leave out --max-num-scheduled-tokens"),
        ({"speculative_config": object()}, "leave out --speculative-config"),
        ({"kv_transfer_config": object()}, "leave out --kv-transfer-config"),
        ({"parallel_config__pipeline_parallel_size": 2}, "use --tensor-parallel-size"),
        ({"parallel_config__data_parallel_size": 2}, "one server for each"),
        ({"parallel_config__worker_cls": "auto"}, "add --worker-cls dail_runtime"),
        ({"model_config__logits_processors": None}, "add --logits-processors dail_runtime"),
    ],
)
def test_settings_that_break_the_lockstep_are_refused(changes: dict[str, Any], remedy: str) -> None:
    check_settings(settings())
    with pytest.raises(SetupError, match=remedy):
        check_settings(settings(**changes))


def test_without_vllm_a_sentence_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "vllm", None)
    with pytest.raises(SetupError, match="install dail with the extra `vllm`"):
        check_version()


def test_another_vllm_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "vllm", SimpleNamespace(__version__="0.33.1"))
    with pytest.raises(SetupError, match=r"made for vLLM 0\.32\.x, and this is 0\.33\.1"):
        check_version()
