"""Points drawn from models of points, guided or not: each replicate from its own."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from sims_core.common.errors import BadInput
from sims_core.data.points import replicate_noise, write_points
from sims_core.diffusion.config import SamplerConfig, SigmaInterval
from sims_core.diffusion.denoiser import Denoiser
from sims_core.diffusion.gaussian import EVERYWHERE, commute, draw_gaussian, guided_gaussian
from sims_core.diffusion.guidance import negative_guidance
from sims_core.diffusion.sampler import auxiliary_evaluations, make_sampler
from sims_core.engine.stage import StageContext
from sims_core.nets.exact_gaussian import GAUSSIAN_FILE, GaussianModel, load_gaussian
from sims_core.nets.mlp import MLP
from sims_core.nets.saved import load_model
from sims_core.sampling.config import GeneratePointsConfig

POINTS_PER_BATCH = 1024
"""Points of each replicate that go through a network at once; batches only group the work."""


def generated_gaussian(
    base: GaussianModel,
    auxiliary: GaussianModel,
    omega: float,
    sampler: SamplerConfig,
    interval: SigmaInterval | None = None,
) -> GaussianModel:
    """The Gaussian that guided sampling gives: in closed form if possible, else by the ODE.

    The closed form needs covariances that commute and are positive definite. The ODE is affine in
    its noise whatever its discretisation, so that d + 1 trajectories a replicate give the whole of
    it: x = b + A noise, hence N(b, A A^T).
    """
    smallest = torch.linalg.eigvalsh(torch.stack([base.covariance, auxiliary.covariance]))[..., 0]
    if commute(base.covariance, auxiliary.covariance) and smallest.min() > 0:
        pairs = [(model.mean, model.covariance) for model in (base, auxiliary)]
        return GaussianModel(*guided_gaussian(pairs[0], pairs[1], omega, interval or EVERYWHERE))
    guided = negative_guidance(base.denoiser, auxiliary.denoiser, omega, interval)
    replicates, dim = base.mean.shape
    corners = torch.cat([torch.zeros(1, dim), torch.eye(dim)]).double()
    reached = make_sampler(sampler)(guided, corners.expand(replicates, -1, -1))
    mean = reached[:, 0]
    spread = reached[:, 1:] - mean[:, None]  # row i is A's column i
    return GaussianModel(mean, spread.mT @ spread)


def _from_gaussians(context: StageContext[GeneratePointsConfig]) -> Tensor:
    config = context.config
    model = load_gaussian(context.open("base"))
    if config.omega > 0:
        auxiliary = load_gaussian(context.open("auxiliary"))
        guidance = (config.omega, config.sampler, config.interval)
        model = generated_gaussian(model, auxiliary, *guidance)
    noise = replicate_noise(config.seed, len(model.mean), config.count, model.mean.shape[1])
    return draw_gaussian(model.mean, config.sampling_bias * model.covariance, noise)


def _load_networks(context: StageContext[GeneratePointsConfig]) -> tuple[Denoiser, int, int]:
    """The denoiser to sample from, its replicates and dimension."""
    config, device = context.config, context.execution.device
    base, _ = load_model(context.open("base"), device)
    if not isinstance(base.net, MLP):
        raise BadInput("points need a perceptron")
    replicates, _, dim = base.net.out.weight.shape
    if config.omega == 0:
        return base, replicates, dim
    auxiliary, _ = load_model(context.open("auxiliary"), device)
    guided = negative_guidance(base, auxiliary, config.omega, config.interval)
    return guided, replicates, dim


def _from_networks(context: StageContext[GeneratePointsConfig]) -> Tensor:
    config = context.config
    if config.sampling_bias != 1:
        raise BadInput("sampling_bias is defined for model.net exact_gaussian only")
    denoiser, replicates, dim = _load_networks(context)
    sample = make_sampler(config.sampler)
    noise = replicate_noise(config.seed, replicates, config.count, dim)
    drawn = []
    for part in torch.split(noise, POINTS_PER_BATCH, dim=1):
        drawn.append(sample(denoiser, part.to(context.execution.device)).cpu())
        context.progress(sum(d.shape[1] for d in drawn), config.count, "points")
    return torch.cat(drawn, dim=1)


def generate_points(context: StageContext[GeneratePointsConfig]) -> dict[str, Any]:
    """Stage `generate_points`: inputs `base` and, for omega > 0, `auxiliary` (models).

    Raises:
        BadInput: a model is not one of points.
    """
    exact = (context.open("base") / GAUSSIAN_FILE).exists()
    points = _from_gaussians(context) if exact else _from_networks(context)
    write_points(context.directory, points)
    config = context.config
    guided = auxiliary_evaluations(config.sampler, config.interval) if config.omega else 0
    return {
        "count": points.shape[1],
        "replicates": len(points),
        "nfe": 0 if exact else config.sampler.nfe + guided,
    }
