"""EDM's non-leaking geometric augmentation (arXiv 2206.00364, Appendix F.2).

Images are mirrored, scaled, turned, stretched and shifted, and the network is told how. Sampled as
if nothing had been done to an image, it gives images that nothing was done to.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

SCALE_STD = 0.2
"""Deviation of log2 of scale and stretch."""


SHIFT_STD = 0.125
"""Deviation of the shift, in widths of the image."""


def _matrices(a: Tensor, b: Tensor, c: Tensor, d: Tensor) -> Tensor:
    """[[a, b], [c, d]] for each image, [N, 2, 2]."""
    return torch.stack([torch.stack([a, b], dim=-1), torch.stack([c, d], dim=-1)], dim=-2)


def _scale(x: Tensor, y: Tensor) -> Tensor:
    zero = torch.zeros_like(x)
    return _matrices(x, zero, zero, y)


def _turn(angle: Tensor) -> Tensor:
    return _matrices(angle.cos(), -angle.sin(), angle.sin(), angle.cos())


def draw_augmentations(
    count: int, probability: float, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """How each of `count` images is augmented, and what the network is told of it.

    Every kind is applied with `probability`, independently, but for the left-right mirror: that is
    one in two, as in EDM's setting for CIFAR-10.

    Returns:
        affine [N, 2, 3]: where in the image (coordinates -1..1, y down) each point of the augmented
        one comes from, as `torch.nn.functional.affine_grid` takes it; labels [N, AUGMENT_LABELS],
        zero for what is not applied. Both float32.
    """

    def applied(values: Tensor) -> Tensor:
        chosen = torch.rand(count, generator=generator) < probability
        return torch.where(chosen.view(-1, *[1] * (values.dim() - 1)), values, 0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(count, *shape, generator=generator)

    def angle() -> Tensor:
        return (torch.rand(count, generator=generator) * 2 - 1) * math.pi

    mirror_x = torch.randint(2, (count,), generator=generator).float()
    mirror_y = applied(torch.randint(2, (count,), generator=generator).float())
    scale, turn, stretch = applied(normal()), applied(angle()), applied(normal())
    direction, shift = angle(), applied(normal(2))
    direction = torch.where(stretch == 0, 0, direction)  # there and back again would not be exact
    by, along = 2 ** (SCALE_STD * scale), 2 ** (SCALE_STD * stretch)
    # An image is mirrored, scaled, turned, stretched along a direction, and shifted, in this order.
    stretching = _turn(direction) @ _scale(along, 1 / along) @ _turn(-direction)
    linear = stretching @ _turn(turn) @ _scale(by * (1 - 2 * mirror_x), by * (1 - 2 * mirror_y))
    inverse = torch.linalg.inv(linear)
    moved = 2 * SHIFT_STD * shift  # the image is 2 wide
    affine = torch.cat([inverse, -inverse @ moved[:, :, None]], dim=-1)
    told = [mirror_x, mirror_y, scale, turn.cos() - 1, turn.sin()]
    told += [stretch * direction.cos(), stretch * direction.sin(), shift[:, 0], shift[:, 1]]
    return affine, torch.stack(told, dim=-1)


def augment(images: Tensor, affine: Tensor) -> Tensor:
    """Images [N, C, H, W] as `draw_augmentations` says; bicubic, mirrored beyond their edges.

    EDM resamples through a wavelet filter at twice the resolution; bicubic interpolation is ours.
    """
    grid = F.affine_grid(affine.to(images), list(images.shape), align_corners=False)
    changed = F.grid_sample(
        images, grid, mode="bicubic", padding_mode="reflection", align_corners=False
    )
    identity = torch.eye(2, 3, device=affine.device)
    untouched = (affine == identity).all(dim=(1, 2)).to(images.device)
    return torch.where(untouched.view(-1, 1, 1, 1), images, changed)
