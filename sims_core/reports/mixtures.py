"""What a report shows of points of a mixture."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import cast

from sims_core.common import roles
from sims_core.data.config import MixtureData
from sims_core.reports.base import KindReport, PagePart, Picture
from sims_core.reports.summary import RunSummary
from sims_core.store.artifacts import ArtifactRef
from sims_core.store.store import Store
from sims_core.studies.experiment import Experiment
from sims_core.studies.loop import LoopPlan

CLOUD_POINTS = 500


class MixturesReport(KindReport):
    """Exact transport to points of the true mixture, and clouds."""

    figure = "w2_empirical"
    unit = "point"

    def describe_data(self, experiment: Experiment) -> str:
        data = cast(MixtureData, experiment.data)
        weights = ", ".join(f"{weight:g}" for weight in data.mixture.weights)
        return (
            f"{data.replicates} replicates of {data.num_points} points in {data.dim} dimensions, "
            f"of components with weights {weights}"
        )

    def describe_evaluation(self, experiment: Experiment, counts: str) -> str:
        points = experiment.point_evaluation.empirical_points
        return f"components of {counts} points, exact transport between {points}, a replicate"

    def page(
        self, store: Store, summary: RunSummary, plan: LoopPlan, folder: Path | None
    ) -> PagePart:
        """Only shifts are studied on mixtures: no loop has a figure of them."""
        return PagePart()

    def samples(
        self, store: Store, experiment: Experiment, artifacts: Mapping[str, ArtifactRef]
    ) -> Picture | None:
        """Replicate 0's points in the first two coordinates."""
        from io import BytesIO

        from matplotlib.figure import Figure

        from sims_core.data.points import read_points
        from sims_core.reports.drawing import COLOURS

        points = read_points(store.open_artifact(artifacts[roles.GENERATE]))[0, :CLOUD_POINTS]
        figure = Figure(figsize=(3.2, 3.2), layout="constrained")
        axes = figure.subplots()
        axes.scatter(points[:, 0], points[:, -1], s=3, color=COLOURS[1], linewidths=0)
        axes.set_aspect("equal", "datalim")
        axes.tick_params(labelsize=7)
        buffer = BytesIO()
        figure.savefig(buffer, format="png", dpi=110, metadata={"Software": None})
        return Picture(buffer.getvalue(), "points of the first replicate")


MIXTURES = MixturesReport()
