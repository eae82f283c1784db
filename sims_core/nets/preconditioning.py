"""The denoiser D(x; sigma) round a raw network F, as EDM's Table 1 has it (arXiv 2206.00364).

D(x; sigma) = c_skip x + c_out F(c_in x; c_noise).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from sims_core.diffusion.denoiser import NetDenoiser, per_sample
from sims_core.nets.preconditioning_config import (
    EDM2Preconditioning,
    EDMPreconditioning,
    IDDPMPreconditioning,
    Preconditioning,
    VEPreconditioning,
    VPPreconditioning,
)


@dataclass(frozen=True)
class Scalings:
    """EDM's four functions of sigma, each of sigma's shape."""

    c_skip: Tensor
    c_out: Tensor
    c_in: Tensor
    c_noise: Tensor


class Preconditioned(NetDenoiser):
    """A denoiser of images, x [N, C, H, W], round a network F(x, c_noise [N], labels).

    Args:
        net: what it predicts may have more channels than x, of which the first are used.
        sigma_data: standard deviation of the training data, for the loss's weights.
    """

    sigma_min: float = 0.0
    """Least noise level at which the network was trained."""
    sigma_max: float = math.inf
    """Largest noise level at which the network was trained."""

    def scalings(self, sigma: Tensor) -> Scalings:
        """The four functions at noise levels of any shape."""
        raise NotImplementedError

    def round_sigma(self, sigma: Tensor) -> Tensor:
        """The nearest noise level that the network knows; any but iDDPM's know all."""
        return sigma

    def forward(self, x: Tensor, sigma: Tensor, labels: Tensor | None = None) -> Tensor:
        levels = per_sample(sigma, x)
        c = self.scalings(levels)
        raw: Tensor = self.net(c.c_in * x, c.c_noise.flatten(), labels)
        return c.c_skip * x + c.c_out * raw[:, : x.shape[1]].to(x.dtype)


class EDMPreconditioned(Preconditioned):
    """EDM's own: F sees and predicts unit variance."""

    negated: bool = False
    """Whether F predicts that with the other sign."""

    def scalings(self, sigma: Tensor) -> Scalings:
        total = sigma**2 + self.sigma_data**2
        return Scalings(
            c_skip=self.sigma_data**2 / total,
            c_out=(-sigma if self.negated else sigma) * self.sigma_data / total.sqrt(),
            c_in=1 / total.sqrt(),
            c_noise=sigma.log() / 4,
        )


class EDM2Preconditioned(EDMPreconditioned):
    """EDM's round a network that carries u(sigma), which only its loss needs."""

    def log_variance(self, sigma: Tensor) -> Tensor:
        """u(sigma) of noise levels [N]: [N]."""
        # Processes that share a batch wrap the network; u(sigma) is then the wrapped one's.
        net: Any = getattr(self.net, "module", self.net)
        result: Tensor = net.log_variance(sigma.log() / 4)
        return result


def vp_sigma(t: Tensor, beta_d: float, beta_min: float) -> Tensor:
    """sigma(t) of the variance-preserving SDE (EDM, Table 1)."""
    return torch.expm1(beta_d * t**2 / 2 + beta_min * t).sqrt()


class VPPreconditioned(Preconditioned):
    """F predicts the noise of the variance-preserving SDE at time t, which it sees as (M - 1) t."""

    def __init__(self, net: nn.Module, sigma_data: float, config: VPPreconditioning) -> None:
        super().__init__(net, sigma_data)
        self.config = config
        ends = torch.tensor([config.epsilon_t, 1.0], dtype=torch.float64, device="cpu")
        levels = vp_sigma(ends, config.beta_d, config.beta_min)
        self.sigma_min, self.sigma_max = levels.tolist()

    def time(self, sigma: Tensor) -> Tensor:
        """t of noise levels of any shape."""
        beta_d, beta_min = self.config.beta_d, self.config.beta_min
        root = (beta_min**2 + 2 * beta_d * (1 + sigma**2).log()).sqrt()
        return (root - beta_min) / beta_d

    def scalings(self, sigma: Tensor) -> Scalings:
        return Scalings(
            c_skip=torch.ones_like(sigma),
            c_out=-sigma,
            c_in=1 / (sigma**2 + 1).sqrt(),
            c_noise=(self.config.M - 1) * self.time(sigma),
        )


class VEPreconditioned(Preconditioned):
    """F predicts the noise, with the other sign, of x as it is."""

    def __init__(self, net: nn.Module, sigma_data: float, config: VEPreconditioning) -> None:
        super().__init__(net, sigma_data)
        self.sigma_min, self.sigma_max = config.sigma_min, config.sigma_max

    def scalings(self, sigma: Tensor) -> Scalings:
        one = torch.ones_like(sigma)
        return Scalings(c_skip=one, c_out=sigma, c_in=one, c_noise=(sigma / 2).log())


def iddpm_levels(C_1: float, C_2: float, M: int) -> Tensor:
    """The noise levels u_0 > ... > u_M = 0 of improved DDPM, float32 [M + 1] (EDM, Table 1).

    In float32 step by step, as the networks' own tables were made: at the smallest levels that
    differs from the formula by up to a thousandth.
    """
    j = torch.arange(M + 1, dtype=torch.float32, device="cpu")
    kept = (0.5 * math.pi * j / M / (C_2 + 1)).sin() ** 2
    ratios = (kept[:-1] / kept[1:]).clamp(min=C_1)
    levels = torch.zeros(M + 1, device="cpu")
    for index in range(M, 0, -1):
        levels[index - 1] = ((levels[index] ** 2 + 1) / ratios[index - 1] - 1).sqrt()
    return levels


class IDDPMPreconditioned(Preconditioned):
    """F predicts the noise at the nearest of M levels, which it knows by number."""

    def __init__(self, net: nn.Module, sigma_data: float, config: IDDPMPreconditioning) -> None:
        super().__init__(net, sigma_data)
        self.config = config
        # A plain attribute: it belongs to the configuration, not to the weights.
        self._levels = iddpm_levels(config.C_1, config.C_2, config.M)
        self.sigma_min, self.sigma_max = float(self._levels[-2]), float(self._levels[0])

    def nearest(self, sigma: Tensor) -> Tensor:
        """Index j of the nearest u_j, of sigma's shape."""
        rising = self._levels.flip(0).to(sigma)
        above = torch.searchsorted(rising, sigma.contiguous()).clamp(1, len(rising) - 1)
        below = above - 1
        closer = (sigma - rising[below]) < (rising[above] - sigma)
        return len(rising) - 1 - torch.where(closer, below, above)

    def round_sigma(self, sigma: Tensor) -> Tensor:
        return self._levels.to(sigma)[self.nearest(sigma)]

    def scalings(self, sigma: Tensor) -> Scalings:
        return Scalings(
            c_skip=torch.ones_like(sigma),
            c_out=-sigma,
            c_in=1 / (sigma**2 + 1).sqrt(),
            c_noise=(self.config.M - 1 - self.nearest(sigma)).to(sigma.dtype),
        )


def precondition(
    net: nn.Module, config: Preconditioning, sigma_data: float = 0.5
) -> Preconditioned:
    """The denoiser that the configuration says, round `net`.

    Args:
        sigma_data: standard deviation of the training data where the configuration has none.
    """
    if isinstance(config, EDM2Preconditioning):
        return EDM2Preconditioned(net, config.sigma_data)
    if isinstance(config, EDMPreconditioning):
        denoiser = EDMPreconditioned(net, config.sigma_data)
        denoiser.sigma_min = config.sigma_min
        denoiser.sigma_max = config.sigma_max or math.inf
        denoiser.negated = config.negated
        return denoiser
    if isinstance(config, VPPreconditioning):
        return VPPreconditioned(net, sigma_data, config)
    if isinstance(config, VEPreconditioning):
        return VEPreconditioned(net, sigma_data, config)
    return IDDPMPreconditioned(net, sigma_data, config)
