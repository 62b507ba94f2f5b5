"""The report says what the figures say, and nothing in it can act."""

from __future__ import annotations

import re

import pytest

from dail_runtime.evaluate.records import Interval
from dail_runtime.report import Report, render
from dail_runtime.report.charts import moving_mean
from dail_runtime.report.verdict import rivals, verdict
from tests.support.reports import HOSTILE, curve_rows, figures, report


def between(low: float, high: float) -> Interval:
    return Interval(value=(low + high) / 2, low=low, high=high)


def test_a_gain_is_claimed_only_where_the_whole_interval_is_above_zero() -> None:
    models = {"base": figures(0.1), "tuned": figures(0.2, over_base=between(0.02, 0.18))}
    found = verdict("test", "tuned", models)
    assert found.gain is True
    assert "+10.0 points (+2.0 to +18.0) more" in found.sentence


def test_a_difference_that_may_be_chance_is_no_gain() -> None:
    found = verdict("test", "tuned", {"base": figures(0.1), "tuned": figures(0.2, over_base=between(-0.01, 0.2))})
    assert found.gain is False
    assert "may be chance" in found.sentence


def test_a_loss_is_called_a_loss() -> None:
    found = verdict("test", "tuned", {"base": figures(0.2), "tuned": figures(0.1, over_base=between(-0.2, -0.01))})
    assert found.gain is False
    assert "a loss" in found.sentence


def test_without_base_there_is_no_verdict() -> None:
    found = verdict("test", "tuned", {"tuned": figures(0.2)})
    assert found.gain is None
    assert "base was not evaluated" in found.sentence


def test_a_variant_that_beats_the_primary_one_is_named() -> None:
    models = {
        "tuned": figures(0.2),
        "nll": figures(0.4, over_primary=between(0.1, 0.3)),
        "sft": figures(0.3, over_primary=between(-0.1, 0.3)),
    }
    assert rivals("tuned", models) == ["nll does better than tuned: +20.0 points (+10.0 to +30.0) at pass@1."]


def test_report_json_has_the_keys_others_rely_on() -> None:
    models = {"base": figures(0.1), "tuned": figures(0.2, over_base=between(0.02, 0.18))}
    made = report(models).model_dump(mode="json")
    assert made["verdict"]["gain"] is True
    assert made["variants"]["tuned"]["passAt"]["1"] == {"value": 0.2, "low": 0.2 - 0.05, "high": 0.25}
    assert made["variants"]["base"]["meanTokens"] == 61.5
    assert made["variants"]["base"]["unparsed"] == 0.02
    assert made["stages"]["train"]["seconds"] == 12.5
    assert made["dropped"]["wrong"] == 12
    assert Report.model_validate(made) == report(models)


def test_texts_of_users_and_models_are_escaped() -> None:
    page = render(report({"base": figures(0.1), "tuned": figures(0.2, over_base=between(0.0, 0.2))}, text=HOSTILE), {"tuned": curve_rows()})
    assert "<script" not in page
    assert "<img" not in page
    assert "{{ 7 * 7 }}" in page


def test_the_page_asks_for_nothing_outside_itself() -> None:
    page = render(report({"base": figures(0.1), "tuned": figures(0.2, over_base=between(0.0, 0.2))}), {"tuned": curve_rows()})
    assert not re.findall(r"""(?:src|href)=["'](?!#|data:)[^"']*""", page)
    assert "@import" not in page
    assert "url(http" not in page


def test_a_column_without_values_has_no_chart() -> None:
    page = render(report({"base": figures(0.1)}), {"tuned": curve_rows()})
    assert "KL to the teacher" in page
    assert "mass on the teacher" not in page


def test_the_same_run_gives_the_same_page() -> None:
    made = report({"base": figures(0.1), "tuned": figures(0.2, over_base=between(0.0, 0.2))})
    assert render(made, {"tuned": curve_rows()}) == render(made, {"tuned": curve_rows()})


def test_gpu_hours_are_shown_where_a_cluster_gave_gpus() -> None:
    plain = report({"base": figures(0.1)})
    assert "GPU-hours" not in render(plain, {})
    train = plain.stages["train"].model_copy(update={"gpu_hours": {"nvidia.com/gpu": 1.5}, "tokens": 12_000, "stored": 4_600_000})
    page = render(plain.model_copy(update={"stages": {"train": train}}), {})
    assert "GPU-hours" in page
    assert "1.50 <span" in page
    assert "12,000" in page
    assert '<td class="number">4.6</td>' in page


def test_a_moving_mean_keeps_the_mean_of_its_window_and_fewer_values_at_the_ends() -> None:
    assert moving_mean([1.0, 2.0, 6.0, 3.0], 3) == [1.5, 3.0, pytest.approx(11 / 3), 4.5]
    assert moving_mean([5.0], 9) == [5.0]


def test_every_trained_model_has_its_row_in_the_chart_of_gains() -> None:
    gains = {"tuned": figures(0.2, over_base=between(0.02, 0.18)), "sft": figures(0.1, over_base=between(-0.2, -0.1))}
    page = render(report({"base": figures(0.1), **gains}), {})
    chart = page[page.index("Gain over base</h3>") : page.index("pass@k</h3>")]
    assert [text for text in ("tuned", "sft", "+10.0", "-15.0", "−15.0") if f">{text}</text>" in chart][:3] == ["tuned", "sft", "+10.0"]
    assert ">base</text>" not in chart
