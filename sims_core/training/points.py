"""Models of points, R replicates at once: batched perceptrons, or exact Gaussians."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor
from torch.nn import functional as F

from sims_core.common import purposes
from sims_core.common.errors import BadInput
from sims_core.data.epochs import Shares
from sims_core.data.mixing import load_point_training_set, read_shares
from sims_core.diffusion.denoiser import EDMDenoiser, NetDenoiser
from sims_core.diffusion.gaussian import moments
from sims_core.diffusion.noise import generator
from sims_core.engine.stage import StageContext
from sims_core.nets.config import ExactGaussianConfig, MLPConfig, ModelConfig
from sims_core.nets.exact_gaussian import GaussianModel, load_gaussian, save_gaussian
from sims_core.training.config import TrainingConfig, TrainStageConfig
from sims_core.training.model_files import load_initial, write_model
from sims_core.training.trainer import Training, train

CHUNK_STEPS = 64
"""Steps whose batches are drawn at once, from one generator a replicate."""


class ReplicatedTraining(Training):
    """R trainings in one: each replicate has its own weights, data, order and noise.

    Replicate r is a function of (seed, r, its data) alone, up to float rounding: the loss is the
    sum of the replicates' means, so that no gradient, nor Adam's step, mixes two of them. A batch
    is drawn with replacement. `nimg` counts the points that each replicate sees.

    Args:
        data: training sets, float32 [R, N, d].
        others as `Training`; model.net.replicates must be R.
    """

    foreach_ema = True
    data: Tensor

    def __init__(
        self,
        model: ModelConfig,
        config: TrainingConfig,
        data: Tensor,
        seed: int,
        initial: NetDenoiser | None = None,
        *,
        shares: Shares | None = None,
    ) -> None:
        if data.dim() != 3 or not isinstance(model.net, MLPConfig):
            raise BadInput("replicates need points [R, N, d] and a perceptron")
        if model.net.replicates != len(data):
            raise BadInput(f"{model.net.replicates} models for {len(data)} replicates of data")
        super().__init__(model, config, data, seed, initial, shares=shares)
        self.points = data
        self._chunk = -1
        self._pairs: tuple[Tensor, Tensor, Tensor]

    def initial_generators(self, model: ModelConfig) -> list[torch.Generator]:
        return [generator(self.seed, purposes.INITIALISE, r) for r in range(len(self.data))]

    def _draw(self, chunk: int) -> tuple[Tensor, Tensor, Tensor]:
        """F's inputs, noise levels and targets of a chunk's steps, [steps, R, batch, ...]."""
        _, count, dim = self.points.shape
        shape = (CHUNK_STEPS, self.config.batch_size)
        clean, ln_sigma, noise = [], [], []
        for r, points in enumerate(self.points):
            own = generator(self.seed, purposes.BATCHES, r, chunk)
            indices = self._indices(count, shape, own)
            clean.append(points[indices.to(points.device)])
            ln_sigma.append(torch.randn(shape, generator=own))
            noise.append(torch.randn((*shape, dim), generator=own))
        sigma = (self.config.P_mean + self.config.P_std * torch.stack(ln_sigma, 1)).exp()
        device = self.points.device
        return cast(EDMDenoiser, self.denoiser).training_pairs(
            torch.stack(clean, 1), sigma.to(device), torch.stack(noise, 1).to(device)
        )

    def _indices(self, count: int, shape: tuple[int, int], own: torch.Generator) -> Tensor:
        """Which of a replicate's points are seen: all equally often, or as the shares say."""
        if self.shares is None:
            return torch.randint(count, shape, generator=own)
        is_real = torch.rand(shape, generator=own) < self.shares.real_fraction
        real, synthetic = (
            places[torch.randint(len(places), shape, generator=own)]
            for places in (self.shares.real_places, self.shares.synthetic_places)
        )
        return torch.where(is_real, real, synthetic)

    def advance(self) -> Tensor:
        """One optimiser step; returns the mean loss over replicates, a scalar on the device."""
        chunk, offset = divmod(self.step, CHUNK_STEPS)
        if chunk != self._chunk:
            self._chunk, self._pairs = chunk, self._draw(chunk)
        inputs, c_noise, targets = (part[offset] for part in self._pairs)
        predicted = self.denoiser.net(inputs, c_noise)
        loss = F.mse_loss(predicted, targets, reduction="sum") / targets[0].numel()
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.schedule.step()
        self.ema.step(self.denoiser.parameters())
        self.step += 1
        return loss.detach() / len(targets)


def fit_gaussian(
    points: Tensor,
    config: ExactGaussianConfig,
    initial: GaussianModel | None,
    shares: Shares | None = None,
) -> GaussianModel:
    """The maximum-likelihood Gaussian of each replicate of points [R, N, d], weighted by `shares`.

    With `initial` (SIMS's auxiliary) it is only approached: budget = 1 is the fit itself, less
    stays that fraction of the way from `initial`.
    """
    fitted = GaussianModel(*moments(points, weights=shares.weights if shares else None))
    if initial is None:
        return fitted
    return GaussianModel(
        torch.lerp(initial.mean, fitted.mean, config.budget),
        torch.lerp(initial.covariance, fitted.covariance, config.budget),
    )


def _check_no_snapshots(config: TrainStageConfig) -> None:
    if config.snapshots_kimg:
        raise BadInput("snapshots_kimg are kept of image models only")


def fit_exact_gaussian(context: StageContext[TrainStageConfig]) -> dict[str, Any]:
    """Stage `train` without a network: inputs `data` and, for an auxiliary, `initial` (a model)."""
    _check_no_snapshots(context.config)
    net = cast(ExactGaussianConfig, context.config.model.net)
    folder, kind = context.open("data"), context.inputs["data"].kind
    points = load_point_training_set(context.store, folder, kind)
    start = load_gaussian(context.open("initial")) if "initial" in context.inputs else None
    fitted = fit_gaussian(points, net, start, read_shares(folder, kind))
    save_gaussian(fitted, context.directory)
    return {"points": points.shape[1], "replicates": len(points)}


def train_point_model(context: StageContext[TrainStageConfig]) -> dict[str, Any]:
    """Stage `train` for points: inputs `data` and, for an auxiliary, `initial` (a model)."""
    config, kind = context.config, context.inputs["data"].kind
    _check_no_snapshots(config)
    points = load_point_training_set(context.store, context.open("data"), kind)
    replicates, count, _ = points.shape
    initial = load_initial(context)
    data = points.to(context.execution.device)
    shares = read_shares(context.open("data"), kind)
    training = ReplicatedTraining(
        config.model, config.training, data, config.seed, initial, shares=shares
    )
    denoiser = train(
        training,
        context.state / "checkpoint.pt",
        context.execution.checkpoint_kimg * POINTS_PER_IMAGE,
        context.progress,
    )
    write_model(context, denoiser, training)
    return {
        "nimg": training.nimg,
        "points": count,
        "replicates": replicates,
        "final_loss": training.log[-1][1],
    }


POINTS_PER_IMAGE = 50
"""Checkpoints come after as much time as for images, not after as few points."""
