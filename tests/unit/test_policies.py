"""The rewrite policies against what they are defined by: the retry loop, written out."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from dail_runtime.rewrite.policies import MixedDraw, Shaping, direct, distribution, mixed
from dail_runtime.rewrite.streams import BLOCK, uniforms

VOCABULARY = 7


def rows(count: int, seed: int, vocabulary: int = VOCABULARY) -> Tensor:
    return torch.randn(count, vocabulary, generator=torch.Generator().manual_seed(seed)) * 2


def shaping(count: int, temperature: float = 1.0, top_p: float = 1.0, suppress: tuple[int, ...] = ()) -> Shaping:
    return Shaping.of([temperature] * count, [top_p] * count, suppress=suppress)


def ladder(count: int) -> Tensor:
    """Midpoints of `count` equal steps: as uniforms they hit every token in proportion to its mass."""
    return (torch.arange(count, dtype=torch.float64) + 0.5) / count


def sweep(student: Tensor, teacher: Tensor, how: Shaping, tau: float, tries: int, count: int) -> MixedDraw:
    wide = Shaping.of(
        [how.temperature.item()] * count, [how.top_p.item()] * count, suppress=() if how.suppress is None else how.suppress.tolist()
    )
    return mixed(
        student.expand(count, -1), teacher.expand(count, -1), wide, torch.full((count,), tau), torch.full((count,), tries), ladder(count)
    )


def enumerated(student: list[float], teacher: list[float], tau: float, tries: int) -> tuple[list[float], list[float]]:
    """P(token, from the student) and P(token, from the teacher) of the retry loop, summed over every run it can take."""
    from_student, from_teacher = [0.0] * len(student), [0.0] * len(student)
    for proposals in itertools.product(range(len(student)), repeat=tries):
        chance = math.prod(student[one] for one in proposals)
        kept = next((one for one in proposals if teacher[one] >= tau), None)
        if kept is None:
            for token, share in enumerate(teacher):
                from_teacher[token] += chance * share
        else:
            from_student[kept] += chance
    return from_student, from_teacher


def retry_loop(student: Tensor, teacher: Tensor, tau: float, tries: int, count: int, seed: int) -> tuple[Tensor, Tensor]:
    """The loop itself, `count` times: tokens and whether a proposal was kept."""
    source = torch.Generator().manual_seed(seed)
    proposals = torch.multinomial(student.expand(count, -1), tries, replacement=True, generator=source)
    fallback = torch.multinomial(teacher, count, replacement=True, generator=source)
    kept = teacher[proposals] >= tau
    first = kept.to(torch.uint8).argmax(dim=1, keepdim=True)
    return torch.where(kept.any(dim=1), proposals.gather(1, first)[:, 0], fallback), kept.any(dim=1)


def chi_square(seen: Tensor, expected: Tensor) -> float:
    """Pearson's statistic over the cells that are expected at all; cells that never can occur must be empty."""
    assert int(seen[expected == 0].sum()) == 0
    seen, expected = seen[expected > 0].double(), expected[expected > 0].double()
    return float(((seen - expected) ** 2 / expected).sum())


@pytest.mark.parametrize(("tau", "tries"), [(0.0, 1), (0.05, 1), (0.15, 3), (0.3, 2), (0.8, 5), (1.1, 1)])
@pytest.mark.parametrize(("temperature", "top_p"), [(1.0, 1.0), (0.6, 0.95), (1.7, 0.5)])
def test_mixed_has_exactly_the_distribution_of_the_retry_loop(tau: float, tries: int, temperature: float, top_p: float) -> None:
    student, teacher = rows(1, 1, 5), rows(1, 2, 5)
    how = shaping(1, temperature, top_p)
    from_student, from_teacher = enumerated(
        distribution(student, how)[0].double().tolist(), distribution(teacher, how)[0].double().tolist(), tau, tries
    )
    count = 40_000
    draw = sweep(student, teacher, how, tau, tries, count)
    for token in range(5):
        chosen = draw.token == token
        assert (chosen & draw.student).sum() / count == pytest.approx(from_student[token], abs=6e-5)
        assert (chosen & ~draw.student).sum() / count == pytest.approx(from_teacher[token], abs=6e-5)
        if chosen.any():
            expected = math.log(from_student[token] + from_teacher[token])
            assert draw.logprob[chosen].double().numpy() == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize(("tau", "tries"), [(0.1, 1), (0.2, 4)])
def test_many_draws_look_like_those_of_a_brute_force_sampler(tau: float, tries: int) -> None:
    student, teacher, count = rows(1, 3), rows(1, 4), 60_000
    how = shaping(1, 0.8, 0.97)
    looped, kept = retry_loop(distribution(student, how)[0], distribution(teacher, how)[0], tau, tries, count, seed=5)
    noise = torch.rand(count, dtype=torch.float64, generator=torch.Generator().manual_seed(6))
    draw = mixed(
        student.expand(count, -1),
        teacher.expand(count, -1),
        shaping(count, 0.8, 0.97),
        torch.full((count,), tau),
        torch.full((count,), tries),
        noise,
    )
    # Cells are (token, branch); both samples are random, hence the factor 2. 14 cells: the 0.999 quantile is 36.1 at most.
    cells = torch.bincount(draw.token * 2 + draw.student, minlength=2 * VOCABULARY)
    loop_cells = torch.bincount(looped * 2 + kept, minlength=2 * VOCABULARY)
    assert set(torch.nonzero(cells).flatten().tolist()) == set(torch.nonzero(loop_cells).flatten().tolist())
    assert chi_square(cells, loop_cells) / 2 < 36.1


def test_direct_draws_each_token_in_proportion_to_its_probability() -> None:
    count = 40_000
    how = shaping(1, 0.7, 0.9)
    expected = distribution(rows(1, 7), how)[0]
    draw = direct(rows(1, 7).expand(count, -1), shaping(count, 0.7, 0.9), ladder(count))
    shares = torch.bincount(draw.token, minlength=VOCABULARY) / count
    assert shares.numpy() == pytest.approx(expected.numpy(), abs=6e-5)
    assert draw.logprob.numpy() == pytest.approx(expected.log()[draw.token].numpy(), abs=1e-6)


def test_the_nucleus_is_the_smallest_set_that_reaches_top_p() -> None:
    probs = torch.tensor([[0.5, 0.3, 0.15, 0.05], [0.05, 0.15, 0.3, 0.5]])
    cut = distribution(probs.log(), Shaping.of([1.0, 1.0], [0.79, 0.81]))
    assert cut[0].numpy() == pytest.approx([0.625, 0.375, 0, 0], abs=1e-6)
    assert cut[1].numpy() == pytest.approx([0, 0.15 / 0.95, 0.3 / 0.95, 0.5 / 0.95], abs=1e-6)


def test_tokens_as_probable_as_the_last_of_the_nucleus_stay_in_it() -> None:
    probs = torch.tensor([[0.25, 0.4, 0.1, 0.25]])
    assert distribution(probs.log(), shaping(1, top_p=0.6))[0].tolist() == pytest.approx([0.25 / 0.9, 0.4 / 0.9, 0, 0.25 / 0.9])


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    vocabulary=st.integers(2, 300),
    top_p=st.floats(0.01, 0.999),
    temperature=st.sampled_from([0.3, 1.0, 3.0]),
)
def test_the_nucleus_agrees_with_a_plain_sort_and_never_depends_on_its_neighbours(
    seed: int, vocabulary: int, top_p: float, temperature: float
) -> None:
    logits = rows(3, seed, vocabulary)
    logits[2] *= 0.01
    together = distribution(logits, shaping(3, temperature, top_p))
    for row in range(3):
        alone = distribution(logits[row : row + 1], shaping(1, temperature, top_p))
        assert torch.equal(together[row], alone[0])
        full = torch.softmax(logits[row] / temperature, dim=-1)
        ranked = full.sort(descending=True).values
        kept = alone[0] > 0
        # Nothing outside is more probable than anything inside; the mass reaches top_p, and without the last one it does not.
        assert torch.equal(kept, full >= ranked[kept.sum() - 1])
        assert full[kept].sum() >= top_p - 1e-6
        assert full[kept].sum() - ranked[kept.sum() - 1] < top_p + 1e-6


def test_settings_are_those_of_each_row() -> None:
    logits = rows(4, 8)
    mixed_rows = Shaping.of([0.5, 1.0, 0.0, 2.0], [1.0, 0.7, 0.5, 0.9], suppress=[3])
    together = distribution(logits, mixed_rows)
    for row, (temperature, top_p) in enumerate([(0.5, 1.0), (1.0, 0.7), (0.0, 0.5), (2.0, 0.9)]):
        alone = distribution(logits[row : row + 1], shaping(1, temperature, top_p, (3,)))
        assert torch.equal(together[row], alone[0])


def test_suppressed_tokens_are_masked_before_the_softmax() -> None:
    logits = rows(1, 9)
    best = int(logits.argmax())
    probs = distribution(logits, shaping(1, suppress=(best,)))
    kept = [token for token in range(VOCABULARY) if token != best]
    assert probs[0, best] == 0
    assert probs[0, kept].numpy() == pytest.approx(torch.softmax(logits[0, kept], dim=-1).numpy(), abs=1e-6)
    assert int(direct(logits, shaping(1, 0.0, suppress=(best,)), ladder(1)).token) == int(logits[0].topk(2).indices[1])
    # Also where only the teacher wants it: the accepted set never holds it.
    for tau in (0.0, 0.5, 1.1):
        assert not (sweep(rows(1, 10), logits, shaping(1, suppress=(best,)), tau, 2, 1000).token == best).any()


def test_temperature_zero_is_greedy_with_probability_one() -> None:
    draw = direct(rows(5, 11), shaping(5, 0.0), torch.rand(5, dtype=torch.float64))
    assert torch.equal(draw.token, rows(5, 11).argmax(dim=-1))
    assert draw.logprob.tolist() == [0.0] * 5


@pytest.mark.parametrize("temperature", [0.0, 0.8])
def test_tau_zero_is_the_student_and_tau_over_one_is_the_teacher(temperature: float) -> None:
    student, teacher, how, noise = rows(64, 12), rows(64, 13), shaping(64, temperature, 0.9), ladder(64)
    ones = torch.ones(64)
    plain_student, plain_teacher = direct(student, how, noise), direct(teacher, how, noise)
    as_student = mixed(student, teacher, how, 0 * ones, ones, noise)
    as_teacher = mixed(student, teacher, how, 1.1 * ones, ones, noise)
    assert torch.equal(as_student.token, plain_student.token)
    assert as_student.student.all()
    assert torch.equal(as_teacher.token, plain_teacher.token)
    assert not as_teacher.student.any()
    assert as_student.logprob.numpy() == pytest.approx(plain_student.logprob.numpy(), abs=1e-5)
    assert as_teacher.logprob.numpy() == pytest.approx(plain_teacher.logprob.numpy(), abs=1e-5)
    assert not as_teacher.distance.any()


def test_tau_zero_leaves_the_teacher_no_rounding_error_to_draw_from() -> None:
    # Sums of thousands of probabilities miss 1 by some 1e-7; the largest uniform must not fall into that gap.
    edge = torch.full((20,), 1 - 2.0**-53, dtype=torch.float64)
    for seed in range(20):
        student, teacher = rows(20, seed, 5000), rows(20, 100 + seed, 5000)
        assert mixed(student, teacher, shaping(20), torch.zeros(20), torch.ones(20), edge).student.all()


def test_at_temperature_zero_mixed_is_the_greedy_teacher() -> None:
    draw = mixed(rows(64, 14), rows(64, 15), shaping(64, 0.0), torch.full((64,), 0.5), torch.full((64,), 3), ladder(64))
    assert torch.equal(draw.token, rows(64, 15).argmax(dim=-1))
    assert torch.equal(draw.student, rows(64, 14).argmax(dim=-1) == draw.token)


def test_distance_is_the_total_variation_between_mixture_and_teacher() -> None:
    how = shaping(1, 0.9, 0.95)
    student, teacher = distribution(rows(1, 16), how)[0].tolist(), distribution(rows(1, 17), how)[0].tolist()
    for tau, tries in ((0.1, 2), (0.6, 5)):
        from_student, from_teacher = enumerated(student, teacher, tau, tries)
        expected = sum(abs(a + b - c) for a, b, c in zip(from_student, from_teacher, teacher, strict=True)) / 2
        draw = sweep(rows(1, 16), rows(1, 17), how, tau, tries, 3)
        assert draw.distance.tolist() == pytest.approx([expected] * 3, abs=1e-6)
        assert tau < 0.5 or expected <= 1 - tau


def test_no_uniform_draws_a_token_of_probability_zero() -> None:
    # The nucleus cuts the last tokens, so that a sum which misses 1 by rounding would fall off the end.
    logits = torch.full((3, 1000), -1.0)
    logits[:, 400] = 9.0
    edge = torch.tensor([0.0, 1 - 2.0**-53, 1 - 2.0**-24], dtype=torch.float64)
    assert direct(logits, shaping(3, top_p=0.5), edge).token.tolist() == [400] * 3
    sparse = torch.full((3, 1000), -torch.inf)
    sparse[:, [3, 500]] = 0.0
    assert direct(sparse, shaping(3), edge).token.tolist() == [3, 500, 500]


def test_half_precision_logits_are_shaped_in_fp32() -> None:
    logits = rows(4, 18).bfloat16()
    assert torch.equal(distribution(logits, shaping(4, 0.6, 0.9)), distribution(logits.float(), shaping(4, 0.6, 0.9)))


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_logits_that_are_not_numbers_show_in_the_log_probability(temperature: float) -> None:
    logits = rows(2, 19)
    logits[1, 2] = torch.nan
    for draw in (
        direct(logits, shaping(2, temperature, 0.9), ladder(2)),
        mixed(logits, rows(2, 20), shaping(2, temperature), torch.zeros(2), torch.ones(2), ladder(2)),
        mixed(rows(2, 20), logits, shaping(2, temperature), torch.full((2,), 0.5), torch.ones(2), ladder(2)),
    ):
        assert draw.logprob.isnan().tolist() == [False, True]


def test_the_inputs_are_left_as_they_are() -> None:
    student, teacher = rows(2, 21), rows(2, 22)
    mixed(student, teacher, shaping(2, 0.5, 0.5, (1,)), torch.full((2,), 0.2), torch.ones(2), ladder(2))
    assert torch.equal(student, rows(2, 21))
    assert torch.equal(teacher, rows(2, 22))


def test_streams_differ_between_problems_samples_and_blocks_and_are_always_the_same() -> None:
    seen = {tuple(uniforms(seed, index, block)) for seed in (1, 2, 2**63) for index in (0, 1) for block in (0, 1)}
    assert len(seen) == 12
    assert uniforms(1, 0, 1).tolist() == uniforms(1, 0, 1).tolist()
    assert uniforms(1, 0, 1, 3).tolist() == [value for block in (1, 2, 3) for value in uniforms(1, 0, block)]
    # Pinned: a stream must stay what it is over versions of numpy, or resumed runs would mix two.
    assert uniforms(1, 2, 3)[:3].tolist() == [0.16737645914510535, 0.7803261691206959, 0.3293524570233226]


def test_uniforms_are_uniform() -> None:
    values = torch.tensor([uniforms(9, index, 0).tolist() for index in range(500)]).flatten()
    assert len(values) == 500 * BLOCK
    seen = torch.histc(values, bins=20, min=0, max=1)
    assert chi_square(seen, torch.full((20,), len(values) / 20)) < 43.8
    assert values.min() >= 0
    assert values.max() < 1
