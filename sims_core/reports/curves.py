"""Curves of images' metrics over generations."""

from __future__ import annotations

import math
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sims_core.evaluation.metric import Figure as MetricFigure
from sims_core.evaluation.metric import Neighborhoods, figures_in
from sims_core.reports.bands import band
from sims_core.reports.drawing import COLOURS, generation_ticks
from sims_core.reports.estimates import estimates_along
from sims_core.reports.summary import ArmSummary, sample_counts
from sims_core.reports.tables import ratios

PANELS = 4
"""Metrics side by side in the figure of curves."""


def _draw(axes: Axes, arms: Sequence[ArmSummary], metric: MetricFigure, relative: bool) -> None:
    for number, name in enumerate(dict.fromkeys(arm.curve for arm in arms)):
        of_seeds = [_values(arm, metric, relative) for arm in arms if arm.curve == name]
        if not all(math.isfinite(value) for values in of_seeds for value in values):
            continue  # the first generation of some seed is 0, and nothing has a ratio to that
        found = estimates_along(of_seeds)
        t = range(1, len(found) + 1)
        colour, means = COLOURS[number % len(COLOURS)], [each.mean for each in found]
        axes.plot(t, means, marker="o", markersize=4, linewidth=1.6, color=colour, label=name)
        band(axes, t, found, colour)
    generation_ticks(axes)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=8)
    if relative:
        axes.axhline(1, color="#868e96", linewidth=0.8, linestyle="--")
        axes.tick_params(labelbottom=True)
        axes.set_xlabel("generation t", fontsize=9)
    else:
        axes.set_title(f"{metric.title} ({metric.better})", fontsize=9)
        if metric.limits is not None:
            axes.set_ylim(*metric.limits)


def _values(arm: ArmSummary, metric: MetricFigure, relative: bool) -> list[float]:
    """The figure in each generation, or its ratio to the arm's own first."""
    values = [generation.metrics[metric.name] for generation in arm.generations]
    return ratios(arm, metric.name, values[0]) if relative else values


def shown_metrics(
    arms: Sequence[ArmSummary], neighborhoods: Neighborhoods | None = None
) -> list[MetricFigure]:
    """The figures that every generation of every arm has; titles say k as `figures_in` does."""
    found = [generation.metrics for arm in arms for generation in arm.generations]
    known = figures_in(found[0], neighborhoods)
    return [each for each in known if all(each.name in row for row in found)]


def curves(arms: Sequence[ArmSummary], neighborhoods: Neighborhoods | None = None) -> Figure:
    """Each metric over generations, above; its ratio to the arm's own t = 1, below.

    Arms that differ in their seed only are one line, through their means, with a band.

    Four metrics side by side; further ones in a second pair of rows, and so on.
    """
    metrics = shown_metrics(arms, neighborhoods)
    pairs = math.ceil(len(metrics) / PANELS)
    figure = Figure(figsize=(11, 4.9 * pairs), layout="constrained")
    panels = figure.subplots(2 * pairs, PANELS, sharex=True)
    for number, metric in enumerate(metrics):
        above, column = 2 * (number // PANELS), number % PANELS
        _draw(panels[above, column], arms, metric, relative=False)
        _draw(panels[above + 1, column], arms, metric, relative=True)
        if column == 0:
            panels[above, 0].set_ylabel("value", fontsize=9)
            panels[above + 1, 0].set_ylabel("ratio to t = 1", fontsize=9)
    for empty in range(len(metrics), pairs * PANELS):
        for row in (0, 1):
            panels[2 * (empty // PANELS) + row, empty % PANELS].set_axis_off()
    counts = sample_counts([each.metrics for arm in arms for each in arm.generations])
    figure.suptitle(" generated, ".join(counts), fontsize=9)
    handles, labels = panels[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, fontsize=9, frameon=False)
    return figure
