"""Curves of images' metrics over generations."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from sims_core.reports.drawing import COLOURS
from sims_core.reports.summary import FIGURES, ArmSummary, sample_counts
from sims_core.reports.tables import ratios

TITLES = {"fid": "FID", "kid": "KID", "precision": "Precision", "recall": "Recall"}
BETTER = {"fid": "lower is better", "kid": "lower is better"}


def _draw(axes: Axes, arms: Sequence[ArmSummary], figure: str, relative: bool) -> None:
    for number, arm in enumerate(arms):
        t = [generation.t for generation in arm.generations]
        values = [generation.metrics[figure] for generation in arm.generations]
        if relative:
            values = ratios(arm, figure, values[0])
        colour = COLOURS[number % len(COLOURS)]
        axes.plot(t, values, marker="o", markersize=4, linewidth=1.6, color=colour, label=arm.name)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=8)
    if relative:
        axes.axhline(1, color="#868e96", linewidth=0.8, linestyle="--")
        axes.set_xlabel("generation t", fontsize=9)
    else:
        axes.set_title(f"{TITLES[figure]} ({BETTER.get(figure, 'higher is better')})", fontsize=9)


def curves(arms: Sequence[ArmSummary]) -> Figure:
    """Each metric over generations, above; its ratio to the arm's own t = 1, below."""
    figure = Figure(figsize=(11, 4.9), layout="constrained")
    panels = figure.subplots(2, len(FIGURES), sharex=True)
    for column, name in enumerate(FIGURES):
        _draw(panels[0, column], arms, name, relative=False)
        _draw(panels[1, column], arms, name, relative=True)
    counts = sample_counts([each.metrics for arm in arms for each in arm.generations])
    figure.suptitle(" generated, ".join(counts), fontsize=9)
    panels[0, 0].set_ylabel("value", fontsize=9)
    panels[1, 0].set_ylabel("ratio to t = 1", fontsize=9)
    handles, labels = panels[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, fontsize=9, frameon=False)
    return figure
