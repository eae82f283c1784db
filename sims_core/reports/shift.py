"""What a report shows of a distribution shift: shares reached, distances, and what they cost."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sims_core.common import roles
from sims_core.evaluation.figures import METRICS_KIND, read_metrics
from sims_core.reports.base import PagePart, kind_report
from sims_core.reports.cost import evaluations
from sims_core.reports.estimates import paired_difference
from sims_core.reports.over_seeds import as_row, figures_over_seeds, verdict
from sims_core.reports.summary import Curve, CurvePoint, RunSummary, kimg
from sims_core.store.store import Store
from sims_core.studies.shift import (
    BASE,
    METHODS,
    REJECTION,
    REWEIGHED,
    SHIFTED,
    ShiftModel,
    ShiftPlan,
)
from sims_core.studies.shift_targets import Target

ALL = "_all"
"""Ends the name of a figure against the whole real set; without it: against the target's."""


def figures_of(store: Store, plan: ShiftPlan, model: ShiftModel) -> dict[str, Any]:
    """Every figure of a model, those of its cost among them."""
    found: dict[str, Any] = {}
    for stage in model.stages:
        if stage.ref.kind == METRICS_KIND:
            end = ALL if stage.role.endswith(roles.AGAINST_REAL) else ""
            found |= {f"{name}{end}": v for name, v in read_metrics(store, stage.ref).items()}
    nfe = float(evaluations(store, model.stages) or 0)
    if model.method == REJECTION:
        found["acceptance"] = store.manifest(model[roles.REJECT]).details["acceptance"]
        nfe /= found["acceptance"]
    return found | {"nfe": nfe}


def extra_training(plan: ShiftPlan, method: str) -> float | None:
    """Training beyond the base's, in percent of it; None: how long that was is not known."""
    if plan.experiment.base.imported is not None:
        return None
    auxiliary = 100_000 * plan.experiment.sims.budget_mimg / plan.experiment.training.kimg
    return {SHIFTED: auxiliary, REWEIGHED: 100.0}.get(method, 0.0)


def _kind(model: ShiftModel) -> str:
    """What it is called in tables, whether it was tried or chosen."""
    return SHIFTED if model.guided else model.method


def shift_rows(store: Store, plan: ShiftPlan) -> list[dict[str, Any]]:
    """One row for each model that was tried or reported: what it is, its figures and cost."""
    phases = (("selection", plan.tried), ("final", plan.models))
    return [
        {
            "phase": phase,
            "model": _kind(each),
            "target": each.target.name,
            "omega": each.strength[0],
            "exponent": each.strength[1],
            **as_row(each.seed, figures_of(store, plan, each)),
            "extra_training_percent": extra_training(plan, _kind(each)),
        }
        for phase, models in phases
        for each in models
    ]


def place(plan: ShiftPlan, target: Target) -> float:
    """Where a target stands on a curve: its first group's share, of more than two its number."""
    if len(target.names) == 2:
        return target.mix.shares[0]
    return 1 + plan.shift.targets.index(target)


def shift_curves(store: Store, plan: ShiftPlan, figure: str) -> tuple[Curve, ...]:
    """Each method over the targets; a point's change is against the base, seed by seed."""
    found = {
        (each.method, each.target, each.seed): figures_of(store, plan, each) for each in plan.models
    }
    curves = []
    for method in METHODS:
        points = []
        for target in plan.shift.targets:
            own = [found[key] for s in plan.seeds if (key := (method, target, s)) in found]
            if not own:
                continue
            base = [found[BASE, target, seed][figure] for seed in plan.seeds]
            values = [each[figure] for each in own]
            change = None if method == BASE else paired_difference(values, base)
            points.append(
                CurvePoint(
                    x=place(plan, target), figures=figures_over_seeds(own, ALL), change=change
                )
            )
        if points:
            curves.append(Curve(name=method, points=tuple(points)))
    return tuple(curves)


def answer(plan: ShiftPlan, curves: Sequence[Curve], figure: str) -> str:
    """What guidance reached for each target, in one sentence."""
    by_name, said = {curve.name: curve for curve in curves}, []
    for number, target in enumerate(plan.shift.targets):
        point = by_name[SHIFTED].points[number]
        share = f"share_{target.names[0]}"
        shown = verdict(point.change) if point.change is not None else ""
        base = by_name[BASE].points[number].figures
        said.append(
            f"target {target.name}: {target.names[0]} {base[share].mean:.3f} to "
            f"{point.figures[share]}, total variation {point.figures['tv'].mean:.3f}, {figure} to "
            f"real data of that mix {base[figure].mean:.3f} to {point.figures[figure].mean:.3f} "
            f"({shown})"
        )
    return "; ".join(said)


class ShiftReport:
    """Shares against distance for guidance and the plain ways, samples, what was tried."""

    def findings(self, store: Store, plan: ShiftPlan) -> dict[str, Any]:
        figure = kind_report(plan.experiment).figure
        curves = shift_curves(store, plan, figure)
        return {
            "figure": figure,
            "arms": (),
            "seeds": plan.seeds,
            "curves": curves,
            "answer": answer(plan, curves, figure),
        }

    def rows(self, store: Store, summary: RunSummary, plan: ShiftPlan) -> list[dict[str, Any]]:
        rows = shift_rows(store, plan)
        names = dict.fromkeys(name for row in rows for name in row)
        return [{name: row.get(name) for name in names} for row in rows]

    def budgets(self, plan: ShiftPlan) -> str:
        return kimg(plan.experiment.sims.budget_mimg)

    def counts(self, plan: ShiftPlan) -> str:
        return f"{plan.shift.select_images} (selection) and {plan.shift.final_images} (final)"

    def page(
        self, store: Store, summary: RunSummary, plan: ShiftPlan, folder: Path | None
    ) -> PagePart:
        from sims_core.reports.drawing import written
        from sims_core.reports.shift_figure import frontier_figure, shares_figure

        rows = shift_rows(store, plan)
        context = {
            "frontier": written(frontier_figure(summary, plan.shift.targets), folder, "figure"),
            "shares": written(shares_figure(summary, plan.shift.targets), folder, "shares"),
            "targets": plan.shift.targets,
            "selection": [row for row in rows if row["phase"] == "selection"],
            "finals": _finals(rows, plan),
            "classifiers": _classifiers(store, plan),
            "grids": _grids(store, plan),
        }
        return PagePart(context, "shift.html.j2", ("figure", "shares"))


SHIFT = ShiftReport()


def _finals(rows: Sequence[dict[str, Any]], plan: ShiftPlan) -> list[dict[str, Any]]:
    """The reported rows, by target, then method, then seed."""
    order = {target.name: number for number, target in enumerate(plan.shift.targets)}
    finals = [row for row in rows if row["phase"] == "final"]
    return sorted(finals, key=lambda row: (order[row["target"]], METHODS.index(row["model"])))


def _classifiers(store: Store, plan: ShiftPlan) -> list[dict[str, Any]]:
    """What is known of those that label, if they were trained."""
    found = []
    for role in (roles.TRAIN_LABELLER, roles.TRAIN_JUDGE):
        for stage in plan.setup:
            if stage.role == role:
                found.append({"role": role, **store.manifest(stage.ref).details})
    return found


def _grids(store: Store, plan: ShiftPlan) -> list[dict[str, str]]:
    """Samples of the first seed's models, each from the same noise."""
    report, grids = kind_report(plan.experiment), []
    for each in plan.models:
        artifacts = {stage.role: stage.ref for stage in each.stages}
        if each.seed != plan.seeds[0] or roles.PREVIEW not in artifacts:
            continue
        if (picture := report.samples(store, plan.experiment, artifacts)) is not None:
            uri = "data:image/png;base64," + base64.b64encode(picture.png).decode()
            grids.append({"model": each.name, "uri": uri})
    return grids
