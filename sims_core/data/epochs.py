"""The order in which a training sees its data."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache

import torch
from torch import Tensor

from sims_core.common import purposes
from sims_core.common.seeding import derive_seed
from sims_core.diffusion.noise import generator

UNIT = 2**32
"""Fractions are multiples of 1 / UNIT: sums of them over any number of images are exact."""


@dataclass(frozen=True)
class Shares:
    """How often a training draws from the real part of its data, the rest from the synthetic."""

    real_fraction: float
    synthetic: Tensor
    """Which places of the training set are synthetic, bool [N]; some, and not all."""

    @cached_property
    def real_places(self) -> Tensor:
        """Where the real data are, int64, in order."""
        return (~self.synthetic).nonzero().flatten()

    @cached_property
    def synthetic_places(self) -> Tensor:
        """Where the synthetic data are, int64, in order."""
        return self.synthetic.nonzero().flatten()

    @property
    def weights(self) -> Tensor:
        """Probability of each place, float64 [N], sum 1."""
        real = self.real_fraction / (~self.synthetic).sum().double()
        synthetic = (1 - self.real_fraction) / self.synthetic.sum().double()
        return torch.where(self.synthetic, synthetic, real)


@lru_cache(maxsize=4)
def epoch_order(epoch: int, count: int, seed: int, purpose: str = purposes.EPOCH) -> Tensor:
    """The order of `count` images in an epoch, [count]: made once, since it takes 36 ms for the
    1.28 million of ImageNet. A batch may touch two epochs of two parts. Not to be changed."""
    return torch.randperm(count, generator=generator(seed, purpose, epoch))


def batch_indices(
    step: int, batch_size: int, count: int, seed: int, shares: Shares | None = None
) -> Tensor:
    """Indices of batch `step`, [batch_size]: every image once an epoch, in a new order each.

    With `shares` the real part and the synthetic part each have epochs of their own, and the batch
    takes the next images of both. A function of its arguments alone, so that training can start at
    any step.
    """
    positions = torch.arange(step * batch_size, (step + 1) * batch_size)
    if shares is None:
        return _in_epochs(positions, count, seed, purposes.EPOCH)
    before = _real_before(step * batch_size, batch_size, shares.real_fraction, seed)
    is_real = before[1:] > before[:-1]
    indices = torch.empty_like(positions)
    real, synthetic = shares.real_places, shares.synthetic_places
    nth = before[:-1][is_real]
    indices[is_real] = real[_in_epochs(nth, len(real), seed, purposes.REAL_EPOCH)]
    nth = (positions - before[:-1])[~is_real]
    order = _in_epochs(nth, len(synthetic), seed, purposes.SYNTHETIC_EPOCH)
    indices[~is_real] = synthetic[order]
    return indices


def _in_epochs(positions: Tensor, count: int, seed: int, purpose: str) -> Tensor:
    """What comes at each of `positions` of an endless row of epochs over `count` images."""
    epochs = positions // count
    indices = torch.empty_like(positions)
    for epoch in set(epochs.tolist()):
        inside = epochs == epoch
        indices[inside] = epoch_order(epoch, count, seed, purpose)[positions[inside] % count]
    return indices


def _real_before(start: int, length: int, fraction: float, seed: int) -> Tensor:
    """How many real images come before each of the positions start .. start + length.

    floor(fraction * position + u) with u uniform in [0, 1), drawn from the seed: each position is
    real with probability `fraction`, and of any n in a row n * fraction are, give or take one.
    """
    share = round(fraction * UNIT)
    offset = derive_seed(seed, purposes.SHARE)  # 32 bits: u * UNIT
    whole, rest = divmod(start * share + offset, UNIT)  # Python's integers: of any size
    return whole + (rest + torch.arange(length + 1) * share) // UNIT
