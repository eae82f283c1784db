"""Batches: which images, noise, augmentations and dropout keys a training step sees.

All of a step is a function of (data, seed, step) alone, so that training can start at any step, and
is drawn for the whole batch whatever processes and micro-batches then share it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from typing import Protocol

import torch
from torch import Tensor

from sims_core.common import purposes
from sims_core.data.epochs import Shares, batch_indices
from sims_core.data.ranges import scaled
from sims_core.diffusion.noise import generator
from sims_core.nets.config import AUGMENT_LABELS
from sims_core.nets.dropout import WORD
from sims_core.nets.losses import training_sigmas
from sims_core.nets.preconditioning_config import EDMLoss, Loss
from sims_core.training.augmentation import augment, draw_augmentations
from sims_core.training.config import TrainingConfig


class TrainingData(Protocol):
    """Images [N, ...], uint8 or scaled: a tensor, or what gives tensors as it does."""

    @property
    def device(self) -> torch.device: ...

    def __len__(self) -> int: ...

    def __getitem__(self, indices: Tensor, /) -> Tensor: ...


@dataclass(frozen=True)
class Batch:
    """What one training step sees of N images; None where the training has no such thing."""

    clean: Tensor
    """[N, ...], uint8, or floats as the network sees them."""
    sigma: Tensor
    """[N]."""
    noise: Tensor
    """Standard normal, of clean's shape."""
    labels: Tensor | None = None
    """Classes, [N]."""
    flips: Tensor | None = None
    """Which images are mirrored, bool [N]."""
    dropout: Tensor | None = None
    """Dropout key of each image, int32 [N]."""
    affine: Tensor | None = None
    """How each image is augmented, [N, 2, 3]; see sims_core.training.augmentation."""
    augment_labels: Tensor | None = None
    """What the network is told of it, [N, 9]."""

    def __len__(self) -> int:
        return len(self.sigma)

    def map(self, change: Callable[[Tensor], Tensor]) -> Batch:
        parts = {field.name: getattr(self, field.name) for field in fields(self)}
        there = {name: change(part) for name, part in parts.items() if part is not None}
        return Batch(**there)

    def micro_batches(self, size: int) -> Iterator[Batch]:
        """The batch in parts of `size` images, the last one maybe smaller."""
        if size >= len(self):
            yield self
            return
        for start in range(0, len(self), size):
            yield self.map(lambda part, start=start: part[start : start + size])  # type: ignore[misc]

    @property
    def images(self) -> Tensor:
        """The clean images in [-1, 1] as they are seen: mirrored where flips say so, augmented."""
        images = scaled(self.clean)
        if self.flips is not None:
            mirrored = self.flips.view(-1, *[1] * (images.dim() - 1))
            images = torch.where(mirrored, images.flip(-1), images)
        return images if self.affine is None else augment(images, self.affine)


def draw_batch(
    data: TrainingData,
    labels: Tensor | None,
    config: TrainingConfig,
    seed: int,
    step: int,
    with_dropout: bool = False,
    with_augment_labels: bool = False,
    loss: Loss | None = None,
    shares: Shares | None = None,
) -> Batch:
    """The whole batch of `step`, on the data's device and (what is drawn) on the CPU.

    Args:
        data: the training set, [N, ...], uint8 or scaled.
        labels: classes [N], or None.
        with_dropout: whether the network wants a dropout key for each image.
        with_augment_labels: whether it wants to be told of augmentation.
        loss: whose noise levels are drawn; None: those of the configuration's P_mean and P_std.
        shares: how often real and synthetic data are drawn; None: all equally.
    """
    count = config.batch_size
    indices = batch_indices(step, count, len(data), seed, shares).to(data.device)
    clean = data[indices]
    own = generator(seed, purposes.NOISE, step)
    drawn = loss or EDMLoss(P_mean=config.P_mean, P_std=config.P_std)
    sigma = training_sigmas(drawn, count, own)
    noise = torch.randn(clean.shape, generator=own)
    flips, keys = None, None
    if config.x_flip:
        flips = torch.rand(count, generator=generator(seed, purposes.FLIP, step)) < 0.5
    if with_dropout:
        low, high = -WORD // 2, WORD // 2
        own = generator(seed, purposes.DROPOUT, step)
        keys = torch.randint(low, high, (count,), dtype=torch.int32, generator=own)
    affine, told = None, None
    if config.augment:
        own = generator(seed, purposes.AUGMENT, step)
        affine, told = draw_augmentations(count, config.augment, own)
    if with_augment_labels and told is None:
        told = torch.zeros(count, AUGMENT_LABELS)
    classes = None if labels is None else labels[indices.to(labels.device)]
    return Batch(clean, sigma, noise, classes, flips, keys, affine, told)
