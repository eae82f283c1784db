"""Stages that sample models."""

from __future__ import annotations

from typing import Any

from sims_core.engine.stage import Stage
from sims_core.sampling.config import GenerateConfig, GeneratePointsConfig

GENERATE = Stage(
    "generate", 1, "images", GenerateConfig, "sims_core.sampling.images:generate", accelerated=True
)
GENERATE_LATENTS = Stage(
    "generate_latents",
    1,
    "latents",
    GenerateConfig,
    "sims_core.sampling.images:generate_latents",
    accelerated=True,
)
GENERATE_POINTS = Stage(
    "generate_points",
    1,
    "points",
    GeneratePointsConfig,
    "sims_core.sampling.points:generate_points",
    one_thread=lambda config: True,
    short=True,
    accelerated=True,
)

STAGES: tuple[Stage[Any], ...] = (GENERATE, GENERATE_LATENTS, GENERATE_POINTS)
