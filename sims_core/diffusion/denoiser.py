"""The denoiser D(x; sigma): what samplers, guidance and losses share."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor, nn


class Denoiser(Protocol):
    """E[clean | noisy]: `denoiser(x, sigma, labels)`.

    Args:
        x: noisy data, [N, ...], = clean + sigma * standard normal.
        sigma: noise level, a scalar or of shape x.shape[:k] for some k: [N], or [R, N] for x
            [R, N, d].
        labels: class indices [N], or None.

    Returns:
        The denoised estimate, same shape and dtype as x. The score is (D(x; sigma) - x) / sigma^2.
    """

    def __call__(self, x: Tensor, sigma: Tensor, labels: Tensor | None = None, /) -> Tensor: ...


def per_sample(sigma: Tensor, x: Tensor) -> Tensor:
    """`sigma` ([], or x's leading dimensions) in x's dtype and device, as what broadcasts over x.

    [] and [N] become [N, 1, ...]; [R, N] becomes [R, N, 1, ...].
    """
    sigma = torch.as_tensor(sigma, dtype=x.dtype, device=x.device)
    leading = x.shape[: max(1, sigma.dim())]
    return sigma.expand(leading).reshape(*leading, *[1] * (x.dim() - len(leading)))


class NetDenoiser(nn.Module):
    """A denoiser round a raw network `net`: what is trained, stored and loaded.

    `sigma_data`, the standard deviation of the training data, sets the loss's weights.
    """

    def __init__(self, net: nn.Module, sigma_data: float) -> None:
        super().__init__()
        self.net = net
        self.sigma_data = sigma_data

    def forward(self, x: Tensor, sigma: Tensor, labels: Tensor | None = None) -> Tensor:
        """D(x; sigma); see `Denoiser`."""
        raise NotImplementedError


class EDMDenoiser(NetDenoiser):
    """EDM's preconditioning of a raw network F (arXiv 2206.00364, Eq. 7 and Table 1).

    D(x; sigma) = c_skip x + c_out F(c_in x; c_noise), so that F sees and predicts unit variance.

    Args:
        net: F(x [N, ...], c_noise [N], labels [N] or None) -> [N, ...]; c_noise is [R, N] where
            sigma is.
        sigma_data: standard deviation of the training data.
    """

    def forward(self, x: Tensor, sigma: Tensor, labels: Tensor | None = None) -> Tensor:
        leading = max(1, torch.as_tensor(sigma).dim())
        sigma = per_sample(sigma, x)
        c_skip, c_out, c_in = self.scalings(sigma)
        c_noise = sigma.reshape(sigma.shape[:leading]).log() / 4
        raw: Tensor = self.net(c_in * x, c_noise, labels)
        return c_skip * x + c_out * raw

    def scalings(self, sigma: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """c_skip, c_out and c_in at `sigma`, each of sigma's shape."""
        total = sigma**2 + self.sigma_data**2
        c_skip = self.sigma_data**2 / total
        return c_skip, sigma * self.sigma_data / total.sqrt(), 1 / total.sqrt()

    def training_pairs(
        self, clean: Tensor, sigma: Tensor, noise: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """What F sees and should answer: F's plain squared error is EDM's weighted error of D.

        Args:
            clean: data, [..., d].
            sigma: noise levels, [...].
            noise: standard normal, [..., d].

        Returns:
            F's input [..., d], c_noise [...] and target [..., d].
        """
        level = sigma[..., None]
        c_skip, c_out, c_in = self.scalings(level)
        noisy = clean + level * noise
        return c_in * noisy, sigma.log() / 4, (clean - c_skip * noisy) / c_out


def edm_loss(
    denoiser: NetDenoiser,
    clean: Tensor,
    generator: torch.Generator,
    P_mean: float,
    P_std: float,
    labels: Tensor | None = None,
) -> Tensor:
    """EDM's denoising loss (arXiv 2206.00364, Eq. 8), averaged over images and pixels.

    Args:
        clean: data, [N, ...].
        generator: a CPU generator; the noise is drawn there whatever clean's device.
        P_mean, P_std: ln(sigma) ~ N(P_mean, P_std^2).

    Returns:
        A scalar. With weight 1 / c_out^2 an untrained network that predicts zero has loss about 1.
    """
    ln_sigma = P_mean + P_std * torch.randn(clean.shape[0], generator=generator)
    noise = torch.randn(clean.shape, generator=generator)
    return squared_errors(denoiser, clean, ln_sigma.exp(), noise, labels).mean()


def squared_errors(
    denoiser: NetDenoiser,
    clean: Tensor,
    sigma: Tensor,
    noise: Tensor,
    labels: Tensor | None = None,
) -> Tensor:
    """EDM's weighted squared error of each element.

    Args:
        clean: data, [N, ...] or [R, N, ...].
        sigma: noise levels, of clean's leading shape.
        noise: standard normal, of clean's shape.

    Returns:
        clean's shape.
    """
    levels = per_sample(sigma, clean)
    noisy = clean + levels * noise.to(clean)
    weight = (levels**2 + denoiser.sigma_data**2) / (levels * denoiser.sigma_data) ** 2
    error: Tensor = denoiser(noisy, levels.flatten(sigma.dim() - 1), labels) - clean
    return weight * error**2
