"""What a report shows of a distribution shift: shares reached, distances, and what they cost."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any

from sims_core.common import roles
from sims_core.evaluation.figures import METRICS_KIND, read_metrics
from sims_core.reports.base import PagePart, Pictures, all_made, kind_report, pictures_of
from sims_core.reports.cost import Cost, arm_cost
from sims_core.reports.estimates import paired_difference
from sims_core.reports.over_seeds import as_row, counts_of, figures_over_seeds, verdict
from sims_core.reports.summary import Curve, CurvePoint, RunSummary, kimg
from sims_core.store.artifacts import ArtifactRef
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


def figures_of(store: Store, model: ShiftModel) -> dict[str, Any]:
    """Every figure of a model."""
    found: dict[str, Any] = {}
    for stage in model.stages:
        if stage.ref.kind == METRICS_KIND:
            end = ALL if stage.role.endswith(roles.AGAINST_REAL) else ""
            found |= {f"{name}{end}": v for name, v in read_metrics(store, stage.ref).items()}
    if model.method == REJECTION:
        found["acceptance"] = store.manifest(model[roles.REJECT]).details["acceptance"]
    return found


def cost_of(store: Store, plan: ShiftPlan, model: ShiftModel) -> Cost | None:
    """What a model costs beside its base: S, the auxiliary that was chosen, or a second training.

    Rejection evaluates the network for what it throws away as well. The classifier is not counted.
    None: as `arm_cost`.
    """
    (base,) = (each for each in plan.bases if each.seed == model.seed)
    tried = [s for each in plan.tried if each.sampled == model.sampled for s in each.stages]
    made = {
        BASE: [stage for stage in base.stages if stage.ref == base.model],
        REWEIGHED: [],  # its own training is no fine-tuning of the base
    }.get(model.method, [*base.stages, *tried])
    cost = arm_cost(store, (*made, *model.stages))
    if cost is not None and model.method == REWEIGHED:
        return cost.model_copy(update={"extra_training_percent": 100.0})
    if cost is not None and model.method == REJECTION:
        acceptance = store.manifest(model[roles.REJECT]).details["acceptance"]
        return cost.model_copy(update={"evaluations": round(cost.evaluations / acceptance, 1)})
    return cost


def _mean_cost(costs: Sequence[Cost | None]) -> Cost | None:
    """The cost over seeds: what rejection keeps differs from seed to seed."""
    known = [cost for cost in costs if cost is not None]
    if not known or len({cost.evaluations for cost in known}) == 1:
        return known[0] if known else None
    mean = round(fmean(cost.evaluations for cost in known), 1)
    return known[0].model_copy(update={"evaluations": mean})


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
            **as_row(each.seed, figures_of(store, each)),
            **(cost.columns if (cost := cost_of(store, plan, each)) else {}),
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
    """Each method over the targets; a point's change is against the base, seed by seed. In a run
    that goes on, a point is over those seeds whose model is measured."""
    models = {(each.method, each.target, each.seed): each for each in plan.models}
    found = {key: figures_of(store, each) for key, each in models.items()}
    curves = []
    for method in METHODS:
        points = []
        for target in plan.shift.targets:
            keys = [key for seed in plan.seeds if (key := (method, target, seed)) in found]
            if not keys:
                continue
            own = [found[key] for key in keys]
            pairs = [
                (found[key][figure], found[base][figure])
                for key in keys
                if method != BASE and (base := (BASE, target, key[2])) in found
            ]
            change = paired_difference(*zip(*pairs, strict=True)) if pairs else None
            points.append(
                CurvePoint(
                    x=place(plan, target),
                    figures=figures_over_seeds(own, ALL),
                    change=change,
                    counts=counts_of(own[0]),
                    cost=_mean_cost([cost_of(store, plan, models[key]) for key in keys]),
                )
            )
        if points:
            curves.append(_curve(method, points))
    return tuple(curves)


def _curve(method: str, points: Sequence[CurvePoint]) -> Curve:
    """A curve with one cost, if it is that of all of its points."""
    costs = [point.cost for point in points]
    if any(cost != costs[0] for cost in costs):
        return Curve(name=method, points=tuple(points))
    alike = tuple(point.model_copy(update={"cost": None}) for point in points)
    return Curve(name=method, points=alike, cost=costs[0])


def answer(plan: ShiftPlan, curves: Sequence[Curve], figure: str) -> str:
    """What guidance reached for each target, in one sentence; empty as long as that or the base is
    not measured."""
    by_name, said = {curve.name: curve for curve in curves}, []
    if not by_name.keys() >= {BASE, SHIFTED}:
        return ""
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

    def so_far(self, plan: ShiftPlan, made: Collection[ArtifactRef]) -> ShiftPlan | None:
        """What was tried, and each method of a seed that is measured at every target; None: nothing
        was tried yet."""
        bases = tuple(each for each in plan.bases if all_made(each.stages, made))
        seeds = tuple(each.seed for each in bases)
        tried = tuple(e for e in plan.tried if e.seed in seeds and all_made(e.stages, made))
        if plan.seed not in seeds or not tried:
            return None
        missing = {(e.method, e.seed) for e in plan.models if not all_made(e.stages, made)}

        def shown(models: Sequence[ShiftModel]) -> tuple[ShiftModel, ...]:
            return tuple(e for e in models if e.seed in seeds and (e.method, e.seed) not in missing)

        return replace(
            plan,
            seeds=seeds,
            setup=tuple(stage for stage in plan.setup if stage.ref in made),
            bases=bases,
            tried=tried,
            baselines=shown(plan.baselines),
            chosen=shown(plan.chosen),
        )

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

    def pictures(self, store: Store, plan: ShiftPlan) -> Pictures:
        drawn = [
            (each.name, each.stages)
            for each in plan.models
            if each.seed == plan.seed and any(s.role == roles.PREVIEW for s in each.stages)
        ]
        return pictures_of(store, plan.experiment, drawn)

    def page(
        self, store: Store, summary: RunSummary, plan: ShiftPlan, folder: Path | None
    ) -> PagePart:
        rows = shift_rows(store, plan)
        figures = _figures(summary, plan, folder)
        context = {
            "figures": figures,
            "targets": plan.shift.targets,
            "selection": [row for row in rows if row["phase"] == "selection"],
            "finals": _finals(rows, plan),
            "classifiers": _classifiers(store, plan),
            "pictures": self.pictures(store, plan),
        }
        return PagePart(context, "shift.html.j2", tuple(figures))


SHIFT = ShiftReport()


def _figures(summary: RunSummary, plan: ShiftPlan, folder: Path | None) -> dict[str, str]:
    """The drawn figures by name; none as long as no method is measured."""
    if not summary.curves:
        return {}
    from sims_core.reports.drawing import written
    from sims_core.reports.shift_figure import frontier_figure, shares_figure

    return {
        "figure": written(frontier_figure(summary, plan.shift.targets), folder, "figure"),
        "shares": written(shares_figure(summary, plan.shift.targets), folder, "shares"),
    }


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
