"""What a report shows of pollution: the paper's Fig. 5, with intervals over seeds."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sims_core.evaluation.figures import read_figures
from sims_core.evaluation.metric import figures_in
from sims_core.reports.base import PagePart, Pictures, kind_report, pictures_of
from sims_core.reports.cost import arm_cost
from sims_core.reports.estimates import paired_difference
from sims_core.reports.over_seeds import as_row, compared, counts_of, figures_over_seeds
from sims_core.reports.summary import Curve, CurvePoint, RunSummary, kimg, sample_counts
from sims_core.store.store import Store
from sims_core.studies.pollution import Measured, PollutionPlan

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


def pollution_curves(store: Store, plan: PollutionPlan, figure: str) -> tuple[Curve, ...]:
    """The first generation, then each method over |D_p|.

    A point's change is against the baseline method's ideal scenario (the first method's, where none
    is a baseline), seed by seed.
    """
    scenarios = [each.scenario for each in plan.second if each.scenario]
    names = list(dict.fromkeys(scenario.curve for scenario in scenarios))
    sizes = sorted({scenario.pollution for scenario in scenarios})
    found = {
        (each.scenario.curve, each.scenario.pollution, each.seed): _metrics(store, each)
        for each in plan.second
        if each.scenario
    }
    baseline = next((s.curve for s in scenarios if s.method.IS_BASELINE), names[0])
    ideal = [found[baseline, 0, seed][figure] for seed in plan.seeds]

    def point(name: str, size: int) -> CurvePoint:
        metrics = [found[name, size, seed] for seed in plan.seeds]
        values = [each[figure] for each in metrics]
        is_ideal = name == baseline and size == 0
        change = None if is_ideal else paired_difference(values, ideal)
        return CurvePoint(
            x=size,
            figures=figures_over_seeds(metrics),
            change=change,
            counts=counts_of(metrics[0]),
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
        points = tuple(point(name, size) for size in sizes)
        curves.append(Curve(name=name, points=points, cost=costs[name]))
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
