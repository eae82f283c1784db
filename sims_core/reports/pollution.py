"""What a report shows of pollution: the paper's Fig. 5, with intervals over seeds."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from sims_core.evaluation.figures import read_figures
from sims_core.evaluation.metric import figures_in
from sims_core.reports.base import PagePart, Pictures, all_made, kind_report, pictures_of
from sims_core.reports.cost import arm_cost
from sims_core.reports.estimates import paired_difference
from sims_core.reports.over_seeds import as_row, compared, counts_of, figures_over_seeds
from sims_core.reports.summary import Curve, CurvePoint, RunSummary, kimg, sample_counts
from sims_core.store.artifacts import ArtifactRef
from sims_core.store.store import Store
from sims_core.studies.pollution import Measured, PollutionPlan, Scenario

FIRST = "first generation"


def _metrics(store: Store, each: Measured) -> dict[str, int | float]:
    return read_figures(store, (stage.ref for stage in each.stages))


def pollution_rows(store: Store, plan: PollutionPlan) -> list[dict[str, Any]]:
    """One row for each model: what it is, its seed, its figures and counts."""
    rows = []
    for each in (*plan.first, *plan.second):
        scenario = each.scenario
        rows.append(
            {
                "model": scenario.curve if scenario else FIRST,
                "scenario": ("polluted" if scenario.pollution else "ideal") if scenario else FIRST,
                "pollution": scenario.pollution if scenario else 0,
                "strength": scenario.method.strength if scenario else 0.0,
                **as_row(each.seed, _metrics(store, each)),
                **(cost.columns if (cost := arm_cost(store, each.stages)) else {}),
            }
        )
    return rows


def _ideal(plan: PollutionPlan) -> Scenario:
    """What the others are compared with: real data only, by the baseline method (by the first
    method, where none is a baseline), of the first seed."""
    scenarios = [each.scenario for each in plan.second if each.scenario]
    baseline = next((each for each in scenarios if each.method.IS_BASELINE), scenarios[0])
    return baseline.model_copy(update={"pollution": 0, "seed": plan.seed})


def pollution_curves(store: Store, plan: PollutionPlan, figure: str) -> tuple[Curve, ...]:
    """The first generation, then each method over |D_p|.

    A point's change is against the ideal baseline, seed by seed. In a run that goes on, a point is
    over those seeds whose model is measured.
    """
    scenarios = [each.scenario for each in plan.second if each.scenario]
    names = list(dict.fromkeys(scenario.curve for scenario in scenarios))
    sizes = sorted({scenario.pollution for scenario in scenarios})
    found = {
        (each.scenario.curve, each.scenario.pollution, each.seed): _metrics(store, each)
        for each in plan.second
        if each.scenario
    }
    baseline = _ideal(plan).curve

    def point(name: str, size: int) -> CurvePoint | None:
        metrics = {s: found[name, size, s] for s in plan.seeds if (name, size, s) in found}
        if not metrics:
            return None
        pairs = [
            (each[figure], found[baseline, 0, seed][figure])
            for seed, each in metrics.items()
            if (name, size) != (baseline, 0) and (baseline, 0, seed) in found
        ]
        each_seed = [*metrics.values()]
        return CurvePoint(
            x=size,
            figures=figures_over_seeds(each_seed),
            change=paired_difference(*zip(*pairs, strict=True)) if pairs else None,
            counts=counts_of(each_seed[0]),
        )

    first = [_metrics(store, each) for each in plan.first]
    costs = {
        each.scenario.curve if each.scenario else FIRST: arm_cost(store, each.stages)
        for each in (*plan.first, *plan.second)
        if each.seed == plan.seed
    }
    level = CurvePoint(x=0, figures=figures_over_seeds(first), counts=counts_of(first[0]))
    curves = [Curve(name=FIRST, points=(level,), cost=costs[FIRST])]
    for name in names:
        points = tuple(each for size in sizes if (each := point(name, size)) is not None)
        curves.append(Curve(name=name, points=points, cost=costs.get(name)))
    return tuple(curves)


def answer(curves: Sequence[Curve], figure: str) -> str:
    """What the most pollution does to each method, in one sentence."""
    said = []
    for curve in curves[1:]:
        last = curve.points[-1]
        if last.change is not None:
            where = f"at |D_p| = {last.x:g}"
            said.append(compared(curve.name, last, figure, where, "the ideal baseline"))
    return "; ".join(said)


class PollutionReport:
    """Metric over |D_p| for each method, the first model's level, the change against ST-I."""

    def so_far(self, plan: PollutionPlan, made: Collection[ArtifactRef]) -> PollutionPlan | None:
        """The models that are measured, of those seeds whose first generation is; None: there is
        not yet what the others are compared with."""
        first = tuple(each for each in plan.first if all_made(each.stages, made))
        seeds = tuple(each.seed for each in first)
        second = tuple(e for e in plan.second if e.seed in seeds and all_made(e.stages, made))
        if _ideal(plan) not in [each.scenario for each in second]:
            return None
        return replace(plan, seeds=seeds, first=first, second=second)

    def findings(self, store: Store, plan: PollutionPlan) -> dict[str, Any]:
        figure = kind_report(plan.experiment).figure
        curves = pollution_curves(store, plan, figure)
        return {
            "figure": figure,
            "arms": (),
            "seeds": plan.seeds,
            "curves": curves,
            "answer": answer(curves, figure),
        }

    def rows(self, store: Store, summary: RunSummary, plan: PollutionPlan) -> list[dict[str, Any]]:
        return pollution_rows(store, plan)

    def budgets(self, plan: PollutionPlan) -> str:
        return kimg(plan.experiment.sims.budget_mimg)

    def counts(self, plan: PollutionPlan) -> str:
        return ""

    def pictures(self, store: Store, plan: PollutionPlan) -> Pictures:
        every = (*plan.first, *plan.second)
        models = [(each.name, each.stages) for each in every if each.seed == plan.seed]
        return pictures_of(store, plan.experiment, models)

    def page(
        self, store: Store, summary: RunSummary, plan: PollutionPlan, folder: Path | None
    ) -> PagePart:
        from sims_core.reports.drawing import written
        from sims_core.reports.pollution_figure import pollution_figure

        return PagePart(
            {
                "curve": written(pollution_figure(summary), folder, "figure"),
                "pictures": self.pictures(store, plan),
                "metrics": figures_in(
                    summary.curves[0].points[0].figures, plan.experiment.evaluation.neighborhoods
                ),
                "n": sample_counts([point.counts for c in summary.curves for point in c.points]),
            },
            "pollution.html.j2",
            ("figure",),
        )


POLLUTION = PollutionReport()
