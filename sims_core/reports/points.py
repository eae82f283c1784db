"""What a report shows of points: distances to a known truth, with intervals over replicates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from sims_core.common import roles
from sims_core.data.config import GaussianData, PointSourceConfig
from sims_core.reports.base import KindReport, PagePart, Picture
from sims_core.reports.summary import ArmSummary, Interval, RunSummary, ScanPoint
from sims_core.store.artifacts import ArtifactRef
from sims_core.store.store import Store
from sims_core.studies.experiment import Experiment
from sims_core.studies.loop import LoopPlan


class PointsReport(KindReport):
    """Wasserstein distances, where each arm ends, clouds."""

    figure = "w2"
    unit = "point"

    def describe_data(self, experiment: Experiment) -> str:
        data = _data(experiment)
        return f"{data.replicates} replicates of {data.num_points} points in {data.dim} dimensions"

    def describe_evaluation(self, experiment: Experiment, counts: str) -> str:
        points = experiment.point_evaluation
        return (
            f"moments of {points.num_points} points, exact transport between "
            f"{points.empirical_points}, in each replicate"
        )

    def finish_arms(
        self, store: Store, plan: LoopPlan, arms: tuple[ArmSummary, ...]
    ) -> tuple[ArmSummary, ...]:
        from sims_core.reports.convergence import converged

        return tuple(
            arm.model_copy(update={"convergence": found})
            for arm, found in zip(arms, converged(store, plan), strict=True)
        )

    def scan_ratios(self, store: Store, plan: LoopPlan) -> list[Interval | None]:
        from sims_core.reports.convergence import scan_ratios

        return scan_ratios(store, plan)

    def page(
        self, store: Store, summary: RunSummary, plan: LoopPlan, folder: Path | None
    ) -> PagePart:
        from sims_core.reports.drawing import written
        from sims_core.reports.panels import clouds, panels

        several = _data(plan.experiment).dim > 1
        if len(plan.seeds) > 1:  # replicates are shown, of the first seed
            arms = tuple(arm for arm in summary.arms if arm.seed == plan.seed)
            scan = tuple(point for point in summary.scan if point.seed == plan.seed)
            plan = plan.of_seed(plan.seed)
            summary = summary.model_copy(update={"arms": arms, "scan": scan})
        context = {
            "panels": written(panels(summary, plan), folder, "figure"),
            "clouds": (
                written(clouds(store, plan), folder, "clouds", small=True) if several else None
            ),
            "scan": scan_rows(summary.scan),
        }
        figures = ("figure", "clouds") if several else ("figure",)
        return PagePart(context, "points.html.j2", figures)

    def samples(
        self, store: Store, experiment: Experiment, artifacts: Mapping[str, ArtifactRef]
    ) -> Picture | None:
        from sims_core.reports.panels import cloud_png

        data = _data(experiment)
        truth = PointSourceConfig(
            mean=data.mean, covariance=data.covariance, replicates=1, count=1, seed=0
        )
        cloud = cloud_png(store, truth, artifacts[roles.GENERATE])
        return (
            Picture(cloud, "points, their 2-sigma ellipse, the truth's dashed") if cloud else None
        )


POINTS = PointsReport()


def _data(experiment: Experiment) -> GaussianData:
    return cast(GaussianData, experiment.data)


def scan_rows(scan: Sequence[ScanPoint]) -> list[dict[str, Any]]:
    """A row for each first generation: whether its interval lies apart from that of omega = 0."""
    standard = next((point.metrics for point in scan if point.omega == 0), None)
    rows = []
    for point in scan:
        apart = "" if standard is None or point.omega == 0 else "no"
        if standard is not None and point.metrics["w2_high"] < standard["w2_low"]:
            apart = "better"
        elif standard is not None and point.metrics["w2_low"] > standard["w2_high"]:
            apart = "worse"
        rows.append(
            {
                "omega": point.omega,
                "budget_kimg": None if point.budget_mimg is None else 1000 * point.budget_mimg,
                "apart": apart,
                "ratio": point.ratio,
                **point.metrics,
            }
        )
    return rows
