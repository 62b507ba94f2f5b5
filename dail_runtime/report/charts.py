"""The report's charts: figures as data in, SVG text out. Text stays text, so that a reader can search and copy it."""

from __future__ import annotations

import io
import itertools
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Literal

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter, NullLocator

from dail_runtime.evaluate.records import Interval

PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#7A5195", "#8C6D31")
"""Okabe and Ito's colours, told apart by readers with any colour vision."""

WINDOWS = 25
"""A smoothed curve is the mean over this share of its length."""

GREY = "#6b7280"
"""The untrained model, on every chart."""


@dataclass(frozen=True)
class Curve:
    """A line with an optional band around it."""

    x: Sequence[float]
    y: Sequence[float]
    low: Sequence[float] | None = None
    high: Sequence[float] | None = None


def colours(names: Sequence[str]) -> dict[str, str]:
    """A colour for each model: grey for `base`, the palette in order for the others."""
    trained = [name for name in names if name != "base"]
    return {"base": GREY} | {name: PALETTE[i % len(PALETTE)] for i, name in enumerate(trained)}


def gains_chart(gains: Mapping[str, Interval], *, label: str, colour: Mapping[str, str]) -> str:
    """An SVG element with a row for each model: its difference and 95% interval, in points, beside a line at zero."""
    names = list(gains)[::-1]
    with _style():
        figure = Figure(figsize=(6.4, 0.9 + 0.34 * len(names)), layout="constrained")
        axes = figure.add_subplot()
        axes.axvline(0, color=GREY, linewidth=1)
        for row, name in enumerate(names):
            low, value, high = (100 * end for end in (gains[name].low, gains[name].value, gains[name].high))
            axes.plot([low, high], [row, row], color=colour.get(name, GREY), linewidth=2.4, solid_capstyle="round")
            axes.plot([value], [row], color=colour.get(name, GREY), marker="o", markersize=6.5)
            axes.annotate(f"{value:+.1f}", (value, row), xytext=(0, 7), textcoords="offset points", ha="center", fontsize=9)
        axes.set_yticks(range(len(names)), names)
        axes.set_ylim(-0.6, len(names) - 0.2)
        _dress(axes, label, "", grid="x")
        return _svg(figure, label)


def line_chart(
    curves: Mapping[str, Curve],
    *,
    x_label: str,
    y_label: str,
    log2: bool = False,
    percent: bool = False,
    smooth: bool = False,
    colour: Mapping[str, str] | None = None,
) -> str:
    """An SVG element with one line a curve, its band, a legend, and ticks at the points where `log2` is set.

    `percent` writes shares of 1 as percentages and starts the axis at zero. `smooth` draws long curves as their moving mean, with
    the values themselves pale behind it.
    """
    colour = colour or colours(list(curves))
    with _style():
        figure = Figure(figsize=(6.4, 3.6), layout="constrained")
        axes = figure.add_subplot()
        for name, curve in curves.items():
            marker, shade, y = "o" if len(curve.x) <= 20 else None, colour.get(name, GREY), curve.y
            if smooth and len(curve.x) >= 2 * WINDOWS:
                axes.plot(curve.x, curve.y, color=shade, linewidth=0.8, alpha=0.25)
                y = moving_mean(curve.y, len(curve.y) // WINDOWS)
            axes.plot(curve.x, y, label=name, color=shade, linewidth=1.8, marker=marker, markersize=4)
            if curve.low is not None and curve.high is not None:
                axes.fill_between(curve.x, curve.low, curve.high, color=colour.get(name, GREY), alpha=0.15, linewidth=0)
        _dress(axes, x_label, y_label)
        if log2:
            ticks = sorted({x for curve in curves.values() for x in curve.x})
            axes.set_xscale("log", base=2)
            axes.set_xticks(ticks, [f"{x:g}" for x in ticks])
            axes.xaxis.set_minor_locator(NullLocator())
            axes.xaxis.set_minor_formatter(NullFormatter())
        elif all(x == int(x) for curve in curves.values() for x in curve.x):
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        if percent:
            axes.set_ylim(bottom=0)
            axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:g}%"))
        if len(curves) > 1:
            axes.legend(frameon=False, fontsize=9)
        return _svg(figure, f"{y_label} over {x_label}")


def moving_mean(values: Sequence[float], width: int) -> list[float]:
    """The mean of each value and those around it, `width` of them; fewer at the ends."""
    sums = [0.0, *itertools.accumulate(values)]
    reach = width // 2
    ends = [(max(0, at - reach), min(len(values), at + reach + 1)) for at in range(len(values))]
    return [(sums[last] - sums[first]) / (last - first) for first, last in ends]


def _style() -> AbstractContextManager[None]:
    # A fixed salt gives equal ids for equal charts: the same run gives the same bytes.
    return mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "dail", "font.family": "sans-serif", "font.size": 10})


def _dress(axes: Axes, x_label: str, y_label: str, grid: Literal["x", "y"] = "y") -> None:
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    axes.grid(visible=True, axis=grid, color="#e5e7eb", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color("#9ca3af")


def _svg(figure: Figure, title: str) -> str:
    text = io.StringIO()
    figure.savefig(
        text, format="svg", transparent=True, metadata={"Title": title, "Date": None, "Creator": None, "Format": None, "Type": None}
    )
    svg = text.getvalue()
    # Inside HTML the XML prologue and doctype have no place.
    return svg[svg.index("<svg") :]
