"""Configuration of the sampler and of DDPM's noise schedule. Sigmas are on images in [-1, 1]."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import (
    Field,
    model_validator,
)

from sims_core.common.frozen import Frozen
from sims_core.common.precision import Precision


class NoiseSchedule(Frozen):
    """DDPM's discrete noise and what the network predicts, in diffusers' schedulers' words."""

    prediction_type: Literal["epsilon", "v_prediction", "sample"] = "epsilon"
    beta_schedule: Literal["linear", "scaled_linear", "squaredcos_cap_v2"] = "linear"
    beta_start: Annotated[float, Field(gt=0, lt=1)] = 1e-4
    beta_end: Annotated[float, Field(gt=0, lt=1)] = 0.02
    num_train_timesteps: Annotated[int, Field(ge=2)] = 1000
    rescale_betas_zero_snr: bool = False


class SamplerConfig(Frozen):
    """EDM's deterministic sampler (Algorithm 1 with S_churn = 0)."""

    solver: Literal["heun", "euler"] = "heun"
    num_steps: Annotated[int, Field(ge=1)] = 18
    sigma_min: Annotated[float, Field(gt=0)] = 0.002
    sigma_max: Annotated[float, Field(gt=0)] = 80.0
    rho: Annotated[float, Field(gt=0)] = 7.0
    precision: Precision = "fp32"
    """Precision of the passes of image networks. bf16 and fp16 are mixed: weights, EDM's scalings
    and the sampler's sums are always float32."""

    @model_validator(mode="after")
    def _ordered(self) -> SamplerConfig:
        if self.sigma_min >= self.sigma_max:
            raise ValueError(f"sigma_min {self.sigma_min} must be below sigma_max {self.sigma_max}")
        return self

    @property
    def nfe(self) -> int:
        """Evaluations of one denoiser for one image (SIMS evaluates two)."""
        return 2 * self.num_steps - 1 if self.solver == "heun" else self.num_steps
