"""The figure of a pollution study."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sims_core.reports.drawing import COLOURS
from sims_core.reports.summary import Curve, RunSummary


def _band(axes: Axes, curve: Curve, figure: str, colour: str) -> None:
    """A line through the means; the interval over seeds as a band, every seed as a dot."""
    found = [point.figures[figure] for point in curve.points]
    x = [point.x for point in curve.points]
    axes.plot(x, [each.mean for each in found], marker="o", color=colour, label=curve.name)
    if found[0].low is not None:
        low, high = (np.array([getattr(each, end) for each in found]) for end in ("low", "high"))
        axes.fill_between(x, low, high, color=colour, alpha=0.15, linewidth=0)
    for at, each in zip(x, found, strict=True):
        axes.scatter([at] * each.n, each.values, s=9, color=colour, alpha=0.5, linewidths=0)
    axes.axhline(found[0].mean, color=colour, linewidth=0.9, linestyle="--")


def pollution_figure(summary: RunSummary) -> Figure:
    """The main figure over |D_p|: polluted as lines, ideal dashed, the first model dotted."""
    figure = Figure(figsize=(7.5, 4.4), layout="constrained")
    axes = figure.subplots()
    first, *curves = summary.curves
    for number, curve in enumerate(curves):
        _band(axes, curve, summary.figure, COLOURS[number % len(COLOURS)])
    level = first.points[0].figures[summary.figure].mean
    axes.axhline(level, color="#868e96", linewidth=1, linestyle=":", label=first.name)
    axes.set_xlabel("polluting samples |D_p|", fontsize=9)
    axes.set_ylabel(f"{summary.figure} (lower is better)", fontsize=9)
    axes.set_title("polluted: lines; ideal (real data only): dashed", fontsize=9)
    axes.tick_params(labelsize=8)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(fontsize=8, frameon=False)
    return figure
