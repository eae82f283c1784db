"""The figure of a self-improvement study: the paper's Fig. 3, a row of panels for each method."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sims_core.reports.bands import band
from sims_core.reports.drawing import COLOURS
from sims_core.reports.estimates import Estimate
from sims_core.reports.summary import CurvePoint
from sims_core.studies.candidates import Candidate

BASE_LINE: dict[str, Any] = {"color": COLOURS[0], "linewidth": 1.2, "linestyle": "--"}


CONTRAST_LINE: dict[str, Any] = {"color": COLOURS[5], "linewidth": 1.2, "linestyle": ":"}

Tried = Sequence[tuple[Candidate, CurvePoint]]
"""What a selection tried, and what it found over seeds."""


def _line(axes: Axes, found: list[tuple[float, Estimate]], label: str, **style: Any) -> None:
    """FID over one setting, with its interval where there are several seeds."""
    x, fid = zip(*sorted(found, key=lambda each: each[0]), strict=True)
    axes.plot(x, [each.mean for each in fid], label=label, **style)
    band(axes, x, fid, style["color"])


def _kimg(candidate: Candidate) -> float:
    """The budget; 0 of a model that trains nothing."""
    return 1000 * (candidate.budget_mimg or 0.0)


def _strength(candidate: Candidate) -> float:
    return candidate.strength


Setting = Callable[[Candidate], float]


def _lines(axes: Axes, tried: Tried, over: Setting, by: Setting, label: str) -> None:
    """FID over one setting, one line for each value of another one."""
    values = sorted({by(each) for each, _ in tried})
    for number, value in enumerate(values):
        found = [(over(each), point.figures["fid"]) for each, point in tried if by(each) == value]
        colour = COLOURS[1 + number % (len(COLOURS) - 1)]
        _line(axes, found, label.format(value), marker="o", markersize=4, color=colour)


def _finish(axes: Axes, tried: Tried, x: str) -> None:
    (base,) = [point.figures["fid"].mean for each, point in tried if each.kind == "base"]
    axes.axhline(base, label="base", **BASE_LINE)
    axes.set_xlabel(x, fontsize=9)
    axes.set_ylabel("FID (lower is better)", fontsize=9)
    axes.tick_params(labelsize=8)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(fontsize=8, frameon=False)


def _contrast(axes: Axes, tried: Tried) -> None:
    """The base fine-tuned on S over the budget, where it was measured."""
    tuned = [(_kimg(c), p.figures["fid"]) for c, p in tried if c.kind == "fine-tuned"]
    if tuned:
        _line(axes, tuned, "base fine-tuned on S", marker="x", **CONTRAST_LINE)


def sweep_figure(tried: Tried, counts: Mapping[str, Any]) -> Figure:
    """FID over each method's strength for each budget; over the budget for each strength, with the
    contrast."""
    others = {each.kind: each for each, _ in tried if each.kind not in ("base", "fine-tuned")}
    shown = others or {each.kind: each for each, _ in tried if each.kind != "base"}
    figure = Figure(figsize=(11, 4.2 * len(shown)), layout="constrained")
    panels = figure.subplots(len(shown), 2, sharey=True, squeeze=False)
    for (left, right), (kind, example) in zip(panels, shown.items(), strict=True):
        name = example.strength_name or "strength"
        of_it = [(each, point) for each, point in tried if each.kind == kind]
        by_budget = "budget {:g} kimg" if example.budget_mimg is not None else kind
        _lines(left, of_it, _strength, _kimg, by_budget)
        _finish(left, tried, f"{name} of {kind}")
        if kind != "fine-tuned" and example.budget_mimg is not None:
            _lines(right, of_it, _kimg, _strength, f"{name} = {{:g}}")
        _contrast(right, tried)
        _finish(right, tried, "budget B of the auxiliary, kimg")
    n = f"n = {counts['n_generated']} generated"
    if "n_real" in counts:
        n += f", real = {counts['n_real']}"
    seeds = tried[0][1].figures["fid"].n
    over = f", {seeds} seeds: means and 95 % intervals" if seeds > 1 else ""
    figure.suptitle(f"Selection seeds, {n}{over}", fontsize=9)
    return figure
