"""Configuration of the stages that sample."""

from __future__ import annotations

from pydantic import Field

from sims_core.common.frozen import Frozen
from sims_core.diffusion.config import SamplerConfig, SigmaInterval


class GuidanceConfig(Frozen):
    """How what is sampled is guided away from the auxiliary."""

    omega: float = Field(default=0.0, ge=0)
    """Strength; 0 is none, and no auxiliary."""
    interval: SigmaInterval | None = Field(default=None, exclude_if=lambda value: value is None)
    """Noise levels outside of which the auxiliary is not evaluated; None: it is at all."""


class GenerateConfig(GuidanceConfig):
    sampler: SamplerConfig
    count: int = Field(ge=1)
    first_seed: int
    """Image i is a function of (models, sampler, guidance, first_seed + i) alone."""
    images_per_shard: int = Field(default=1024, ge=1)


class GeneratePointsConfig(GuidanceConfig):
    sampler: SamplerConfig
    sampling_bias: float = Field(default=1.0, ge=0, le=1)
    count: int = Field(ge=1)
    """Points of each replicate."""
    seed: int
    """Point i of replicate r is a function of (its models, sampler, guidance, seed, r, i) alone."""
