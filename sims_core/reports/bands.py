"""Lines of means over seeds with their intervals as bands and every seed as a dot."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sims_core.reports.drawing import COLOURS, generation_ticks
from sims_core.reports.estimates import Estimate
from sims_core.reports.summary import Curve

WITHIN: dict[str, Any] = {"alpha": 0.15, "linewidth": 0}
"""How the inside of an interval is drawn."""


def band(axes: Axes, x: Sequence[float], found: Sequence[Estimate], colour: str) -> None:
    """The intervals, where several seeds give one, and the figure of each seed."""
    if found[0].low is None:
        return
    low, high = (  # NaN, where nothing is drawn, of a generation that one seed alone has ended
        np.array([getattr(each, end) for each in found], dtype=float) for end in ("low", "high")
    )
    axes.fill_between(x, low, high, color=colour, **WITHIN)
    for at, each in zip(x, found, strict=True):
        axes.scatter([at] * each.n, each.values, s=9, color=colour, alpha=0.5, linewidths=0)


def finish(axes: Axes, x: str, y: str, title: str) -> None:
    """Labels and grid as every figure has them."""
    axes.set_xlabel(x, fontsize=9)
    axes.set_ylabel(y, fontsize=9)
    axes.set_title(title, fontsize=9)
    axes.tick_params(labelsize=8)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)


def _line(
    axes: Axes, x: Sequence[float], found: Sequence[Estimate], colour: str, name: str
) -> None:
    means = [each.mean for each in found]
    axes.plot(x, means, marker="o", markersize=4, color=colour, label=name)
    band(axes, x, found, colour)


def differences(curves: Sequence[Curve], metric: str) -> Figure:
    """The main figure of each arm over generations; its difference from the baseline at each, if
    any arm has a baseline."""
    have_baseline = any(point.change is not None for curve in curves for point in curve.points)
    panels = 2 if have_baseline else 1
    figure = Figure(figsize=(5.5 * panels, 4.2), layout="constrained")
    levels, *changes = figure.subplots(1, panels, squeeze=False)[0]
    for number, curve in enumerate(curves):
        colour = COLOURS[number % len(COLOURS)]
        x = [point.x for point in curve.points]
        _line(levels, x, [point.figures[metric] for point in curve.points], colour, curve.name)
        changed = {point.x: point.change for point in curve.points if point.change is not None}
        if changed:
            _line(changes[0], [*changed], [*changed.values()], colour, curve.name)
    finish(levels, "generation t", metric.upper(), f"{metric.upper()} (lower is better)")
    for axes in changes:
        axes.axhline(0, color="#868e96", linewidth=0.9, linestyle="--")
        finish(axes, "generation t", "difference", "difference from the baseline, seed by seed")
    for axes in (levels, *changes):
        generation_ticks(axes)
    handles, labels = levels.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, fontsize=9, frameon=False)
    return figure
