"""The report's charts: figures as data in, SVG text out. Text stays text, so that a reader can search and copy it."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter, NullLocator

PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#7A5195", "#8C6D31")
"""Okabe and Ito's colours, told apart by readers with any colour vision."""

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


def line_chart(
    curves: Mapping[str, Curve],
    *,
    x_label: str,
    y_label: str,
    log2: bool = False,
    percent: bool = False,
    colour: Mapping[str, str] | None = None,
) -> str:
    """An SVG element with one line a curve, its band, a legend, and ticks at the points where `log2` is set.

    `percent` writes shares of 1 as percentages and starts the axis at zero.
    """
    colour = colour or colours(list(curves))
    # A fixed salt gives equal ids for equal charts: the same run gives the same bytes.
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "dail", "font.family": "sans-serif", "font.size": 10}):
        figure = Figure(figsize=(6.4, 3.6), layout="constrained")
        axes = figure.add_subplot()
        for name, curve in curves.items():
            marker = "o" if len(curve.x) <= 20 else None
            axes.plot(curve.x, curve.y, label=name, color=colour.get(name, GREY), linewidth=1.8, marker=marker, markersize=4)
            if curve.low is not None and curve.high is not None:
                axes.fill_between(curve.x, curve.low, curve.high, color=colour.get(name, GREY), alpha=0.15, linewidth=0)
        _dress(axes, x_label, y_label)
        if log2:
            ticks = sorted({x for curve in curves.values() for x in curve.x})
            axes.set_xscale("log", base=2)
            axes.set_xticks(ticks, [f"{x:g}" for x in ticks])
            axes.xaxis.set_minor_locator(NullLocator())
            axes.xaxis.set_minor_formatter(NullFormatter())
        if percent:
            axes.set_ylim(bottom=0)
            axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:g}%"))
        if len(curves) > 1:
            axes.legend(frameon=False, fontsize=9)
        return _svg(figure, f"{y_label} over {x_label}")


def _dress(axes: Axes, x_label: str, y_label: str) -> None:
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    axes.grid(visible=True, axis="y", color="#e5e7eb", linewidth=0.8)
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
