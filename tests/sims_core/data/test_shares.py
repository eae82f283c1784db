"""A real part that is drawn with a probability of its own: exact counts, any order of asking."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from sims_core.catalog import run_stage
from sims_core.common.errors import BadInput
from sims_core.data.config import MixConfig, MixPart
from sims_core.data.epochs import Shares, batch_indices
from sims_core.data.mixing import MIX_FILE, read_shares, read_training_set
from sims_core.data.stages import MIX
from sims_core.diffusion.gaussian import moments
from sims_core.engine.execution import Execution

EXECUTION = Execution(threads=1)
MARKS = st.lists(st.booleans(), min_size=2, max_size=40).filter(lambda m: len(set(m)) == 2)


def drawn(shares, count, seed, batch_size=64, first=0):
    """`count` batches in a row, one after the other."""
    size = len(shares.synthetic)
    return torch.cat(
        [batch_indices(first + n, batch_size, size, seed, shares) for n in range(count)]
    )


@given(MARKS, st.floats(0.01, 0.99), st.integers(0, 2**40), st.integers(0, 10**6))
def test_of_any_number_in_a_row_the_wanted_share_is_real(marks, fraction, seed, first):
    shares = Shares(fraction, torch.tensor(marks))
    real = ~shares.synthetic[drawn(shares, 5, seed, first=first)]
    counts = real.long().cumsum(0) - fraction * torch.arange(1, len(real) + 1)
    assert counts.abs().max() <= 1 + 1e-6


@given(MARKS, st.floats(0.01, 0.99), st.integers(0, 2**40))
def test_each_part_has_epochs_of_its_own(marks, fraction, seed):
    shares = Shares(fraction, torch.tensor(marks))
    indices = drawn(shares, 8, seed).tolist()
    for places in (shares.real_places.tolist(), shares.synthetic_places.tolist()):
        times = Counter(index for index in indices if index in places)
        times.update(dict.fromkeys(places, 0))
        assert max(times.values()) - min(times.values()) <= 1, "no image a second time too early"


@given(MARKS, st.floats(0.01, 0.99), st.integers(1, 50))
def test_the_row_of_images_does_not_depend_on_how_it_is_asked_for(marks, fraction, batch_size):
    shares = Shares(fraction, torch.tensor(marks))
    whole = drawn(shares, 1, 3, batch_size=300)
    parts = drawn(shares, -(-300 // batch_size), 3, batch_size=batch_size)
    assert torch.equal(parts[:300], whole)


def test_every_place_of_a_batch_is_real_with_that_probability():
    """Over seeds, at any one place; binomial, five deviations of 2,000 draws."""
    shares = Shares(0.618, torch.tensor([False] * 3 + [True] * 7))
    batches = torch.stack([batch_indices(5, 8, 10, seed, shares) for seed in range(2000)])
    found = (~shares.synthetic[batches]).double().mean(0)
    assert (found - 0.618).abs().max() < 5 * (0.618 * 0.382 / 2000) ** 0.5
    each = torch.stack([(batches == place).double().mean() for place in range(10)])
    torch.testing.assert_close(each, shares.weights, rtol=0.1, atol=0)


def test_far_into_a_training_it_is_still_exact():
    shares = Shares(1 / 3, torch.tensor([False, True]))
    real = ~shares.synthetic[batch_indices(10**11, 3000, 2, 0, shares)]
    assert abs(int(real.sum()) - 1000) <= 1


def test_weighted_moments_are_numpys():
    points = np.random.default_rng(0).normal(size=(50, 3))
    shares = Shares(0.3, torch.arange(50) >= 20)
    weights = shares.weights
    assert float(weights.sum()) == pytest.approx(1)
    assert float(weights[:20].sum()) == pytest.approx(0.3)
    mean, covariance = moments(torch.from_numpy(points), weights=weights)
    expected = np.cov(points.T, aweights=weights.numpy(), ddof=0)
    np.testing.assert_allclose(covariance, expected, rtol=1e-12)
    np.testing.assert_allclose(mean, np.average(points, axis=0, weights=weights), rtol=1e-12)
    ones = Shares(0.4, torch.arange(50) >= 20)  # as many as there are: no weighting
    plain = moments(torch.from_numpy(points))
    torch.testing.assert_close(moments(torch.from_numpy(points), weights=ones.weights), plain)


def parts():
    return MixPart(input="a", synthetic=False), MixPart(input="b", synthetic=True, count=4)


def test_a_mix_says_what_is_real_only_where_that_is_wanted(store, put_images, random_images):
    inputs = {
        "a": put_images(store, random_images(6)),
        "b": put_images(store, random_images(5, seed=1)),
    }
    plain = MIX.request(MixConfig(parts=parts()), **inputs)
    weighted = MIX.request(MixConfig(parts=parts(), real_fraction=0.618), **inputs)
    assert "real_fraction" not in plain.config
    assert plain.ref != weighted.ref
    folders = [store.open_artifact(run_stage(store, each, EXECUTION)) for each in (plain, weighted)]
    assert "real_fraction" not in (folders[0] / MIX_FILE).read_text()
    assert read_shares(folders[0], "mix") is None
    shares = read_shares(folders[1], "mix")
    assert (shares.real_fraction, shares.synthetic.tolist()) == (0.618, [False] * 6 + [True] * 4)
    assert read_training_set(folders[1]).count == 10
    outer = MixPart(input="kept", synthetic=False), MixPart(input="b", synthetic=True)
    nested = MIX.request(MixConfig(parts=outer), kept=weighted.ref, b=inputs["b"])
    with pytest.raises(BadInput, match="drawn with a real_fraction, which a mix of it would lose"):
        run_stage(store, nested, EXECUTION)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"real_fraction": 1.2}, "less than 1"),
        ({"real_fraction": 0.0}, "greater than 0"),
        ({"real_fraction": 0.5, "parts": parts()[:1]}, "weighs real parts against synthetic ones"),
    ],
)
def test_what_cannot_be_weighed_is_refused(changes, message):
    with pytest.raises(ValidationError, match=message):
        MixConfig(**{"parts": parts(), **changes})
