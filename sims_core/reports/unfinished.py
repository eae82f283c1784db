"""A run's folder while the run goes on: links from the first stage on, the page as far as it is."""

from __future__ import annotations

import json
import logging
import os
import time
from collections import defaultdict
from collections.abc import Collection
from dataclasses import dataclass, field, replace
from pathlib import Path

from sims_core.reports.files import SUMMARY_FILE
from sims_core.reports.run_folder import RunToReport, lock_run, write_run
from sims_core.store.artifacts import ArtifactRef
from sims_core.store.store import Store
from sims_core.studies.loop import ArmPlan, LoopPlan
from sims_core.studies.plan import PlannedStage
from sims_core.studies.running import Observer, Outcome

logger = logging.getLogger("sims_core.reports")

FIRST_AFTER_S = 20.0
"""A run that ends sooner is shown when it has ended."""

SHARE_OF_TIME = 0.05
"""Drawing pages takes at most about so much of a run's time."""


def reached(plan: LoopPlan, made: Collection[ArtifactRef]) -> LoopPlan | None:
    """The loop with those generations that each of its arms has ended; None: not one.

    Arms that have not ended their first generation are left out, those of later seeds together.
    """

    def ended(arm: ArmPlan) -> int:
        missing = (stage.t for stage in arm.stages if stage.ref not in made)
        return min(missing, default=plan.generations + 1) - 1

    of_seed = {s: [arm for arm in plan.arms if arm.seed == s] for s in plan.seeds}
    seeds = [plan.seed]
    for seed in plan.further_seeds:
        if not all(map(ended, [arm for each in (*seeds, seed) for arm in of_seed[each]])):
            break
        seeds.append(seed)
    arms = [arm for seed in seeds for arm in of_seed[seed] if ended(arm)]
    if not arms:
        return None
    several = len(seeds) > 1

    def cut(arm: ArmPlan) -> ArmPlan:
        last = ended(arm)
        stages = tuple(stage for stage in arm.stages if stage.t <= last)
        return replace(arm, stages=stages, one_of_several=several)

    return replace(
        plan,
        generations=max(map(ended, arms)),
        arms=tuple(map(cut, arms)),
        scan=(),
        further_seeds=tuple(seeds[1:]),
    )


def has_ended(folder: Path) -> bool:
    """Whether a run's folder says what the run found at its end."""
    try:
        return not json.loads((folder / SUMMARY_FILE).read_bytes()).get("unfinished")
    except (OSError, ValueError, AttributeError):
        return False


@dataclass
class FolderKeeper:
    """Told what an observer of the run is told, which it tells on; keeps the run's folder.

    A folder of a run of this name that has ended is left as it is. No trouble with the folder ends
    the run.
    """

    observer: Observer
    store: Store
    run: RunToReport
    """The run as it was planned, before anything was done."""
    _outcomes: list[Outcome] = field(default_factory=list)
    _began: float = field(default_factory=time.monotonic)
    _drawn: float | None = None
    """When the page was drawn last."""
    _took: float = 0.0
    """How long that took."""

    def __post_init__(self) -> None:
        groups = self.run.plan.groups
        self._stages = {(arm, stage.label): stage for arm, stages in groups for stage in stages}
        self._last = {
            (arm, stage.t): stage for arm, stages in groups for stage in stages if stage.t
        }
        self._links: dict[ArtifactRef, list[str]] = defaultdict(list)
        for path, ref in self.run.plan.links:
            self._links[ref].append(path)
        self._keeps = not has_ended(self.run.folder(self.store))

    def started(self, arm: str, label: str) -> None:
        self.observer.started(arm, label)

    def advanced(self, label: str, done: int, total: int, unit: str, **figures: float) -> None:
        self.observer.advanced(label, done, total, unit, **figures)

    def finished(self, arm: str, label: str, cached: bool, seconds: float) -> None:
        self.observer.finished(arm, label, cached, seconds)
        stage = self._stages.get((arm, label))
        if stage is None or not self._keeps:
            return
        self._outcomes.append(Outcome(arm, stage, cached, seconds))
        try:
            self._link(stage)
            if self._last.get((arm, stage.t)) is stage and self._is_time():
                self._draw()
        except Exception:  # whatever ails a view, the run goes on
            logger.warning("runs/%s is not kept up to date any more", self.run.run_name)
            logger.debug("why", exc_info=True)
            self._keeps = False

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
        plan = self.run.plan
        if not isinstance(plan, LoopPlan):  # other studies have their figures at the end
            return
        if has_ended(self.run.folder(self.store)):  # the same run in another process
            self._keeps = False
            return
        so_far = reached(plan, {outcome.stage.ref for outcome in self._outcomes})
        if so_far is None:
            return
        began, total = time.monotonic(), sum(len(stages) for _, stages in plan.groups)
        far = f"{len(self._outcomes)} of {total} stages"
        run = replace(
            self.run,
            title=f"Unfinished ({far}): {self.run.title}",
            plan=so_far,
            outcomes=tuple(self._outcomes),
            unfinished=far,
        )
        summary = write_run(self.store, run)
        for outcome in self._outcomes:  # of arms and generations beyond the page as well
            self._link(outcome.stage)
        self._drawn = time.monotonic()
        self._took = self._drawn - began
        logger.info("so far (%s): %s", far, summary.report)
