"""Figures over seeds: mean, deviation, interval, and differences seed by seed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import zip_longest

import numpy as np

from sims_core.common.frozen import Frozen

CONFIDENCE = 0.95


class Estimate(Frozen):
    """A figure that was measured once for each of n seeds."""

    mean: float
    n: int
    """How many seeds."""
    std: float | None = None
    """Sample standard deviation, over n - 1; None for one seed."""
    low: float | None = None
    """Ends of the 95 % interval of the mean by Student's t; None for one seed."""
    high: float | None = None
    values: tuple[float, ...]
    """The figure of each seed, in the order of the run's seeds."""

    @property
    def excludes_zero(self) -> bool:
        """Whether the interval lies on one side of zero: one seed never says so."""
        if self.low is None or self.high is None:
            return False
        return self.low > 0 or self.high < 0

    def __str__(self) -> str:
        if self.low is None or self.high is None:
            return f"{self.mean:.3f} (one seed)"
        return f"{self.mean:.3f} [{self.low:.3f}, {self.high:.3f}] over {self.n} seeds"

    @property
    def signed(self) -> str:
        """A difference in words, with its interval if it has one."""
        if self.low is None or self.high is None:
            return f"{self.mean:+.3f}"
        return f"{self.mean:+.3f} [{self.low:+.3f}, {self.high:+.3f}]"


def estimate(values: Sequence[float]) -> Estimate:
    """The mean over seeds with its interval.

    Args:
        values: one for each seed, at least one. Independent draws of about normal distribution are
            assumed; with three seeds the interval is 4.3 standard errors to each side.
    """
    found = np.asarray(values, dtype=np.float64)
    mean, n = float(found.mean()), len(found)
    if n < 2:
        return Estimate(mean=mean, n=n, values=tuple(map(float, values)))
    std = float(found.std(ddof=1))
    reach = _t_quantile(n - 1) * std / math.sqrt(n)
    return Estimate(
        mean=mean,
        n=n,
        std=std,
        low=mean - reach,
        high=mean + reach,
        values=tuple(map(float, values)),
    )


def estimates_along(of_seeds: Sequence[Sequence[float]]) -> list[Estimate]:
    """The mean at each place of sequences of seeds, over those that are long enough to have it: in
    a run that goes on, some seeds have more generations than others."""
    places = zip_longest(*of_seeds)
    return [estimate([value for value in place if value is not None]) for place in places]


def paired_difference(values: Sequence[float], reference: Sequence[float]) -> Estimate:
    """How much `values` differ from `reference`, seed by seed.

    What both have in common for a seed (data, the base, noise) drops out, so that the interval is
    far smaller than the two figures' own.

    Raises:
        ValueError: they are not of the same seeds.
    """
    return estimate([a - b for a, b in zip(values, reference, strict=True)])


def _t_quantile(degrees: int) -> float:
    from scipy.stats import t

    return float(t.ppf(0.5 + CONFIDENCE / 2, degrees))
