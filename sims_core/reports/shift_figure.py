"""The figures of a distribution shift."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sims_core.reports.drawing import COLOURS
from sims_core.reports.estimates import Estimate
from sims_core.reports.summary import Curve, RunSummary
from sims_core.studies.shift_targets import Target


def _reach(found: Sequence[Estimate]) -> list[list[float]] | None:
    """How far the intervals reach below and above the means; None for one seed."""
    if found[0].low is None:
        return None
    below = [each.mean - (each.low or 0) for each in found]
    return [below, [(each.high or 0) - each.mean for each in found]]


def _frontier(axes: Axes, curve: Curve, x: str, y: str, colour: str) -> None:
    across, up = ([point.figures[name] for point in curve.points] for name in (x, y))
    axes.errorbar(
        [each.mean for each in across],
        [each.mean for each in up],
        xerr=_reach(across),
        yerr=_reach(up),
        marker="o",
        markersize=4,
        linewidth=1,
        elinewidth=0.7,
        color=colour,
        label=curve.name,
    )


def _tidy(axes: Axes) -> None:
    axes.tick_params(labelsize=8)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)


def frontier_figure(summary: RunSummary, targets: Sequence[Target]) -> Figure:
    """The distance over the share that was reached, a curve a method, a point a target.

    Left against real data of the target mix, right against all real data. Of more than two groups
    the total-variation distance to the target stands for the share.
    """
    figure = Figure(figsize=(9, 4), layout="constrained")
    two = len(targets[0].names) == 2
    x = f"share_{targets[0].names[0]}" if two else "tv"
    wanted = {"": "real data of the target mix"}
    if f"{summary.figure}_all" in summary.curves[0].points[0].figures:
        wanted["_all"] = "all real data"
    for axes, (end, what) in zip(
        figure.subplots(1, len(wanted), squeeze=False)[0], wanted.items(), strict=True
    ):
        for number, curve in enumerate(summary.curves):
            colour = COLOURS[number % len(COLOURS)]
            _frontier(axes, curve, x, f"{summary.figure}{end}", colour)
        for target in targets if two else ():
            axes.axvline(target.mix.shares[0], color="#868e96", linewidth=0.8, linestyle=":")
        named = f"share of {targets[0].names[0]} reached (dotted: targets)"
        axes.set_xlabel(named if two else "total variation to the target", fontsize=9)
        axes.set_ylabel(f"{summary.figure} to {what} (lower is better)", fontsize=9)
        _tidy(axes)
        axes.legend(fontsize=8, frameon=False)
    return figure


def shares_figure(summary: RunSummary, targets: Sequence[Target]) -> Figure:
    """The share of each group by each method, a panel a target; lines: the target."""
    figure = Figure(figsize=(9, 2.4 * len(targets)), layout="constrained")
    for number, (axes, target) in enumerate(
        zip(figure.subplots(len(targets), 1, squeeze=False)[:, 0], targets, strict=True)
    ):
        width = 0.8 / len(summary.curves)
        for place, curve in enumerate(summary.curves):
            found = [curve.points[number].figures[f"share_{name}"] for name in target.names]
            axes.bar(
                [group + (place + 0.5) * width - 0.4 for group in range(len(found))],
                [each.mean for each in found],
                width,
                yerr=_reach(found),
                error_kw={"elinewidth": 0.8},
                color=COLOURS[place % len(COLOURS)],
                label=curve.name,
            )
        for group, share in enumerate(target.mix.shares):
            axes.hlines(share, group - 0.42, group + 0.42, color="#212529", linewidth=1.2)
        axes.set_xticks(range(len(target.names)), target.names)
        axes.set_ylabel("share", fontsize=9)
        axes.set_title(f"target {target.name}", fontsize=9)
        _tidy(axes)
        if number == 0:
            drawn = axes.get_legend_handles_labels()
            figure.legend(
                *drawn,
                loc="outside upper center",
                fontsize=8,
                frameon=False,
                ncols=len(summary.curves),
            )
    return figure
