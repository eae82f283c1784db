"""The order in which a training sees its data."""

from __future__ import annotations

import torch
from torch import Tensor

from sims_core.common import purposes
from sims_core.diffusion.noise import generator


def batch_indices(step: int, batch_size: int, count: int, seed: int) -> Tensor:
    """Indices of batch `step`, [batch_size]: every image once an epoch, in a new order each.

    A function of its arguments alone, so that training can start at any step.
    """
    positions = torch.arange(step * batch_size, (step + 1) * batch_size)
    epochs = positions // count
    indices = torch.empty_like(positions)
    for epoch in set(epochs.tolist()):
        order = torch.randperm(count, generator=generator(seed, purposes.EPOCH, epoch))
        inside = epochs == epoch
        indices[inside] = order[positions[inside] % count]
    return indices
