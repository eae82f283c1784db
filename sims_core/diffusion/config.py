"""Configuration of the sampler and of DDPM's noise schedule. Sigmas are on images in [-1, 1]."""

from __future__ import annotations

import math
from typing import Annotated, ClassVar, Literal

from pydantic import (
    AfterValidator,
    Field,
    model_validator,
)

from sims_core.common.frozen import Frozen, Grown
from sims_core.common.precision import Precision


def _ordered(interval: tuple[float, float]) -> tuple[float, float]:
    low, high = interval
    if not 0 <= low < high:
        raise ValueError(f"want 0 <= low < high, got {low:g} and {high:g}")
    return interval


SigmaInterval = Annotated[tuple[float, float], AfterValidator(_ordered)]
"""Noise levels [low, high], both ends among them."""

MOST_SIGMA = 1e6
"""No noise level is larger."""
_ROUNDING = 1e-6
"""Relative: samplers compute in float32, and an end that names one of their levels has it."""


def is_within(sigma: float, interval: SigmaInterval) -> bool:
    """Whether the interval has the noise level, up to rounding to single precision."""
    low, high = interval
    return low * (1 - _ROUNDING) <= sigma <= high * (1 + _ROUNDING)


class NoiseSchedule(Frozen):
    """DDPM's discrete noise and what the network predicts, in diffusers' schedulers' words."""

    prediction_type: Literal["epsilon", "v_prediction", "sample"] = "epsilon"
    beta_schedule: Literal["linear", "scaled_linear", "squaredcos_cap_v2", "sigmoid"] = "linear"
    beta_start: Annotated[float, Field(gt=0, lt=1)] = 1e-4
    beta_end: Annotated[float, Field(gt=0, lt=1)] = 0.02
    num_train_timesteps: Annotated[int, Field(ge=2, le=10**5)] = 1000
    rescale_betas_zero_snr: bool = False
    trained_betas: tuple[Annotated[float, Field(gt=0, lt=1)], ...] | None = Field(
        default=None, exclude_if=lambda value: value is None
    )
    """The betas themselves, one a timestep, in the place of what makes them; None: made."""

    @model_validator(mode="after")
    def _gives_finite_images(self) -> NoiseSchedule:
        if self.rescale_betas_zero_snr and self.prediction_type == "epsilon":
            raise ValueError(
                "rescale_betas_zero_snr with prediction_type epsilon cannot be used: at the last "
                "timestep nothing of the image is left, and its prediction divides by zero"
            )
        if self.trained_betas is not None and len(self.trained_betas) != self.num_train_timesteps:
            raise ValueError(
                f"trained_betas are {len(self.trained_betas)}, num_train_timesteps "
                f"{self.num_train_timesteps}: there must be one a timestep"
            )
        try:
            if not self.sigma_max < MOST_SIGMA:
                raise OverflowError
        except (ZeroDivisionError, OverflowError):
            raise ValueError(
                f"the betas leave so little of the image at the last of {self.num_train_timesteps} "
                f"timesteps that its noise level is {MOST_SIGMA:g} or more"
            ) from None
        return self

    @property
    def sigma_max(self) -> float:
        """Largest finite noise level sqrt(1 - a) / sqrt(a), a the product of 1 - beta."""
        steps, product, roots = self.num_train_timesteps, 1.0, []
        for index in range(steps):
            product *= 1 - self._beta(index)
            roots.append(math.sqrt(product))
        if self.rescale_betas_zero_snr:  # the last of them becomes 0: no noise level is left there
            first, last = roots[0], roots[-1]
            roots = [(root - last) * first / (first - last) for root in roots[:-1]]
        return math.sqrt(1 - roots[-1] ** 2) / roots[-1]

    def _beta(self, index: int) -> float:
        steps = self.num_train_timesteps
        if self.trained_betas is not None:
            return self.trained_betas[index]
        if self.beta_schedule == "squaredcos_cap_v2":
            ends = ((place / steps + 0.008) / 1.008 * math.pi / 2 for place in (index, index + 1))
            start, end = (math.cos(angle) ** 2 for angle in ends)
            return min(1 - end / start, 0.999)
        share = index / (steps - 1)
        if self.beta_schedule == "sigmoid":
            share = 1 / (1 + math.exp(6 - 12 * share))
        if self.beta_schedule != "scaled_linear":
            return self.beta_start + share * (self.beta_end - self.beta_start)
        low, high = math.sqrt(self.beta_start), math.sqrt(self.beta_end)
        return (low + share * (high - low)) ** 2


class SamplerConfig(Grown):
    """EDM's deterministic sampler (Algorithm 1 with S_churn = 0)."""

    YOUNGER: ClassVar[tuple[str, ...]] = ("class_guidance",)

    solver: Literal["heun", "euler"] = "heun"
    num_steps: Annotated[int, Field(ge=1, le=10_000)] = 18
    sigma_min: Annotated[float, Field(ge=1e-6)] = 0.002
    sigma_max: Annotated[float, Field(gt=0, le=MOST_SIGMA)] = 80.0
    rho: Annotated[float, Field(ge=0.01, le=1000)] = 7.0
    precision: Precision = "fp32"
    """Precision of the passes of image networks. bf16 and fp16 are mixed: weights, EDM's scalings
    and the sampler's sums are always float32."""
    class_guidance: Annotated[float, Field(ge=0, le=1e6)] = 0.0
    """w of classifier-free guidance (arXiv 2207.12598): each network, base and auxiliary alike, is
    (1 + w) D(x | class) - w D(x | no class). 0 is the only "off". MAD's sampling bias is
    lambda = 1 / (1 + w)."""

    @model_validator(mode="after")
    def _ordered(self) -> SamplerConfig:
        if self.sigma_min >= self.sigma_max:
            raise ValueError(f"sigma_min {self.sigma_min} must be below sigma_max {self.sigma_max}")
        return self

    @property
    def levels(self) -> list[float]:
        """Noise levels at which a denoiser is evaluated, decreasing (arXiv 2206.00364, Eq. 5)."""
        top, bottom = self.sigma_max ** (1 / self.rho), self.sigma_min ** (1 / self.rho)
        shares = [index / max(1, self.num_steps - 1) for index in range(self.num_steps)]
        return [float((top + share * (bottom - top)) ** self.rho) for share in shares]

    @property
    def sampling_bias(self) -> float:
        """lambda = 1 / (1 + w) of the MAD paper (arXiv 2307.01850); below 1 it takes quality over
        diversity."""
        return 1 / (1 + self.class_guidance)

    @property
    def evaluations(self) -> int:
        """Evaluations of one denoiser for one image."""
        return 2 * self.num_steps - 1 if self.solver == "heun" else self.num_steps

    @property
    def passes(self) -> int:
        """Passes of a network that make one evaluation of its denoiser: classifier-free guidance
        makes one with the class and one without."""
        return 2 if self.class_guidance > 0 else 1

    @property
    def nfe(self) -> int:
        """Passes of one network for one image; negative guidance evaluates a second network."""
        return self.passes * self.evaluations
