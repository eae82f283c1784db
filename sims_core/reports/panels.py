"""Figures of points: the four panels of the paper's Fig. 4, and clouds over generations.

Panels: distance of the first generation against omega; ratio curves over generations; normalised
distance at convergence against omega; and ours, distance of the first generation over omega and
budget.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Ellipse

from sims_core.common import roles
from sims_core.data.config import PointSourceConfig
from sims_core.data.points import read_points, true_covariance
from sims_core.diffusion.gaussian import moments
from sims_core.reports.bands import finish
from sims_core.reports.drawing import COLOURS, generation_ticks
from sims_core.reports.summary import ArmSummary, RunSummary, kimg, shown_generations
from sims_core.reports.tables import ratios
from sims_core.store.artifacts import ArtifactRef
from sims_core.store.store import Store
from sims_core.studies.loop import ArmPlan, LoopPlan

CLOUD_POINTS = 500


CURVE_STYLES = ("-", "--", ":", "-.")


@dataclass(frozen=True)
class _Results:
    """A run's summary beside its plan, arm by arm."""

    summary: RunSummary
    plan: LoopPlan

    @property
    def sizes(self) -> list[int]:
        return sorted({arm.arm.pollution_size for arm in self.plan.arms})

    @property
    def omegas(self) -> list[float]:
        return sorted({arm.arm.method.strength for arm in self.plan.arms})

    def arms(self, size: int) -> list[tuple[float, ArmSummary]]:
        """Omega and summary of the arms with this |D_s|, by omega."""
        pairs = zip(self.plan.arms, self.summary.arms, strict=True)
        chosen = [
            (planned.arm.method.strength, arm)
            for planned, arm in pairs
            if planned.arm.pollution_size == size
        ]
        return sorted(chosen, key=lambda pair: pair[0])


def _first_generations(results: _Results) -> dict[float, dict[str, int | float]]:
    """Metrics at t = 1 by omega, at the preset's budget, from arms and scan."""
    budget = results.plan.experiment.sims.budget_mimg
    found = {
        point.omega: point.metrics
        for point in results.summary.scan
        if point.budget_mimg in (None, budget)
    }
    for size in results.sizes:
        found |= {omega: arm.generations[0].metrics for omega, arm in results.arms(size)}
    return dict(sorted(found.items()))


def _self_improvement(axes: Axes, results: _Results) -> None:
    found = _first_generations(results)
    omegas = list(found)
    mean, low, high = (
        np.array([metrics[name] for metrics in found.values()])
        for name in ("w2", "w2_low", "w2_high")
    )
    axes.errorbar(omegas, mean, [mean - low, high - mean], marker="o", capsize=3, color=COLOURS[1])
    floor = next(iter(found.values()))["w2_floor"]
    axes.axhline(floor, color="#868e96", linestyle=":", linewidth=1)
    axes.annotate("floor: a real sample", (omegas[-1], floor), ha="right", va="bottom", fontsize=8)
    axes.set_ylim(bottom=0)
    finish(axes, "omega", "E[W2] to the truth", "Self-improvement: t = 1")


def _curve_sizes(sizes: Sequence[int]) -> list[int]:
    """The paper's two, 125 and 250, where they are among the sizes; else smallest and largest."""
    return [125, 250] if {125, 250} <= set(sizes) else sorted({sizes[0], sizes[-1]})


def _curves(axes: Axes, results: _Results) -> None:
    figure, arms = results.summary.figure, results.summary.arms
    for style, size in zip(CURVE_STYLES, _curve_sizes(results.sizes), strict=False):
        for omega, arm in results.arms(size):
            baseline = arms[results.plan.baselines[arms.index(arm)]]
            reference = baseline.generations[0].metrics[figure]
            values = ratios(arm, figure, reference)
            colour = COLOURS[results.omegas.index(omega) % len(COLOURS)]
            label = f"omega={omega:g}, |D_s|={size}"
            t = range(1, len(values) + 1)
            axes.plot(t, values, style, linewidth=1.3, color=colour, label=label)
    axes.axhline(1, color="#868e96", linewidth=0.8)
    axes.set_ylim(top=axes.get_ylim()[1] * 1.25)
    generation_ticks(axes)
    axes.legend(fontsize=7, frameon=False, ncols=2, loc="upper left")
    finish(axes, "generation t", "E[W2] / E[W2] of the standard G^1", "Over generations")


def _convergence(axes: Axes, results: _Results) -> None:
    for number, size in enumerate(results.sizes):
        chosen = [(o, arm.convergence) for o, arm in results.arms(size) if arm.convergence]
        mean, low, high = np.array([end.ratio_standard for _, end in chosen]).T
        omegas = [omega for omega, _ in chosen]
        axes.errorbar(
            omegas,
            mean,
            [mean - low, high - mean],
            marker="o",
            markersize=4,
            capsize=3,
            color=COLOURS[number % len(COLOURS)],
            label=f"|D_s|={size}",
        )
    axes.axhline(1, color="#868e96", linewidth=0.8)
    axes.legend(fontsize=7, frameon=False)
    finish(axes, "omega", "E[W2] / E[W2] of the standard G^1", "At convergence")


def _budgets(axes: Axes, results: _Results) -> None:
    points = [point for point in results.summary.scan if point.budget_mimg is not None]
    omegas = sorted({point.omega for point in points})
    budgets = sorted({point.budget_mimg for point in points if point.budget_mimg is not None})
    if not points:
        axes.set_axis_off()
        return
    axes.set_title("Budget: t = 1, E[W2] over omega and budget", fontsize=10)
    table = np.full((len(budgets), len(omegas)), np.nan)
    for point in points:
        if point.budget_mimg is not None:
            row, column = budgets.index(point.budget_mimg), omegas.index(point.omega)
            table[row, column] = point.metrics["w2"]
            axes.text(
                column, row, f"{table[row, column]:.3f}", ha="center", va="center", fontsize=8
            )
    axes.imshow(table, cmap="YlGnBu_r", aspect="auto", origin="lower", alpha=0.6)
    axes.set_xticks(range(len(omegas)), [f"{omega:g}" for omega in omegas], fontsize=8)
    base = results.plan.experiment.training.kimg
    labels = [f"{kimg(budget)}\n({100_000 * budget / base:.3g} %)" for budget in budgets]
    axes.set_yticks(range(len(budgets)), labels, fontsize=8)
    axes.set_xlabel("omega", fontsize=9)
    axes.set_ylabel("budget, kimg (of the base's)", fontsize=9)


def panels(summary: RunSummary, plan: LoopPlan) -> Figure:
    """The four panels; the last is empty where the run has no scan."""
    figure = Figure(figsize=(11, 7.4), layout="constrained")
    draw: list[Callable[[Axes, _Results], None]]
    draw = [_self_improvement, _curves, _convergence, _budgets]
    for axes, one in zip(figure.subplots(2, 2).flat, draw, strict=True):
        one(axes, _Results(summary, plan))
    return figure


def _two_sigma(mean: Any, covariance: Any, **style: Any) -> Ellipse:
    """Where the Mahalanobis distance is 2."""
    values, basis = np.linalg.eigh(covariance)
    width, height = 4 * np.sqrt(np.clip(values, 0, None))
    angle = float(np.degrees(np.arctan2(basis[1, 0], basis[0, 0])))
    return Ellipse(tuple(mean), width, height, angle=angle, fill=False, linewidth=1.4, **style)


def _cloud_arms(plan: LoopPlan) -> list[ArmPlan]:
    """The arms of the largest size with the least and the most guidance."""
    size = max(arm.arm.pollution_size for arm in plan.arms)
    chosen = sorted(
        (arm for arm in plan.arms if arm.arm.pollution_size == size),
        key=lambda arm: arm.arm.method.strength,
    )
    return chosen[:1] + chosen[1:][-1:]


Moments = tuple[Any, Any]
"""Mean and covariance of the first two coordinates, numpy [2] and [2, 2]."""


def _truth(source: PointSourceConfig) -> Moments:
    return np.array(source.mean[:2]), true_covariance(source)[:2, :2].numpy()


def _cloud(axes: Axes, store: Store, generated: ArtifactRef, truth: Moments) -> None:
    points = read_points(store.open_artifact(generated))[:1, :, :2]
    mean, covariance = (part[0].numpy() for part in moments(points.to(torch.float64)))
    reach = float(np.abs(truth[0]).max() + 5 * np.sqrt(truth[1].diagonal().max()))
    x, y = points[0, :CLOUD_POINTS].T.numpy()
    axes.scatter(x, y, s=2, alpha=0.4, color=COLOURS[1], rasterized=True)
    axes.add_patch(_two_sigma(*truth, color=COLOURS[0], linestyle="--"))
    axes.add_patch(_two_sigma(mean, covariance, color=COLOURS[2]))
    axes.set(xlim=(-reach, reach), ylim=(-reach, reach), aspect="equal")
    axes.tick_params(labelsize=7)


def cloud_png(store: Store, source: PointSourceConfig, generated: ArtifactRef) -> bytes | None:
    """One generation's cloud as a PNG file; None in one dimension."""
    if len(source.mean) < 2:
        return None
    figure = Figure(figsize=(3.2, 3.2))
    _cloud(figure.subplots(), store, generated, _truth(source))
    buffer = BytesIO()
    figure.savefig(buffer, format="png", dpi=110, metadata={"Software": None})
    return buffer.getvalue()


def clouds(store: Store, plan: LoopPlan) -> Figure:
    """Replicate 0's points, in the first two coordinates, with 2-sigma ellipses."""
    source = PointSourceConfig.model_validate(plan.setup[0].request.config)
    truth = _truth(source)
    arms, shown = _cloud_arms(plan), shown_generations(plan.generations)
    figure = Figure(figsize=(1.85 * len(shown) + 0.4, 2.1 * len(arms)), layout="constrained")
    grid = figure.subplots(len(arms), len(shown), squeeze=False, sharex=True, sharey=True)
    for row, arm in enumerate(arms):
        for axes, t in zip(grid[row], shown, strict=True):
            if t > arm.generations:  # of a run that goes on
                axes.set_axis_off()
                continue
            _cloud(axes, store, arm.artifacts(t)[roles.GENERATE], truth)
            axes.set_title(f"t = {t}", fontsize=8)
        grid[row, 0].set_ylabel(arm.name, fontsize=8)
    return figure
