"""The exact Gaussian model family: what a generation learns is a mean and a covariance."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from safetensors.torch import load_file, save_file
from torch import Tensor

from sims_core.diffusion.gaussian import GaussianDenoiser

GAUSSIAN_FILE = "gaussian.safetensors"


@dataclass(frozen=True)
class GaussianModel:
    """R Gaussians: mean [R, d] and covariance [R, d, d], float64."""

    mean: Tensor
    covariance: Tensor

    @property
    def denoiser(self) -> GaussianDenoiser:
        return GaussianDenoiser(self.mean, self.covariance)


def save_gaussian(model: GaussianModel, folder: Path) -> None:
    """Writes gaussian.safetensors."""
    tensors = {"mean": model.mean.contiguous(), "covariance": model.covariance.contiguous()}
    save_file(tensors, folder / GAUSSIAN_FILE)


def load_gaussian(folder: Path) -> GaussianModel:
    """Reads what `save_gaussian` wrote."""
    return GaussianModel(**load_file(folder / GAUSSIAN_FILE))
