"""Networks trained with DDPM's variance-preserving noise, as denoisers of EDM's x + sigma n."""

from __future__ import annotations

from typing import Any

import torch
from diffusers import DDPMScheduler
from torch import Tensor, nn

from sims_core.diffusion.config import NoiseSchedule
from sims_core.diffusion.denoiser import NetDenoiser, per_sample


def noise_levels(schedule: NoiseSchedule) -> Tensor:
    """sigma of each timestep, float64 [T], increasing: sqrt(1 - a) / sqrt(a), a = alphas_cumprod.

    The last is infinite where the schedule is rescaled to zero terminal SNR.
    """
    # The library's own float32 products: what the network was trained with.
    arguments = schedule.model_dump(exclude={"prediction_type"})
    scheduler: Any = DDPMScheduler(**arguments)  # type: ignore[no-untyped-call]
    kept: Tensor = scheduler.alphas_cumprod.double()
    return ((1 - kept) / kept).sqrt()


class VPDenoiser(NetDenoiser):
    """The exact denoiser of a network that predicts epsilon, v or the image at a timestep.

    With alpha = 1 / sqrt(1 + sigma^2), alpha x is what the network was trained on: sqrt(a) image +
    sqrt(1 - a) noise with a = alpha^2. The timestep is where the schedule has this sigma; between
    two of them it is interpolated in ln(sigma), beyond the first and the last it is that one.

    Args:
        net: F(x [N, ...], timestep [N], labels [N] or None) -> [N, ...].
        sigma_data: standard deviation of the training data, for the loss's weights.
        schedule: what the network was trained with.
    """

    def __init__(self, net: nn.Module, sigma_data: float, schedule: NoiseSchedule) -> None:
        super().__init__(net, sigma_data)
        self.prediction_type = schedule.prediction_type
        levels = noise_levels(schedule)
        # A plain attribute: it belongs to the configuration, not to the weights.
        self._ln_sigmas = levels[levels.isfinite()].log()

    def timestep(self, sigma: Tensor) -> Tensor:
        """Fractional timestep of noise levels of any shape, in their dtype."""
        known = self._ln_sigmas = self._ln_sigmas.to(sigma.device)
        ln_sigma = sigma.double().log().clamp(known[0], known[-1])
        above = torch.searchsorted(known, ln_sigma).clamp(1, len(known) - 1)
        lower, upper = known[above - 1], known[above]
        return (above - 1 + (ln_sigma - lower) / (upper - lower)).to(sigma.dtype)

    def forward(self, x: Tensor, sigma: Tensor, labels: Tensor | None = None) -> Tensor:
        sigma = per_sample(sigma, x)
        alpha = 1 / (1 + sigma**2).sqrt()
        raw: Tensor = self.net(alpha * x, self.timestep(sigma.flatten()), labels)
        if self.prediction_type == "sample":
            return raw
        if self.prediction_type == "epsilon":
            return x - sigma * raw
        return alpha**2 * x - sigma * alpha * raw
