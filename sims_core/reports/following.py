"""Who follows a run stage by stage: what it shows in its log and in its folder while it goes on."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from types import TracebackType

from sims_core.common.errors import SimsError
from sims_core.reports.moment import Moment
from sims_core.store.store import Store
from sims_core.studies.plan import Group, Plan, PlannedStage
from sims_core.studies.running import Observer, Outcome

logger = logging.getLogger("sims_core.reports")


class View:
    """Something that people see of a run while it goes on; this one shows nothing."""

    trouble = ""
    """What is said when it fails: the run goes on without it."""

    def began(self, arm: str, stage: PlannedStage) -> None:
        """A stage is looked for in the store, and computed if it is not there."""

    def went_on(self, arm: str, stage: PlannedStage, far: Moment) -> None:
        """The stage that has begun is so far."""

    def ended(self, outcome: Outcome, plan: Plan) -> None:
        """A stage is there; `plan` has all that is known yet of what the run does."""

    def close(self) -> None:
        """The run has ended, failed, or was interrupted."""


class Following(AbstractContextManager["Following"]):
    """Told what an observer of a run is told, which it tells on; knows which stages are meant.

    No trouble with a view ends the run.
    """

    def __init__(
        self,
        observer: Observer,
        store: Store,
        plan: Plan,
        views: Sequence[View],
        groups: Sequence[Group] | None = None,
    ) -> None:
        """
        Args:
            plan: of the run, as it is known before anything is done.
            groups: what is done of it here; None: all.
        """
        self.observer, self.store, self.plan = observer, store, plan
        self._views = list(views)
        self._stages: dict[tuple[str, str], deque[PlannedStage]] = {}
        self._now: tuple[str, PlannedStage] | None = None
        self._expect(plan.groups if groups is None else groups)

    def _expect(self, groups: Sequence[Group]) -> None:
        for arm, stages in groups:
            for stage in stages:
                self._stages.setdefault((arm, stage.label), deque()).append(stage)

    def _next(self, arm: str, label: str) -> PlannedStage | None:
        """The stage that is meant: of several with this label the first that has not ended."""
        if (arm, label) not in self._stages and self.plan.undecided:
            try:
                whole = self.plan.completed(self.store)
            except SimsError:  # what decides is not there: the run will say so
                return None
            self._expect(whole.groups[len(self.plan.groups) :])
            self.plan = whole
        waiting = self._stages.get((arm, label))
        return waiting[0] if waiting else None

    def started(self, arm: str, label: str) -> None:
        self.observer.started(arm, label)
        self._now = None
        if (stage := self._next(arm, label)) is not None:
            self._now = (arm, stage)
            self._show(lambda view: view.began(arm, stage))

    def advanced(self, label: str, done: int, total: int, unit: str, **figures: float) -> None:
        self.observer.advanced(label, done, total, unit, **figures)
        if self._now is not None:
            (arm, stage), far = self._now, Moment.of(time.monotonic(), done, total, unit, figures)
            self._show(lambda view: view.went_on(arm, stage, far))

    def finished(self, arm: str, label: str, cached: bool, seconds: float) -> None:
        self.observer.finished(arm, label, cached, seconds)
        self._now = None
        if (stage := self._next(arm, label)) is not None:
            self._stages[arm, label].popleft()
            outcome = Outcome(arm, stage, cached, seconds)
            self._show(lambda view: view.ended(outcome, self.plan))

    def _show(self, tell: Callable[[View], None]) -> None:
        for view in tuple(self._views):
            try:
                tell(view)
            except Exception:
                self._views.remove(view)
                logger.warning("%s", view.trouble)
                logger.debug("why", exc_info=True)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._show(lambda view: view.close())
