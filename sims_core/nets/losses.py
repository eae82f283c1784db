"""The losses that EDM's and EDM2's networks are trained with.

Sources: arXiv 2206.00364, Table 1; arXiv 2312.02696, Eq. 14 to 16 and 21.

A fine-tune of an imported network uses the network's own.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sims_core.diffusion.denoiser import NetDenoiser, per_sample
from sims_core.nets.config import ModelConfig
from sims_core.nets.preconditioning import (
    EDM2Preconditioned,
    iddpm_levels,
    vp_sigma,
)
from sims_core.nets.preconditioning_config import (
    EDM2Loss,
    EDM2Preconditioning,
    EDMLoss,
    EDMPreconditioning,
    IDDPMLoss,
    IDDPMPreconditioning,
    Loss,
    Preconditioning,
    VELoss,
    VPLoss,
    VPPreconditioning,
)


def default_loss(config: Preconditioning) -> Loss:
    """The loss that the papers train a preconditioning with."""
    if isinstance(config, EDMPreconditioning):
        return EDMLoss(sigma_data=config.sigma_data)
    if isinstance(config, EDM2Preconditioning):
        return EDM2Loss(sigma_data=config.sigma_data)
    if isinstance(config, VPPreconditioning):
        fields = config.model_dump(include={"beta_d", "beta_min", "epsilon_t"})
        return VPLoss(**fields)
    if isinstance(config, IDDPMPreconditioning):
        return IDDPMLoss(**config.model_dump(exclude={"kind"}))
    return VELoss(sigma_min=config.sigma_min, sigma_max=config.sigma_max)


def model_loss(model: ModelConfig, P_mean: float, P_std: float) -> Loss | None:
    """What a model is trained with: its own loss, else its preconditioning's.

    Args:
        P_mean, P_std: of ln(sigma), where the model has no loss of its own and the
            preconditioning's has such numbers.

    Returns:
        None: EDM's loss of `model.sigma_data` with these numbers, for any data.
    """
    if model.loss is not None or model.conditioned is None:
        return model.loss
    loss = default_loss(model.conditioned)
    if isinstance(loss, EDMLoss | EDM2Loss):
        return loss.model_copy(update={"P_mean": P_mean, "P_std": P_std})
    return loss


def training_sigmas(loss: Loss, count: int, generator: torch.Generator) -> Tensor:
    """Noise levels of a batch, float32 [count], from a CPU generator."""
    if isinstance(loss, EDMLoss | EDM2Loss):
        normal = torch.randn(count, generator=generator)
        return (loss.P_mean + loss.P_std * normal).exp()
    uniform = torch.rand(count, generator=generator)
    if isinstance(loss, VPLoss):
        time = 1 + uniform * (loss.epsilon_t - 1)
        return vp_sigma(time, loss.beta_d, loss.beta_min)
    if isinstance(loss, VELoss):
        return loss.sigma_min * (loss.sigma_max / loss.sigma_min) ** uniform
    levels = iddpm_levels(loss.C_1, loss.C_2, loss.M)[:-1]
    return levels[(uniform * loss.M).long().clamp(max=loss.M - 1)]


def loss_weight(loss: Loss, sigma: Tensor) -> Tensor:
    """lambda(sigma), of sigma's shape: what a squared error of D counts."""
    if isinstance(loss, EDMLoss | EDM2Loss):
        return (sigma**2 + loss.sigma_data**2) / (sigma * loss.sigma_data) ** 2
    return 1 / sigma**2


def denoising_errors(
    denoiser: NetDenoiser,
    loss: Loss,
    clean: Tensor,
    sigma: Tensor,
    noise: Tensor,
    labels: Tensor | None = None,
) -> Tensor:
    """The loss of each element, of clean's shape.

    Args:
        clean: data, [N, C, H, W].
        sigma: noise levels, [N].
        noise: standard normal, of clean's shape.
        labels: as the network takes them.

    Raises:
        ValueError: EDM2's loss for a network that does not carry u(sigma).
    """
    levels = per_sample(sigma, clean)
    error: Tensor = denoiser(clean + levels * noise.to(clean), levels.flatten(), labels) - clean
    weighted = loss_weight(loss, levels) * error**2
    if not isinstance(loss, EDM2Loss):
        return weighted
    if not isinstance(denoiser, EDM2Preconditioned):
        raise ValueError("EDM2's loss needs EDM2's network, which carries u(sigma)")
    u = per_sample(denoiser.log_variance(levels.flatten()), clean)
    return weighted / u.exp() + u
