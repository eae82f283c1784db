"""The figure of a self-improvement study: the paper's Fig. 3."""

from __future__ import annotations

from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sims_core.reports.base import Rows
from sims_core.reports.drawing import COLOURS

BASE_LINE: dict[str, Any] = {"color": COLOURS[0], "linewidth": 1.2, "linestyle": "--"}


CONTRAST_LINE: dict[str, Any] = {"color": COLOURS[5], "linewidth": 1.2, "linestyle": ":"}


def _lines(axes: Axes, rows: Rows, x: str, by: str, label: str) -> None:
    """FID over column `x`, one line for each value of column `by`."""
    guided = [row for row in rows if row["kind"] == "sims"]
    for number, value in enumerate(sorted({row[by] for row in guided})):
        points = sorted((row[x], row["fid"]) for row in guided if row[by] == value)
        colour = COLOURS[1 + number % (len(COLOURS) - 1)]
        text = label.format(value * 1000 if by == "budget_mimg" else value)
        axes.plot(*zip(*points, strict=True), marker="o", markersize=4, color=colour, label=text)


def _finish(axes: Axes, rows: Rows, x: str) -> None:
    (base,) = [row["fid"] for row in rows if row["kind"] == "base"]
    axes.axhline(base, label="base (omega = 0)", **BASE_LINE)
    axes.set_xlabel(x, fontsize=9)
    axes.set_ylabel("FID (lower is better)", fontsize=9)
    axes.tick_params(labelsize=8)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(fontsize=8, frameon=False)


def sweep_figure(rows: Rows) -> Figure:
    """FID over omega for each budget; over the budget for each omega, with the contrast."""
    figure = Figure(figsize=(11, 4.2), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    _lines(left, rows, "omega", "budget_mimg", "budget {:g} kimg")
    _finish(left, rows, "omega")
    _lines(right, rows, "budget_mimg", "omega", "omega = {:g}")
    tuned = sorted((row["budget_mimg"], row["fid"]) for row in rows if row["kind"] == "fine-tuned")
    right.plot(*zip(*tuned, strict=True), marker="x", label="base fine-tuned on S", **CONTRAST_LINE)
    _finish(right, rows, "budget B of the auxiliary, million images")
    counts = f"n = {rows[0]['n_generated']} generated"
    if "n_real" in rows[0]:
        counts += f", real = {rows[0]['n_real']}"
    figure.suptitle(f"Selection seeds, {counts}", fontsize=9)
    return figure
