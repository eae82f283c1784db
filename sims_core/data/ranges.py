"""Between what is stored (uint8 images, float16 latents) and what networks see."""

from __future__ import annotations

import torch
from torch import Tensor

from sims_core.common.errors import SimsError
from sims_core.data.types import Images, Latents

RAN_AWAY = "the sampler ran away (values not finite): lower omega, add steps or train less wildly"


def to_float16(x: Tensor, problem: str = RAN_AWAY) -> Latents:
    """float [N, C, H, W] to half precision.

    Raises:
        SimsError: a value is not finite, or is not any more; says `problem`.
    """
    half = x.half()
    if not torch.isfinite(half).all():
        raise SimsError(problem)
    latents: Latents = half.cpu().numpy()
    return latents


def to_uint8(x: Tensor) -> Images:
    """float [-1, 1], [N, C, H, W] to the nearest of 256 grey levels.

    Raises:
        SimsError: a value is not finite.
    """
    if not torch.isfinite(x).all():
        raise SimsError(RAN_AWAY)
    levels: Images = ((x + 1) * 127.5).round().clamp(0, 255).to(torch.uint8).cpu().numpy()
    return levels


def to_unit_range(images: Images, device: str = "cpu") -> Tensor:
    """uint8 [N, C, H, W] to float32 in [-1, 1] on `device`."""
    return scaled(torch.from_numpy(images).to(device))


def scaled(images: Tensor) -> Tensor:
    """uint8 images to float32 in [-1, 1]; latents and points to float32."""
    return images.float() / 127.5 - 1 if images.dtype == torch.uint8 else images.float()
