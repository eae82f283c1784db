"""Models made of the weights of two others."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sims_core.common.errors import BadInput, SimsError
from sims_core.engine.stage import StageContext
from sims_core.nets.config import MergeConfig
from sims_core.nets.exact_gaussian import GAUSSIAN_FILE, GaussianModel, load_gaussian, save_gaussian
from sims_core.nets.saved import load_model, save_model, stored_module


def extrapolated(base: Tensor, auxiliary: Tensor, w: float) -> Tensor:
    """base + w (base - auxiliary), in the dtype of `base`; w = 0 and w = -1 are exact."""
    if w == 0:
        return base.clone()
    if w == -1:
        return auxiliary.to(base.dtype)
    return base + w * (base - auxiliary)


def merge_weights(
    base: Mapping[str, Tensor], auxiliary: Mapping[str, Tensor], parameters: set[str], w: float
) -> dict[str, Tensor]:
    """The weights theta_r + w (theta_r - theta_s) (arXiv 2510.03597), float32.

    Args:
        base, auxiliary: state dictionaries of one architecture.
        parameters: names of what is trained; the rest are buffers, which are the base's.
    """
    return {
        name: extrapolated(tensor, auxiliary[name], w) if name in parameters else tensor.clone()
        for name, tensor in base.items()
    }


def merge_models(context: StageContext[MergeConfig]) -> dict[str, Any]:
    """Stage `merge`: inputs `base` and `auxiliary` (models of one architecture).

    Raises:
        BadInput: the auxiliary is of another architecture.
        SimsError: the result is no model.
    """
    folders = context.open("base"), context.open("auxiliary")
    if (folders[0] / GAUSSIAN_FILE).exists():
        _merge_gaussians(*folders, context.directory, context.config.w)
        return {"w": context.config.w}
    (base, config), (auxiliary, other) = map(load_model, folders)
    if config.without_loss != other.without_loss:
        raise BadInput(
            "Neon merges the weights of base and auxiliary: both must have the same network and "
            "preconditioning"
        )
    net, of_auxiliary = stored_module(base.net), stored_module(auxiliary.net).state_dict()
    parameters = {name for name, _ in net.named_parameters()}
    merged = merge_weights(net.state_dict(), of_auxiliary, parameters, context.config.w)
    if bad := [name for name, tensor in merged.items() if not bool(tensor.isfinite().all())]:
        raise SimsError(f"w = {context.config.w:g} gives weights that are not finite ({bad[0]})")
    net.load_state_dict(merged)
    save_model(base, config, context.directory)
    return {"w": context.config.w}


def _merge_gaussians(base: Path, auxiliary: Path, target: Path, w: float) -> None:
    """The exact Gaussian's parameters are its mean and covariance."""
    ours, theirs = load_gaussian(base), load_gaussian(auxiliary)
    mean = extrapolated(ours.mean, theirs.mean, w)
    covariance = extrapolated(ours.covariance, theirs.covariance, w)
    if float(torch.linalg.eigvalsh(covariance).min()) < 0:
        raise SimsError(
            f"w = {w:g} gives a covariance that is not positive semi-definite: lower w, or the "
            "budget of the auxiliary"
        )
    save_gaussian(GaussianModel(mean, covariance), target)
