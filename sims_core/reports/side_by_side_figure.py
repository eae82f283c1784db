"""The figure of several runs: each metric over what was varied, with bands over seeds."""

from __future__ import annotations

import math
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sims_core.evaluation.metric import Figure as MetricFigure
from sims_core.reports.drawing import COLOURS, generation_ticks
from sims_core.reports.lines import AXES, Line
from sims_core.reports.side_by_side import RunComparison

STYLES = ("-", "--", ":", "-.")
LONGEST_BESIDE = 30
"""Letters of a name of which two fit beside each other on a page of 500 pixels."""


def comparison_figure(comparison: RunComparison) -> Figure:
    """A panel for each metric. A line is the mean over seeds, its band the 95 % interval."""
    metrics, lines = comparison.figures, comparison.lines
    columns = 2 if len(metrics) in (2, 4) else min(3, len(metrics))
    rows = math.ceil(len(metrics) / columns)
    figure = Figure(figsize=(3.6 * columns, 3.0 * rows + 0.25 * len(lines)), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False).flatten()
    over_x = bool(comparison.axis) and any(len(line.points) > 1 for line in lines)
    for axes, metric in zip(panels, metrics, strict=False):
        if over_x:
            _draw_lines(axes, lines, metric)
            axes.set_xlabel(AXES[comparison.axis], fontsize=9)
            generation_ticks(axes)
        else:
            _draw_points(axes, lines, metric)
        if metric.limits is not None:
            axes.set_ylim(*metric.limits)
        axes.set_title(f"{metric.title} ({metric.better})", fontsize=9)
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(labelsize=8)
    for axes in panels[len(metrics) :]:
        axes.set_axis_off()
    handles, labels = panels[0].get_legend_handles_labels()
    beside = 2 if max(map(len, labels), default=0) <= LONGEST_BESIDE else 1
    style = {"ncols": beside, "fontsize": 8, "frameon": False}
    figure.legend(handles, labels, loc="outside lower center", **style)
    return figure


def _look(number: int) -> tuple[str, str]:
    """Colour and style of a line; no two of the first 32 look the same."""
    return COLOURS[number % len(COLOURS)], STYLES[number // len(COLOURS) % len(STYLES)]


def _draw_lines(axes: Axes, lines: Sequence[Line], metric: MetricFigure) -> None:
    for number, line in enumerate(lines):
        found, (colour, style) = line.over_seeds(metric.name), _look(number)
        x, estimates = list(found), list(found.values())
        means = [each.mean for each in estimates]
        axes.plot(x, means, style, color=colour, marker="o", markersize=3.5, label=line.label)
        low = [each.mean if each.low is None else each.low for each in estimates]
        high = [each.mean if each.high is None else each.high for each in estimates]
        if low != high:
            axes.fill_between(x, low, high, color=colour, alpha=0.18, linewidth=0)


def _draw_points(axes: Axes, lines: Sequence[Line], metric: MetricFigure) -> None:
    for number, line in enumerate(lines):
        found, (colour, _) = [*line.over_seeds(metric.name).values()][-1], _look(number)
        reach = None if found.high is None else found.high - found.mean  # to both sides
        axes.errorbar(
            [number], [found.mean], reach, fmt="o", color=colour, capsize=3, label=line.label
        )
    axes.set_xticks([])
