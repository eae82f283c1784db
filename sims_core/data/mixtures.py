"""Mixtures of Gaussians of one width: points of known components."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from sims_core.common import purposes
from sims_core.data.config import Mixture, MixtureSourceConfig
from sims_core.data.points import replicate_noise, write_points
from sims_core.diffusion.noise import generator
from sims_core.engine.stage import StageContext


def likeliest(mixture: Mixture, points: Tensor) -> Tensor:
    """The component that each point is likeliest of (Bayes' rule); points [..., d] to [...]."""
    means = torch.tensor(mixture.means, dtype=torch.float64)
    away = (points.double()[..., None, :] - means).square().sum(-1)
    weights = torch.tensor(mixture.weights, dtype=torch.float64)
    return (weights.log() - away / (2 * mixture.std**2)).argmax(-1)


def draw_mixture(config: MixtureSourceConfig, seed: int) -> Tensor:
    """`count` points for each replicate, float32 [R, count, d].

    Point i of replicate r is a function of (mixture, seed, r, i) alone.
    """
    mixture, count = config.mixture, config.count
    means = torch.tensor(mixture.means, dtype=torch.float64)
    noise = replicate_noise(seed, config.replicates, count, means.shape[1]).double()
    edges = torch.tensor(mixture.weights, dtype=torch.float64).cumsum(0)[:-1]
    drawn = [
        torch.rand(count, generator=generator(seed, purposes.LABEL, r), dtype=torch.float64)
        for r in range(config.replicates)
    ]
    component = torch.searchsorted(edges, torch.stack(drawn), right=True)
    return (means[component] + mixture.std * noise).float()


def prepare_mixture(context: StageContext[MixtureSourceConfig]) -> dict[str, Any]:
    """Stage `prepare_mixture`: independent sets of points for each replicate."""
    points = draw_mixture(context.config, context.config.seed)
    write_points(context.directory, points)
    return {"replicates": len(points), "count": points.shape[1], "dim": points.shape[-1]}
