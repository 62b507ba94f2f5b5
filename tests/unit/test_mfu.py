"""The work of a step, as the benchmark reckons it, against what PyTorch counts while a step runs."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from bench.mfu import peak_flops, step_flops
from dail_runtime.train.batches import collate
from dail_runtime.train.loss import fused_loss
from tests.support.tiny import make_tiny_model
from tests.support.training import make_student, tiny_rows, train_spec


@pytest.mark.parametrize("recompute", [False, True])
def test_the_work_of_a_step_is_what_pytorch_counts(recompute: bool, tmp_path: Path) -> None:
    spec = train_spec(lora={"r": 1}, gradientCheckpointing="on" if recompute else "off")
    student = make_student(make_tiny_model(tmp_path, style="qwen3", hidden=128, layers=3), spec)
    (row,) = tiny_rows(1)
    batch = collate([row.prompts["student"]], [row.response], student.device)
    teacher, negative = (torch.randn(len(row.response), student.width) for _ in range(2))
    with FlopCounterMode(display=False) as counted:
        hidden = student.hidden(batch)
        loss = fused_loss(hidden, student.head, objective="contrastive", teacher=teacher, negative=negative).loss
        torch.autograd.backward(loss)
    expected = step_flops(student.causal.config, [row])
    if recompute:
        # Making activations anew is work, but of no use: it does not count as utilisation.
        assert expected < 0.85 * counted.get_total_flops()
    else:
        assert expected == pytest.approx(counted.get_total_flops(), rel=0.1)


def test_the_peak_of_a_device_that_is_not_known_is_measured() -> None:
    flops, source = peak_flops(torch.device("cpu"), torch.float32)
    assert flops > 1e8
    assert source == "a product of 2048 x 2048 matrices here"
