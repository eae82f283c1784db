"""Pages of runs that go on, drawn again from what finished ones have left."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from sims_core.reports.following import Following
from sims_core.reports.past_runs import PastRun
from sims_core.reports.run_folder import problems_of_run, write_run
from sims_core.reports.unfinished import FolderKeeper
from sims_core.store.store import Store
from sims_core.studies.running import Outcome, Silent


@dataclass
class OnItsWay:
    """A run whose artifacts are all there, told of stage by stage as if they were made now."""

    store: Store
    run: Any
    draws: list[bool]

    def __post_init__(self) -> None:
        self.planned = self.run.planned.ended(self.run.plan, ())
        self.folder = self.planned.folder(self.store)
        keeper = FolderKeeper(self.store, self.planned)
        self.told = Following(Silent(), self.store, self.run.plan, [keeper])
        self.whole = self.run.plan.completed(self.store)
        stages = ((arm, stage) for arm, group in self.whole.groups for stage in group)
        self.outcomes = [Outcome(arm, stage, False, 1.0) for arm, stage in stages]
        self.left = iter(self.outcomes)

    def through(self, label: str) -> str:
        """The page when the stages up to this label are made."""
        for each in self.left:
            self.draws[:] = [each.stage.label == label]
            self.told.finished(each.arm, each.stage.label, cached=False, seconds=1.0)
            if self.draws[0]:
                break
        else:
            raise AssertionError(f"no stage {label}")
        found = PastRun(self.folder)
        assert found.state == "unfinished"
        assert problems_of_run(self.folder) == []
        page = found.report.read_text()
        assert "<h1>Unfinished (" in page
        return page

    @property
    def rows(self) -> list[dict[str, Any]]:
        return PastRun(self.folder).rows

    def finish(self) -> dict[str, bytes]:
        """What the folder shows when the run has ended, without the times of drawing it."""
        write_run(self.store, self.run.planned.ended(self.whole, self.outcomes))
        return {
            path.relative_to(self.folder).as_posix(): path.read_bytes()
            for path in self.folder.rglob("*")
            if path.is_file() and path.name not in ("run.json", "drawn.json")
        }


@pytest.fixture
def on_its_way(monkeypatch: pytest.MonkeyPatch) -> Callable[..., OnItsWay]:
    """Follows a checked run in a store that has all of it."""
    draws = [False]
    monkeypatch.setattr(FolderKeeper, "_is_time", lambda keeper: draws[0])
    return lambda folder, run: OnItsWay(Store(folder), run, draws)
