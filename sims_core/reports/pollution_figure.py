"""The figure of a pollution study."""

from __future__ import annotations

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sims_core.reports.bands import band, finish
from sims_core.reports.drawing import COLOURS
from sims_core.reports.summary import Curve, RunSummary


def _line(axes: Axes, curve: Curve, figure: str, colour: str) -> None:
    """A line through the means over seeds; the ideal scenario's level dashed."""
    found = [point.figures[figure] for point in curve.points]
    x = [point.x for point in curve.points]
    axes.plot(x, [each.mean for each in found], marker="o", color=colour, label=curve.name)
    band(axes, x, found, colour)
    if x[0] == 0:  # in a run that goes on, the ideal scenario may come later
        axes.axhline(found[0].mean, color=colour, linewidth=0.9, linestyle="--")


def pollution_figure(summary: RunSummary) -> Figure:
    """The main figure over |D_p|: polluted as lines, ideal dashed, the first model dotted."""
    figure = Figure(figsize=(7.5, 4.4), layout="constrained")
    axes = figure.subplots()
    first, *curves = summary.curves
    for number, curve in enumerate(curves):
        _line(axes, curve, summary.figure, COLOURS[number % len(COLOURS)])
    level = first.points[0].figures[summary.figure].mean
    axes.axhline(level, color="#868e96", linewidth=1, linestyle=":", label=first.name)
    finish(
        axes,
        "polluting samples |D_p|",
        f"{summary.figure.upper()} (lower is better)",
        "polluted: lines; ideal (real data only): dashed",
    )
    axes.legend(fontsize=8, frameon=False)
    return figure
