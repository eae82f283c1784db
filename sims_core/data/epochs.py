"""The order in which a training sees its data."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

from sims_core.common import purposes
from sims_core.diffusion.noise import generator


@lru_cache(maxsize=2)
def epoch_order(epoch: int, count: int, seed: int) -> Tensor:
    """The order of `count` images in an epoch, [count]: made once, since it takes 36 ms for the
    1.28 million of ImageNet. A batch may touch two epochs. Not to be changed."""
    return torch.randperm(count, generator=generator(seed, purposes.EPOCH, epoch))


def batch_indices(step: int, batch_size: int, count: int, seed: int) -> Tensor:
    """Indices of batch `step`, [batch_size]: every image once an epoch, in a new order each.

    A function of its arguments alone, so that training can start at any step.
    """
    first, last = step * batch_size, (step + 1) * batch_size
    parts = []
    for epoch in range(first // count, (last - 1) // count + 1):
        start = epoch * count
        order = epoch_order(epoch, count, seed)
        parts.append(order[max(first - start, 0) : min(last - start, count)])
    return torch.cat(parts)
