"""How far a long stage is, in words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sims_core.reports.forecast import duration


@dataclass(frozen=True)
class Moment:
    """How far a stage was at a time."""

    at: float
    done: int
    total: int
    unit: str
    trains: bool = False
    loss: float | None = None

    @classmethod
    def of(
        cls, at: float, done: int, total: int, unit: str, figures: Mapping[str, float]
    ) -> Moment:
        """What a stage tells of itself by its `Progress`."""
        return cls(at, done, total, unit, "img_per_s" in figures, figures.get("loss"))

    @property
    def percent(self) -> float:
        return round(min(100.0, 100 * self.done / max(1, self.total)), 1)

    def describe(self, label: str, first: Moment) -> str:
        """In one line; rate and time left are those since `first`."""
        far = f"{self.done} of {self.total} {'images' if self.unit == 'img' else self.unit}"
        if self.trains:
            far = f"{self.done / 1000:.1f} of {self.total / 1000:.1f} kimg"
        if self.loss is not None:
            far += f", loss {self.loss:.4g}"
        if self.done <= first.done or self.at <= first.at:
            return f"{label}: {far}"
        rate = (self.done - first.done) / (self.at - first.at)
        left = (self.total - self.done) / rate
        return f"{label}: {far}, {rate:.0f} {self.unit}/s, {duration(left)} left"
