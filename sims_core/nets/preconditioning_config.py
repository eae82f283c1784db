"""Which denoiser a raw network is in, and which loss it was trained with: EDM's Table 1, EDM2."""

from __future__ import annotations

import math
from typing import Annotated, Literal

from pydantic import Field

from sims_core.common.frozen import Frozen

Positive = Annotated[float, Field(gt=0, le=1e6)]


class EDMPreconditioning(Frozen):
    """EDM's own (arXiv 2206.00364, Eq. 7)."""

    kind: Literal["edm"] = "edm"
    sigma_data: Positive = 0.5
    sigma_min: Annotated[float, Field(ge=0, le=1e6)] = 0.0
    """Least noise level that the network is used at."""
    sigma_max: Positive | None = None
    """Largest noise level that the network is used at; None: any."""
    negated: bool = Field(default=False, exclude_if=lambda value: not value)
    """Whether F is EDM's with the other sign: what diffusers' EDM schedulers call v_prediction."""

    @property
    def sigma_range(self) -> tuple[float, float]:
        """Least and largest noise level at which the network can be used."""
        return self.sigma_min, self.sigma_max or math.inf


class EDM2Preconditioning(Frozen):
    """EDM's, round a network that carries u(sigma) for its loss (arXiv 2312.02696, Eq. 21)."""

    kind: Literal["edm2"] = "edm2"
    sigma_data: Positive = 0.5

    @property
    def sigma_range(self) -> tuple[float, float]:
        """Least and largest noise level at which the network can be used."""
        return 0.0, math.inf


class VPPreconditioning(Frozen):
    """That of networks trained with the variance-preserving SDE (arXiv 2011.13456)."""

    kind: Literal["vp"] = "vp"
    beta_d: Positive = 19.9
    """Rise of the noise rate from t = 0 to t = 1."""
    beta_min: Positive = 0.1
    """Noise rate at t = 0."""
    M: Annotated[int, Field(ge=2, le=10**6)] = 1000
    """Timesteps of the original: the network sees (M - 1) t."""
    epsilon_t: Annotated[float, Field(gt=0, lt=1)] = 1e-5
    """Smallest t of sampling."""

    @property
    def sigma_range(self) -> tuple[float, float]:
        """Least and largest noise level at which the network can be used, of t epsilon_t and 1."""
        ends = (self.epsilon_t, 1.0)
        low, high = (self.beta_d * t**2 / 2 + self.beta_min * t for t in ends)
        return math.sqrt(math.expm1(low)), math.sqrt(math.expm1(min(high, 700.0)))


class VEPreconditioning(Frozen):
    """That of networks trained with the variance-exploding SDE (arXiv 2011.13456)."""

    kind: Literal["ve"] = "ve"
    sigma_min: Positive = 0.02
    sigma_max: Positive = 100.0

    @property
    def sigma_range(self) -> tuple[float, float]:
        """Least and largest noise level at which the network can be used."""
        return self.sigma_min, self.sigma_max


class IDDPMPreconditioning(Frozen):
    """That of improved DDPM's networks (arXiv 2102.09672): M noise levels, twice the channels."""

    kind: Literal["iddpm"] = "iddpm"
    C_1: Annotated[float, Field(gt=0, lt=1)] = 0.001
    """Least share of the signal's variance that a step keeps."""
    C_2: Annotated[float, Field(ge=0, le=1)] = 0.008
    """Offset of the cosine schedule."""
    M: Annotated[int, Field(ge=2, le=100_000)] = 1000

    @property
    def sigma_range(self) -> tuple[float, float]:
        """Least and largest noise level that the network knows: u_{M-1} and u_0 (EDM, Table 1)."""
        kept = [
            math.sin(0.5 * math.pi * j / self.M / (self.C_2 + 1)) ** 2 for j in range(self.M + 1)
        ]
        product, least = 1.0, math.inf
        for j in range(self.M, 0, -1):  # 1 + u^2 is the product of the reciprocal ratios
            product /= max(kept[j - 1] / kept[j], self.C_1)
            least = min(least, product)
        return math.sqrt(least - 1), math.sqrt(product - 1)


Preconditioning = (
    EDMPreconditioning
    | EDM2Preconditioning
    | VPPreconditioning
    | VEPreconditioning
    | IDDPMPreconditioning
)
PreconditioningConfig = Annotated[Preconditioning, Field(discriminator="kind")]


class EDMLoss(Frozen):
    """ln(sigma) is normal; weight 1 / c_out^2."""

    kind: Literal["edm"] = "edm"
    P_mean: Annotated[float, Field(ge=-50, le=50)] = -1.2
    P_std: Annotated[float, Field(gt=0, le=50)] = 1.2
    sigma_data: Positive = 0.5


class EDM2Loss(Frozen):
    """EDM's with the learned u(sigma): weight / exp(u) times squared error, plus u."""

    kind: Literal["edm2"] = "edm2"
    P_mean: Annotated[float, Field(ge=-50, le=50)] = -0.4
    P_std: Annotated[float, Field(gt=0, le=50)] = 1.0
    sigma_data: Positive = 0.5


class VPLoss(Frozen):
    """t is uniform in [epsilon_t, 1]; weight 1 / sigma(t)^2."""

    kind: Literal["vp"] = "vp"
    beta_d: Positive = 19.9
    beta_min: Positive = 0.1
    epsilon_t: Annotated[float, Field(gt=0, lt=1)] = 1e-5


class VELoss(Frozen):
    """ln(sigma) is uniform; weight 1 / sigma^2."""

    kind: Literal["ve"] = "ve"
    sigma_min: Positive = 0.02
    sigma_max: Positive = 100.0


class IDDPMLoss(Frozen):
    """sigma is any of the M levels; weight 1 / sigma^2."""

    kind: Literal["iddpm"] = "iddpm"
    C_1: Annotated[float, Field(gt=0, lt=1)] = 0.001
    C_2: Annotated[float, Field(ge=0, le=1)] = 0.008
    M: Annotated[int, Field(ge=2, le=100_000)] = 1000


Loss = EDMLoss | EDM2Loss | VPLoss | VELoss | IDDPMLoss
LossConfig = Annotated[Loss, Field(discriminator="kind")]
