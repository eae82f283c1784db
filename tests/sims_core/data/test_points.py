"""Points as Parquet, noise of replicates, and distances with their intervals."""

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from sims_core.common.errors import BadInput
from sims_core.data.points import (
    NOISE_BLOCK,
    count_points,
    read_points,
    replicate_noise,
    write_points,
)
from sims_core.diffusion.noise import generator
from sims_core.evaluation.distances import (
    empirical_w2,
    mean_and_interval,
    moment_w2,
    ratio_and_interval,
)


def points(replicates=3, count=20, dim=2, seed=0):
    return torch.randn(replicates, count, dim, generator=generator(seed, "points"))


def test_points_come_back_and_equal_points_are_equal_bytes(tmp_path):
    folders = [tmp_path / name for name in "ab"]
    for folder in folders:
        folder.mkdir()
        write_points(folder, points())
    assert torch.equal(read_points(folders[0]), points())
    assert torch.equal(read_points(folders[0], 7), points()[:, :7])
    assert count_points(folders[0]) == 20
    one, other = ((folder / "points.parquet").read_bytes() for folder in folders)
    assert one == other
    assert pq.read_schema(folders[0] / "points.parquet").names == ["replicate", "x0", "x1"]
    with pytest.raises(BadInput, match="21 points wanted"):
        read_points(folders[0], 21)


def test_noise_depends_on_neither_count():
    many = replicate_noise(5, 4, NOISE_BLOCK + 300, 2)
    assert torch.equal(replicate_noise(5, 2, NOISE_BLOCK + 7, 2), many[:2, : NOISE_BLOCK + 7])
    assert torch.equal(replicate_noise(5, 2, 10, 2), many[:2, :10])
    assert not torch.equal(many[0], many[1])
    assert not torch.equal(many[:, :300], many[:, NOISE_BLOCK:])
    assert many.std() == pytest.approx(1, abs=0.05)


def test_empirical_w2_is_the_sorted_distance_in_one_dimension():
    mine, other = points(dim=1), 2 + 1.5 * points(dim=1, seed=1)
    expected = ((mine.sort(1).values - other.sort(1).values) ** 2).mean((1, 2)).sqrt()
    np.testing.assert_allclose(empirical_w2(mine, other), expected.numpy(), rtol=1e-6)


def test_moment_w2_of_a_shift_is_its_length():
    cloud = points(count=20_000)
    shift = torch.tensor([3.0, 4.0])
    found = moment_w2(cloud + shift, torch.zeros(2).double(), torch.eye(2).double())
    np.testing.assert_allclose(found, 5, atol=0.05)


def test_intervals_hold_the_mean_about_as_often_as_they_say():
    random = np.random.default_rng(0)
    hits = 0
    for seed in range(200):
        mean, low, high = mean_and_interval(random.normal(1, 0.3, 16), 500, seed)
        assert low < mean < high
        hits += low <= 1 <= high
    assert 0.86 < hits / 200 < 0.98  # 95 %, a little less for 16 values


def test_a_ratio_is_resampled_in_pairs():
    random = np.random.default_rng(1)
    first = random.normal(1, 0.3, 16)
    ratio, low, high = ratio_and_interval(2 * first, first, 500, 0)
    assert (ratio, low, high) == pytest.approx((2, 2, 2))
    mean = mean_and_interval(first, 500, 0)
    assert mean == mean_and_interval(first, 500, 0)
    assert mean[2] - mean[1] > 0.1
