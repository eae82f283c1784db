"""Configuration of the stages that sample."""

from __future__ import annotations

from pydantic import Field

from sims_core.common.frozen import Frozen
from sims_core.diffusion.config import SamplerConfig


class GenerateConfig(Frozen):
    sampler: SamplerConfig
    omega: float = Field(default=0.0, ge=0)
    count: int = Field(ge=1)
    first_seed: int
    """Image i is a function of (models, sampler, omega, first_seed + i) alone."""
    images_per_shard: int = Field(default=1024, ge=1)


class GeneratePointsConfig(Frozen):
    sampler: SamplerConfig
    omega: float = Field(default=0.0, ge=0)
    sampling_bias: float = Field(default=1.0, ge=0, le=1)
    count: int = Field(ge=1)
    """Points of each replicate."""
    seed: int
    """Point i of replicate r is a function of (its models, sampler, omega, seed, r, i) alone."""
