"""Figures over seeds, against scipy's own intervals."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from sims_core.reports.estimates import estimate, paired_difference

VALUES = st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=9)


@given(values=VALUES)
def test_mean_and_interval_are_those_of_a_t_test(values):
    found = estimate(values)
    assert (found.mean, found.n) == (pytest.approx(np.mean(values)), len(values))
    assert found.std == pytest.approx(np.std(values, ddof=1))
    assert list(found.values) == values
    if found.std > 1e-9:
        interval = stats.ttest_1samp(values, 0).confidence_interval(0.95)
        assert (found.low, found.high) == pytest.approx(tuple(interval), rel=1e-9, abs=1e-9)


def test_one_seed_has_no_interval_and_shows_no_difference():
    found = estimate([3.0])
    assert (found.mean, found.std, found.low, found.high, found.n) == (3.0, None, None, None, 1)
    assert not found.excludes_zero
    assert str(found) == "3.000 (one seed)"


def test_the_interval_covers_the_truth_as_often_as_it_says():
    random = np.random.default_rng(5)
    covered = [
        found.low <= 2.0 <= found.high
        for found in (estimate(random.normal(2.0, 3.0, size=3).tolist()) for _ in range(4000))
    ]
    assert np.mean(covered) == pytest.approx(0.95, abs=0.012)  # 3.5 standard errors


def test_a_paired_difference_sees_what_two_intervals_hide():
    reference = [10.0, 20.0, 30.0]
    better = [9.0, 18.9, 29.1]
    assert estimate(better).high > estimate(reference).mean
    found = paired_difference(better, reference)
    assert found.mean == pytest.approx(-1.0)
    assert found.excludes_zero
    assert not paired_difference(reference, reference).excludes_zero
    with pytest.raises(ValueError, match="zip"):
        paired_difference(better, reference[:2])
