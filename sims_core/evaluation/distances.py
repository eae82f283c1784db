"""Distances of point sets to a Gaussian, a value a replicate, and intervals of their means."""

from __future__ import annotations

from typing import Any

import numpy as np
import ot
from numpy.typing import NDArray
from torch import Tensor

from sims_core.common import purposes
from sims_core.common.seeding import derive_seed
from sims_core.diffusion.gaussian import gaussian_w2, moments

Floats = NDArray[np.float64]


def moment_w2(points: Tensor, mean: Tensor, covariance: Tensor) -> Floats:
    """Closed-form W2 between the Gaussian of the points' moments and the true one.

    Args:
        points: [R, n, d]; their covariance is taken over n - 1.
        mean, covariance: [d] and [d, d].

    Returns:
        [R], in the points' unit.
    """
    distance: Floats = gaussian_w2(*moments(points, unbiased=True), mean, covariance).numpy()
    return distance


def empirical_w2(points: Tensor, reference: Tensor) -> Floats:
    """Exact W2 between equally weighted point sets by optimal transport (POT), replicate by
    replicate.

    Args:
        points, reference: [R, n, d] and [R, m, d].

    Returns:
        [R], in the points' unit.
    """
    return np.array(
        [
            np.sqrt(max(0.0, float(ot.emd2([], [], ot.dist(mine, other), numItermax=1_000_000))))
            for mine, other in zip(points.double().numpy(), reference.double().numpy(), strict=True)
        ]
    )


def resamples(replicates: int, count: int, seed: int) -> NDArray[np.int64]:
    """Bootstrap indices [count, replicates], the same for equal arguments."""
    # Not scipy.stats.bootstrap: it draws the same resamples, but its percentile is that of
    # (1 - 0.95) / 2 = 0.025000000000000022, which moves the last digit of about half the intervals
    # and with it the bytes of stored metrics.
    random = np.random.default_rng(derive_seed(seed, purposes.BOOTSTRAP))
    return random.integers(replicates, size=(count, replicates))


def interval(values: Floats) -> tuple[float, float]:
    """The 2.5 and 97.5 percentiles of bootstrapped figures [count]."""
    low, high = np.percentile(values, [2.5, 97.5])
    return float(low), float(high)


def mean_and_interval(values: Floats, count: int, seed: int) -> tuple[float, float, float]:
    """Mean of values [R] over replicates with its percentile bootstrap 95 % interval.

    With few replicates such an interval is somewhat too narrow (R = 8: about 90 % coverage).
    """
    means = values[resamples(len(values), count, seed)].mean(axis=1)
    return (float(values.mean()), *interval(means))


def ratio_and_interval(
    values: Floats, reference: Floats, count: int, seed: int
) -> tuple[float, float, float]:
    """mean(values) / mean(reference), both [R] of the same replicates, resampled together."""
    indices = resamples(len(values), count, seed)
    ratios = values[indices].mean(axis=1) / reference[indices].mean(axis=1)
    return (float(values.mean() / reference.mean()), *interval(ratios))


def described(name: str, values: Floats, count: int, seed: int) -> dict[str, Any]:
    """`name`, `name_low` and `name_high`: the mean over replicates and its interval."""
    mean, low, high = mean_and_interval(values, count, seed)
    return {name: mean, f"{name}_low": low, f"{name}_high": high}
