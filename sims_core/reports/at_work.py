"""The page of what a run is at: a stage that takes long has one under runs/<run name>/now/.

It is there while the stage is computed, and tells how far it is, the loss so far and, of a training
that draws them, the latest samples. What a stage found in the store has none.
"""

from __future__ import annotations

import base64
import math
import time
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from sims_core.common.files import read_regular, remove, write_atomically
from sims_core.reports.following import View
from sims_core.reports.moment import Moment
from sims_core.reports.run_folder import lock_run
from sims_core.store.store import Store
from sims_core.studies.plan import Plan, PlannedStage, slug
from sims_core.studies.running import Outcome
from sims_core.training.stages import TRAIN

NOW = "now"
"""The folder of these pages in a run's folder."""

INTERVAL_S = 2.0
"""A page is written at most so often; a stage that ends sooner has none."""

WIDTH, HEIGHT = 640, 200
"""Of the curve, in pixels."""

MOST_POINTS = 1000
"""Of the curve; of more every second is left out."""

Loss = Sequence[tuple[int, float]]
"""Images seen and the loss there."""


def sweep_pages(folder: Path) -> None:
    """Removes what a run that was killed left in the folder of its name, as far as that can be."""
    with suppress(OSError):
        remove(folder / NOW)


class AtWork(View):
    """Writes the page of each stage that this process computes, and removes it when it is made."""

    def __init__(self, store: Store, folder: Path) -> None:
        """
        Args:
            folder: of the run.
        """
        self.store, self.folder = store, folder
        self.trouble = f"runs/{folder.name}/{NOW} is not kept up to date any more"
        self._page: Path | None = None
        self._begin()

    def _begin(self) -> None:
        self._first: Moment | None = None
        self._loss: list[tuple[int, float]] = []
        self._written = time.monotonic()

    def began(self, arm: str, stage: PlannedStage) -> None:
        self.close()
        self._begin()

    def went_on(self, arm: str, stage: PlannedStage, far: Moment) -> None:
        self._first = self._first or far
        if far.loss is not None and (not self._loss or far.loss != self._loss[-1][1]):
            self._loss.append((far.done, far.loss))
            if len(self._loss) > MOST_POINTS:
                self._loss = self._loss[::2]
        if far.at - self._written < INTERVAL_S:
            return
        label = stage.label if not arm or stage.model else f"{arm}: {stage.label}"
        content = self._render(stage, label, far.describe(label, self._first))
        with lock_run(self.store, self.folder):  # nobody puts another folder in its place meanwhile
            self._page = self.folder / NOW / f"{slug(label).replace('/', '_')}.html"
            self._page.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(self._page, content, durable=False)
        self._written = time.monotonic()

    def _render(self, stage: PlannedStage, label: str, said: str) -> str:
        from sims_core.reports.page import page_environment  # a stage that is cached needs none

        samples, seen = self._samples(stage)
        return (
            page_environment()
            .get_template("now.html.j2")
            .render(
                run=self.folder.name,
                label=label,
                said=said.removeprefix(f"{label}: "),
                at=datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S UTC"),
                loss=_curve(self._loss),
                samples=samples,
                seen=seen,
            )
        )

    def _samples(self, stage: PlannedStage) -> tuple[str, str]:
        """The latest grid that a training has drawn, as a page has it inline, and after how many
        kimg; empty where there is none."""
        if stage.request.stage != TRAIN.name:
            return "", ""
        from sims_core.training.images import GRIDS_FOLDER  # imports torch, as the training has

        folder = self.store.progress_path(stage.ref) / "state" / GRIDS_FOLDER
        grids = sorted(folder.glob("kimg-*.png"))
        if not grids:
            return "", ""
        data = base64.b64encode(read_regular(grids[-1])).decode()
        return f"data:image/png;base64,{data}", f"{float(grids[-1].stem.removeprefix('kimg-')):g}"

    def ended(self, outcome: Outcome, plan: Plan) -> None:
        self.close()

    def close(self) -> None:
        """Removes the page."""
        if self._page is not None:
            self._page.unlink(missing_ok=True)
            with suppress(OSError):  # another worker's page is in it
                self._page.parent.rmdir()
            self._page = None


def _curve(loss: Loss) -> dict[str, object] | None:
    """The loss over images seen as the points of a line, and what its axes say; None: too short.

    The scale is logarithmic where that can be.
    """
    if len(loss) < 2:
        return None
    logarithmic = min(value for _, value in loss) > 0
    heights = [math.log(value) if logarithmic else value for _, value in loss]
    low, high = min(heights), max(heights)
    start, end = loss[0][0], loss[-1][0]
    points = [
        (
            WIDTH * (seen - start) / max(1, end - start),
            HEIGHT * (1 - (height - low) / ((high - low) or 1.0)),
        )
        for (seen, _), height in zip(loss, heights, strict=True)
    ]
    values = [value for _, value in loss]
    return {
        "points": " ".join(f"{x:.1f},{y:.1f}" for x, y in points),
        "width": WIDTH,
        "height": HEIGHT,
        "from": f"{start / 1000:g}",
        "to": f"{end / 1000:g}",
        "least": f"{min(values):.4g}",
        "most": f"{max(values):.4g}",
        "last": f"{values[-1]:.4g}",
        "logarithmic": logarithmic,
    }
