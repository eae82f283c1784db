"""Guided denoisers: neither sampler, evaluation nor loop learns that they are made of others."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from sims_core.common.errors import BadInput
from sims_core.diffusion.config import SigmaInterval, is_within
from sims_core.diffusion.denoiser import Denoiser


def negative_guidance(
    base: Denoiser, auxiliary: Denoiser, omega: float, interval: SigmaInterval | None = None
) -> Denoiser:
    """The SIMS combination (arXiv 2408.16333, Algorithm 1): away from the auxiliary.

    D = (1 + omega) D_base - omega D_aux, equally for scores and for epsilon, which are affine in D.
    EDM2 writes it lerp(D_aux, D_base, guidance) with guidance = 1 + omega. omega = 0 is the only
    "off": it returns `base` itself and the auxiliary is never evaluated.

    Args:
        base: denoiser trained on the data.
        auxiliary: the same fine-tuned on the base's own samples.
        omega: guidance strength >= 0.
        interval: noise levels outside of which the base alone is evaluated (arXiv 2404.07724);
            None: everywhere guided. The result then takes a scalar sigma, as samplers give it.

    Raises:
        BadInput: omega is negative or not finite.
    """
    if not (math.isfinite(omega) and omega >= 0):
        raise BadInput(f"omega is {omega}; it must be a finite number >= 0 (0 is no guidance)")
    if omega == 0:
        return base

    def guided(x: Tensor, sigma: Tensor, labels: Tensor | None = None) -> Tensor:
        denoised = base(x, sigma, labels)
        # On an accelerator reading sigma waits for what that is still computing: nothing beside a
        # network's pass, which is saved.
        if interval is not None and not is_within(torch.as_tensor(sigma).item(), interval):
            return denoised
        return denoised + omega * (denoised - auxiliary(x, sigma, labels))

    return guided


def class_guidance(denoiser: Denoiser, w: float) -> Denoiser:
    """Classifier-free guidance (arXiv 2207.12598): away from what the model makes of no class.

    D = (1 + w) D(x | class) - w D(x | no class), in MAD's words a sampling bias of 1 / (1 + w).
    w = 0 is the only "off": it returns `denoiser` itself, which is then evaluated once.

    Together with SIMS each network is guided by its own answer without a class, and the negative
    guidance is between the two that result.

    Args:
        denoiser: knows both a class and, where labels are None, none.
        w: guidance strength >= 0.

    Raises:
        BadInput: w is negative or not finite; or, when it is called, there are no labels.
    """
    if not (math.isfinite(w) and w >= 0):
        raise BadInput(f"class_guidance is {w}; it must be a finite number >= 0 (0 is no guidance)")
    if w == 0:
        return denoiser

    def guided(x: Tensor, sigma: Tensor, labels: Tensor | None = None) -> Tensor:
        if labels is None:
            raise BadInput("class_guidance needs labels, and these images have none")
        denoised = denoiser(x, sigma, labels)
        return denoised + w * (denoised - denoiser(x, sigma, None))

    return guided
