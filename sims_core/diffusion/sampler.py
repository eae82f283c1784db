"""EDM's deterministic samplers: the probability-flow ODE dx/dsigma = (x - D(x; sigma)) / sigma."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

from sims_core.diffusion.config import SamplerConfig, SigmaInterval, is_within
from sims_core.diffusion.denoiser import Denoiser


def karras_sigmas(
    num_steps: int, sigma_min: float = 0.002, sigma_max: float = 80.0, rho: float = 7.0
) -> Tensor:
    """Noise levels of EDM (arXiv 2206.00364, Eq. 5), from sigma_max to sigma_min, then 0.

    Returns:
        float64, [num_steps + 1], strictly decreasing.

    Raises:
        ValueError: num_steps < 1, or not 0 < sigma_min < sigma_max, or rho <= 0.
    """
    if num_steps < 1:
        raise ValueError(f"num_steps is {num_steps}; it must be at least 1")
    if not (0 < sigma_min < sigma_max and rho > 0):
        raise ValueError(
            f"need 0 < sigma_min < sigma_max and rho > 0, got sigma_min {sigma_min}, "
            f"sigma_max {sigma_max}, rho {rho}"
        )
    ramp = torch.linspace(0, 1, num_steps, dtype=torch.float64)
    top, bottom = sigma_max ** (1 / rho), sigma_min ** (1 / rho)
    sigmas = (top + ramp * (bottom - top)) ** rho
    sigmas[0] = sigma_max  # exactly, whatever the rounding of the two powers
    return torch.cat([sigmas, sigmas.new_zeros(1)])


def _slope(
    denoiser: Denoiser, x: Tensor, sigma: Tensor, labels: Tensor | None
) -> Tensor:  # [N, ...]
    return (x - denoiser(x, sigma, labels)) / sigma


@torch.no_grad()
def euler_sample(
    denoiser: Denoiser, noise: Tensor, sigmas: Tensor, labels: Tensor | None = None
) -> Tensor:
    """First-order solution; arguments and result as `heun_sample`. len(sigmas) - 1 evaluations."""
    sigmas = sigmas.to(noise)
    x = noise * sigmas[0]
    for sigma, following in zip(sigmas[:-1], sigmas[1:], strict=True):
        x = x + (following - sigma) * _slope(denoiser, x, sigma, labels)
    return x


@torch.no_grad()
def heun_sample(
    denoiser: Denoiser, noise: Tensor, sigmas: Tensor, labels: Tensor | None = None
) -> Tensor:
    """Second-order (Heun) solution: EDM's Algorithm 1 with S_churn = 0.

    Args:
        denoiser: called with a scalar sigma.
        noise: standard normal, [N, ...]; scaled by sigmas[0] here. Its dtype is kept: give float64
            for float64.
        sigmas: decreasing noise levels, the last one 0 (`karras_sigmas`).
        labels: class indices [N], or None.

    Returns:
        Samples, shape and dtype of noise. 2 * (len(sigmas) - 1) - 1 evaluations when sigmas end
        in 0: the last step is Euler's, since the slope does not exist at sigma = 0.
    """
    sigmas = sigmas.to(noise)
    x = noise * sigmas[0]
    for sigma, following in zip(sigmas[:-1], sigmas[1:], strict=True):
        slope = _slope(denoiser, x, sigma, labels)
        step = following - sigma
        euler = x + step * slope
        if following > 0:
            x = x + step * (slope + _slope(denoiser, euler, following, labels)) / 2
        else:
            x = euler
    return x


class Sampler(Protocol):
    """noise [N, ...], standard normal, and labels [N] or None to samples [N, ...]."""

    def __call__(
        self, denoiser: Denoiser, noise: Tensor, labels: Tensor | None = None, /
    ) -> Tensor: ...


RoundSigma = Callable[[Tensor], Tensor]
"""Noise levels to the nearest that a network knows, as EDM's Algorithm 1 does for networks of a few
levels."""


def every_level(sigma: Tensor) -> Tensor:
    """The rounding of a network that knows all noise levels: none."""
    return sigma


def _sigmas(config: SamplerConfig, round_sigma: RoundSigma) -> Tensor:
    sigmas = karras_sigmas(config.num_steps, config.sigma_min, config.sigma_max, config.rho)
    sigmas[:-1] = round_sigma(sigmas[:-1])
    return sigmas


def auxiliary_evaluations(
    config: SamplerConfig, interval: SigmaInterval | None, round_sigma: RoundSigma = every_level
) -> int:
    """How many of the sampler's evaluations are guided, each by one more of the auxiliary.

    Args:
        interval: noise levels that are guided; None: all.
    """
    if interval is None:
        return config.evaluations
    first, *later = (
        is_within(sigma, interval) for sigma in _sigmas(config, round_sigma)[:-1].tolist()
    )
    # Heun evaluates a level at the end of a step and again, elsewhere, at the start of the next.
    return first + sum(later) * (2 if config.solver == "heun" else 1)


def make_sampler(config: SamplerConfig, round_sigma: RoundSigma = every_level) -> Sampler:
    """The configured sampler, at noise levels that the network knows."""
    solve = heun_sample if config.solver == "heun" else euler_sample
    sigmas = _sigmas(config, round_sigma)

    def sample(denoiser: Denoiser, noise: Tensor, labels: Tensor | None = None) -> Tensor:
        return solve(denoiser, noise, sigmas, labels)

    return sample
