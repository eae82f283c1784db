"""A run's folder while the run goes on: links from the first stage on, the page as far as it is."""

from __future__ import annotations

import json
import logging
import os
import time
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

from sims_core.reports.at_work import AtWork, sweep_pages
from sims_core.reports.base import report_of
from sims_core.reports.figures_said import FiguresSaid
from sims_core.reports.files import SUMMARY_FILE
from sims_core.reports.following import Following, View
from sims_core.reports.run_folder import RunToReport, lock_run, write_run
from sims_core.store.artifacts import ArtifactRef
from sims_core.store.store import Store
from sims_core.studies.plan import Plan, PlannedStage
from sims_core.studies.running import Observer, Outcome
from sims_core.studies.side_by_side import Part

logger = logging.getLogger("sims_core.reports")

FIRST_AFTER_S = 20.0
"""A run that ends sooner is shown when it has ended."""

SHARE_OF_TIME = 0.05
"""Drawing pages takes at most about so much of a run's time."""


def has_ended(folder: Path) -> bool:
    """Whether a run's folder says what the run found at its end."""
    try:
        return not json.loads((folder / SUMMARY_FILE).read_bytes()).get("unfinished")
    except (OSError, ValueError, AttributeError):
        return False


def followed(observer: Observer, store: Store, run: RunToReport) -> Following:
    """What a run that begins here tells of its stages: it tells `observer`, the log, and the run's
    folder, until the context is left.

    A folder of a run of this name that has ended is left as it is.

    Args:
        run: as it was planned, before anything was done.
    """
    folder = run.folder(store)
    views: list[View] = [FiguresSaid(store)]
    if not has_ended(folder):
        sweep_pages(folder)
        views += [FolderKeeper(store, run), AtWork(store, folder)]
    return Following(observer, store, run.plan, views)


def followed_part(
    observer: Observer, store: Store, plan: Plan, part: Part, folder: Path | None
) -> Following:
    """As `followed`, of a worker that makes a part of a plan; the run itself keeps its page.

    Args:
        folder: of the run; None where that is in another store.
    """
    views: list[View] = [FiguresSaid(store)]
    if folder is not None:
        views.append(AtWork(store, folder))
    return Following(observer, store, plan, views, [(part.name, part.stages)])


class FolderKeeper(View):
    """Keeps the run's folder: links, and the page."""

    def __init__(self, store: Store, run: RunToReport) -> None:
        self.store, self.run = store, run
        self.trouble = f"runs/{run.run_name} is not kept up to date any more"
        self._keeps = True
        self._outcomes: list[Outcome] = []
        self._began = time.monotonic()
        self._drawn: float | None = None
        """When the page was drawn last."""
        self._took = 0.0
        """How long that took."""
        self._shown = 0
        """How many stages it shows."""
        self._read(run.plan)

    def _read(self, plan: Plan) -> None:
        """The last stage of each generation or model, and where the run's folder has what."""
        self._plan = plan
        self._last = {
            (arm, stage.model, stage.t): stage
            for arm, stages in plan.groups
            for stage in stages
            if stage.model or stage.t
        }
        self._links: dict[ArtifactRef, list[str]] = defaultdict(list)
        for path, ref in plan.links:
            self._links[ref].append(path)

    def ended(self, outcome: Outcome, plan: Plan) -> None:
        if not self._keeps:
            return
        if plan is not self._plan:
            self._read(plan)
        stage = outcome.stage
        self._outcomes.append(outcome)
        self._link(stage)
        if self._last.get((outcome.arm, stage.model, stage.t)) is stage and self._is_time():
            self._draw()

    def _link(self, stage: PlannedStage) -> None:
        if stage.ref not in self._links:
            return
        folder = self.run.folder(self.store)
        with lock_run(self.store, folder):
            for path in (folder / relative for relative in self._links[stage.ref]):
                path.parent.mkdir(parents=True, exist_ok=True)
                if not path.is_symlink():
                    path.symlink_to(os.path.relpath(self.store.path(stage.ref), path.parent))

    def _is_time(self) -> bool:
        """Whether the page is worth drawing anew."""
        if self._drawn is None:
            return time.monotonic() - self._began >= FIRST_AFTER_S
        return time.monotonic() - self._drawn >= self._took / SHARE_OF_TIME

    def _draw(self) -> None:
        if has_ended(self.run.folder(self.store)):  # the same run in another process
            self._keeps = False
            return
        made = {outcome.stage.ref for outcome in self._outcomes}
        so_far: Plan | None = report_of(self._plan).so_far(self._plan, made)
        if so_far is None or (shown := sum(1 for _ in so_far)) == self._shown:
            return
        began = time.monotonic()
        total = sum(len(stages) for _, stages in self._plan.groups) + self._plan.undecided
        far = f"{len(self._outcomes)} of {total} stages"
        run = replace(
            self.run,
            title=f"Unfinished ({far}): {self.run.title}",
            plan=so_far,
            outcomes=tuple(self._outcomes),
            unfinished=far,
        )
        summary = write_run(self.store, run)
        for outcome in self._outcomes:  # of models and generations beyond the page as well
            self._link(outcome.stage)
        self._drawn, self._shown = time.monotonic(), shown
        self._took = self._drawn - began
        logger.info("so far (%s): %s", far, summary.report)
