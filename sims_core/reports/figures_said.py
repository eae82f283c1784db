"""The figures of each model in a run's log, as soon as they are measured."""

from __future__ import annotations

import logging

from sims_core.common import roles
from sims_core.evaluation.figures import METRICS_KIND, Figures, read_metrics
from sims_core.evaluation.metric import column
from sims_core.evaluation.stages import SHARES
from sims_core.reports.following import View
from sims_core.reports.summary import figure_names
from sims_core.store.artifacts import ArtifactRef
from sims_core.store.store import Store
from sims_core.studies.plan import Plan, PlannedStage
from sims_core.studies.running import Outcome

logger = logging.getLogger("sims_core.figures")


def _names(stage: PlannedStage, found: Figures) -> list[str]:
    """What is said of a stage's figures: neither deviations, ends of intervals nor counts."""
    if stage.request.stage == SHARES.name:
        return [*(f"share_{name}" for name in stage.request.config["names"]), "tv"]
    return figure_names(found)


class FiguresSaid(View):
    """One line for each stage that measures: `sims omega=1 |D_s|=32, t = 1 of 2: fid 0.32, ...`."""

    trouble = "figures are no longer said as they are measured; the report has them"

    def __init__(self, store: Store) -> None:
        self.store = store
        self._plan: Plan | None = None
        self._parts: set[str] = set()
        self._owners: dict[ArtifactRef, str] = {}
        self._last: dict[str, int] = {}

    def ended(self, outcome: Outcome, plan: Plan) -> None:
        stage = outcome.stage
        if stage.ref.kind != METRICS_KIND:
            return
        found, k = read_metrics(self.store, stage.ref), plan.experiment.evaluation.neighborhoods
        said = [f"{column(name, k)} {found[name]:.4g}" for name in _names(stage, found)]
        if said:
            logger.info("%s: %s", self._about(outcome, plan), ", ".join(said))

    def _about(self, outcome: Outcome, plan: Plan) -> str:
        """Which model the stage measures, and how, if that is not as usual."""
        if plan is not self._plan:
            self._read(plan)
        arm, stage = outcome.arm, outcome.stage
        words = [arm if arm in self._parts else self._owners.get(stage.ref, arm)]
        if stage.t and not stage.model:  # a generation of a loop
            words.append(f"t = {stage.t} of {self._last[arm]}")
        if stage.role != roles.EVALUATE:
            words.append(stage.role)
        return ", ".join(words)

    def _read(self, plan: Plan) -> None:
        """Whose stages are whose."""
        self._plan, self._parts, self._owners = plan, {name for name, _ in plan.parts}, {}
        for name, stages in plan.parts:
            for stage in stages:
                if stage.ref.kind == METRICS_KIND:
                    self._owners.setdefault(stage.ref, name)
        self._last = {
            name: max((stage.t for stage in stages), default=0)
            for name, stages in (*plan.groups, *plan.parts)
        }
