"""Configuration of the sampler and of DDPM's noise schedule. Sigmas are on images in [-1, 1]."""

from __future__ import annotations

import math
from typing import Annotated, ClassVar, Literal

from pydantic import (
    Field,
    model_validator,
)

from sims_core.common.frozen import Frozen, Grown
from sims_core.common.precision import Precision


class NoiseSchedule(Frozen):
    """DDPM's discrete noise and what the network predicts, in diffusers' schedulers' words."""

    prediction_type: Literal["epsilon", "v_prediction", "sample"] = "epsilon"
    beta_schedule: Literal["linear", "scaled_linear", "squaredcos_cap_v2"] = "linear"
    beta_start: Annotated[float, Field(gt=0, lt=1)] = 1e-4
    beta_end: Annotated[float, Field(gt=0, lt=1)] = 0.02
    num_train_timesteps: Annotated[int, Field(ge=2)] = 1000
    rescale_betas_zero_snr: bool = False

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
        if self.beta_schedule == "squaredcos_cap_v2":
            ends = ((place / steps + 0.008) / 1.008 * math.pi / 2 for place in (index, index + 1))
            start, end = (math.cos(angle) ** 2 for angle in ends)
            return min(1 - end / start, 0.999)
        share = index / (steps - 1)
        if self.beta_schedule == "linear":
            return self.beta_start + share * (self.beta_end - self.beta_start)
        low, high = math.sqrt(self.beta_start), math.sqrt(self.beta_end)
        return (low + share * (high - low)) ** 2


class SamplerConfig(Grown):
    """EDM's deterministic sampler (Algorithm 1 with S_churn = 0)."""

    YOUNGER: ClassVar[tuple[str, ...]] = ("class_guidance",)

    solver: Literal["heun", "euler"] = "heun"
    num_steps: Annotated[int, Field(ge=1)] = 18
    sigma_min: Annotated[float, Field(gt=0)] = 0.002
    sigma_max: Annotated[float, Field(gt=0)] = 80.0
    rho: Annotated[float, Field(gt=0)] = 7.0
    precision: Precision = "fp32"
    """Precision of the passes of image networks. bf16 and fp16 are mixed: weights, EDM's scalings
    and the sampler's sums are always float32."""
    class_guidance: Annotated[float, Field(ge=0)] = 0.0
    """w of classifier-free guidance (arXiv 2207.12598): each network, base and auxiliary alike, is
    (1 + w) D(x | class) - w D(x | no class). 0 is the only "off". MAD's sampling bias is
    lambda = 1 / (1 + w)."""

    @model_validator(mode="after")
    def _ordered(self) -> SamplerConfig:
        if self.sigma_min >= self.sigma_max:
            raise ValueError(f"sigma_min {self.sigma_min} must be below sigma_max {self.sigma_max}")
        return self

    @property
    def sampling_bias(self) -> float:
        """lambda = 1 / (1 + w) of the MAD paper (arXiv 2307.01850); below 1 it takes quality over
        diversity."""
        return 1 / (1 + self.class_guidance)

    @property
    def nfe(self) -> int:
        """Evaluations of one network for one image (SIMS evaluates two networks); classifier-free
        guidance makes two of each."""
        passes = 2 if self.class_guidance > 0 else 1
        return passes * (2 * self.num_steps - 1 if self.solver == "heun" else self.num_steps)
