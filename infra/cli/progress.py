"""Shows a run's progress on standard error: bars on a terminal, plain lines elsewhere."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
)

from infra.cli.outlook import Outlook
from infra.cli.shell import worded
from sims_core.engine.execution import Execution
from sims_core.store.artifacts import StageRequest
from sims_core.store.store import Store
from sims_core.studies.plan import PlannedStage
from sims_core.studies.running import Runner

PLAIN_INTERVAL_S = 10.0


def describe(cached: bool, seconds: float) -> str:
    return "cached" if cached else f"{seconds:.1f} s"


def _named(arm: str, label: str) -> str:
    """The stage after its arm, which the label itself may begin with."""
    return label if not arm or label.startswith(f"{arm}: ") else f"{arm}: {label}"


class Worded(logging.Formatter):
    """Messages with their options as a command line writes them."""

    def format(self, record: logging.LogRecord) -> str:
        return worded(super().format(record))


class PlainProgress:
    """One line a finished stage, and one every ten seconds of a long stage."""

    def __init__(
        self, total: int, stream: TextIO | None = None, outlook: Outlook | None = None
    ) -> None:
        self.total, self.done = total, 0
        self.outlook = outlook
        self.stream = stream or sys.stderr
        self._last = 0.0
        self._arm = ""

    def _print(self, text: str) -> None:
        total = max(self.total, self.done)  # what a run finds may want more than was foreseen
        print(
            f"[{self.done:>{len(str(total))}}/{total}] {text}",
            file=self.stream,
            flush=True,
        )

    def started(self, arm: str, label: str) -> None:
        self._last = time.monotonic()
        self._arm = arm
        if self.outlook is not None:
            self.outlook.started(arm, label)

    def _left(self) -> str:
        """What a line ends with, as soon as it is known: how long the run still takes."""
        text = self.outlook.text if self.outlook is not None else ""
        return f"; the run: {text}" if text else ""

    def advanced(self, label: str, done: int, total: int, unit: str, **figures: float) -> None:
        if self.outlook is not None:
            self.outlook.advanced(done, total)
        if time.monotonic() - self._last < PLAIN_INTERVAL_S:
            return
        self._last = time.monotonic()
        extra = "".join(f", {name} {value:.4g}" for name, value in figures.items())
        self._print(f"{_named(self._arm, label)}: {done} of {total} {unit}{extra}{self._left()}")

    def finished(self, arm: str, label: str, cached: bool, seconds: float) -> None:
        self.done += 1
        if self.outlook is not None:
            self.outlook.finished(cached, seconds)
        left = "" if cached else self._left()
        self._print(f"{_named(arm, label)}: {describe(cached, seconds)}{left}")

    def close(self) -> None:
        """Nothing to put away."""


class BarProgress:
    """A bar for the run, a bar for the stage at work, a line for each stage that was computed.

    Beside the run's bar stands how long it still takes, beside the stage's its latest loss.
    """

    def __init__(self, total: int, outlook: Outlook | None = None) -> None:
        self.outlook = outlook
        self.progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[unit]}"),
            TextColumn("{task.fields[said]}"),
            console=Console(stderr=True),
            transient=True,
        )
        self.run = self.progress.add_task("run", total=total, unit="stages", said="")
        self.stage: TaskID | None = None
        self.progress.start()

    def started(self, arm: str, label: str) -> None:
        text = _named(arm, label)
        self.stage = self.progress.add_task(text, total=None, unit="", said="")
        if self.outlook is not None:
            self.outlook.started(arm, label)
        self._say_left()

    def _say_left(self) -> None:
        if self.outlook is not None:
            self.progress.update(self.run, said=self.outlook.text)

    def advanced(self, label: str, done: int, total: int, unit: str, **figures: float) -> None:
        if self.stage is None:
            return
        said = f"loss {figures['loss']:.4g}" if "loss" in figures else ""
        self.progress.update(self.stage, completed=done, total=total, unit=unit, said=said)
        if self.outlook is not None:
            self.outlook.advanced(done, total)
        self._say_left()

    def finished(self, arm: str, label: str, cached: bool, seconds: float) -> None:
        if self.stage is not None:
            self.progress.remove_task(self.stage)
        self.stage = None
        self.progress.advance(self.run)
        if self.outlook is not None:
            self.outlook.finished(cached, seconds)
        self._say_left()
        if not cached:
            text = _named(arm, label)
            self.progress.console.print(f"{text}: {describe(cached, seconds)}", highlight=False)

    def close(self) -> None:
        self.progress.stop()


RunProgress = PlainProgress | BarProgress


def run_progress(total: int, outlook: Outlook | None = None) -> RunProgress:
    """What suits standard error, for a run of `total` stages."""
    if sys.stderr.isatty():
        return BarProgress(total, outlook)
    return PlainProgress(total, outlook=outlook)


@contextmanager
def shown(progress: RunProgress) -> Iterator[None]:
    """What the stages say (resumed at ..., waiting for ..., damaged ...) goes to standard error.

    Begins when the bars are up: they stand in for sys.stderr so that lines go above them. They are
    put away at the end.
    """
    messages = logging.StreamHandler(sys.stderr)
    messages.setFormatter(Worded("%(message)s"))
    logger = logging.getLogger("sims_core")
    logger.addHandler(messages)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(messages)
        progress.close()


def run_shown(store: Store, execution: Execution, *requests: StageRequest) -> bool:
    """Runs the stages of an import, one after the other, telling of their progress in plain lines.

    Returns:
        Whether the store had the last one's artifact already.
    """
    progress = PlainProgress(len(requests))
    stages = [PlannedStage(0, request.stage, request) for request in requests]
    with shown(progress):
        return Runner(store, execution, progress).run("", stages)[-1].cached
