"""How long a run still takes, by what its own stages took, else by what earlier ones did."""

from __future__ import annotations

import time
from collections import defaultdict
from dataclasses import dataclass

from sims_core.reports.forecast import Rates, Work, Works, duration, measured_rates
from sims_core.store.artifacts import ArtifactRef
from sims_core.store.store import Store
from sims_core.studies.plan import Plan

ENOUGH_S = 2.0
"""A stage that has run so long says how fast it is."""


@dataclass
class _Current:
    """The stage at work."""

    work: Work
    began: float
    first: tuple[float, int] | None = None
    """When it told of its progress first, and how far it was: it may go on from a checkpoint."""
    seconds: float | None = None
    """How long all of it takes, by its own progress."""
    left: float | None = None


class Outlook:
    """Told what an observer of the run is told; says how long the rest takes."""

    def __init__(self, store: Store, plan: Plan, device: str) -> None:
        """
        Args:
            device: what the stages are computed on; rates of other devices say nothing.
        """
        works = Works(store)
        self._earlier = measured_rates(store, works, device)
        self._own = Rates()
        self._waiting: dict[tuple[str, str], list[Work]] = defaultdict(list)
        self._amounts: dict[Work, float] = defaultdict(float)
        """What is waiting in all, by what it is: work of the amount 1."""
        self._current: _Current | None = None
        made = set[ArtifactRef]()
        for arm, stages in plan.groups:
            for stage in stages:
                work = works.of(stage.request)
                if stage.ref in made or store.path(stage.ref).exists():
                    continue
                made.add(stage.ref)
                self._waiting[arm, stage.label].append(work)
                self._amounts[work.unit] += work.amount

    def started(self, arm: str, label: str) -> None:
        """A stage begins."""
        self._current = None
        if waiting := self._waiting.get((arm, label)):
            work = waiting.pop(0)
            self._amounts[work.unit] -= work.amount
            self._current = _Current(work, time.monotonic())

    def advanced(self, done: int, total: int) -> None:
        """The stage is so far."""
        current, now = self._current, time.monotonic()
        if current is None:
            return
        if current.first is None:
            current.first = (now, done)
            return
        since, before = current.first
        if now - since >= ENOUGH_S and done > before:
            each = (now - since) / (done - before)
            current.seconds, current.left = each * total, each * (total - done)

    def finished(self, cached: bool, seconds: float) -> None:
        """The stage has ended."""
        if self._current is not None and not cached:
            self._own.add(self._current.work, seconds)
        self._current = None

    @property
    def seconds_left(self) -> float | None:
        """Of the whole run; None as long as nothing like some of its stages was measured.

        What reads and compares figures is left out as long as it is not known: it is short.
        """
        rates, current, left = self._own, self._current, 0.0
        if current is not None:
            if current.seconds is not None:
                rates = rates.also(current.work, current.seconds)
            of_stage = self._left_of(current, rates)
            if of_stage is None and current.work.by_network:
                return None
            left = of_stage or 0.0
        for unit, amount in self._amounts.items():
            if amount < 0.5:  # none, but for rounding: each stage's is 1 or more
                continue
            seconds = rates.seconds(unit, self._earlier)
            if seconds is None and unit.by_network:
                return None
            left += amount * (seconds or 0.0)
        return left

    def _left_of(self, current: _Current, rates: Rates) -> float | None:
        if current.left is not None:
            return current.left
        whole = rates.seconds(current.work, self._earlier)
        return whole and max(0.0, whole - (time.monotonic() - current.began))

    @property
    def text(self) -> str:
        """`about 12 min left`; empty as long as that is not known, and at the end."""
        left = self.seconds_left
        return f"about {duration(left)} left" if left else ""
