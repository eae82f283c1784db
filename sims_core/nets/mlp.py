"""Perceptrons for points, one a replicate, all at once."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sims_core.diffusion.denoiser import per_sample
from sims_core.nets.config import (
    MLPConfig,
)


class ReplicatedLinear(nn.Module):
    """R linear layers at once: x [R, N, in] to [R, N, out]."""

    def __init__(self, replicates: int, in_features: int, out_features: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(replicates, in_features, out_features))
        self.bias = nn.Parameter(torch.empty(replicates, out_features))
        for parameter in (self.weight, self.bias):  # torch's default, as nn.Linear's
            nn.init.uniform_(parameter, -1 / math.sqrt(in_features), 1 / math.sqrt(in_features))

    def forward(self, x: Tensor) -> Tensor:
        return torch.baddbmm(self.bias[:, None], x, self.weight)


class MLP(nn.Module):
    """R SiLU perceptrons on (x, c_noise), one a replicate.

    x is [R, N, dim], or [N, dim] if R = 1; c_noise is of x's leading shape ([R] or [R, N]).
    """

    def __init__(self, config: MLPConfig) -> None:
        super().__init__()
        widths = [config.dim + 1, *[config.hidden_features] * config.hidden_layers]
        self.hidden = nn.ModuleList(
            ReplicatedLinear(config.replicates, before, after)
            for before, after in zip(widths[:-1], widths[1:], strict=True)
        )
        self.out = ReplicatedLinear(config.replicates, widths[-1], config.dim)

    @property
    def last_layer(self) -> nn.Module:
        """What `initialise` sets to zero."""
        return self.out

    def forward(self, x: Tensor, c_noise: Tensor, labels: Tensor | None = None) -> Tensor:
        level = per_sample(c_noise, x).expand(*x.shape[:-1], 1)
        features = torch.cat([x, level], dim=-1)
        features = features if x.dim() == 3 else features[None]
        for layer in self.hidden:
            features = F.silu(layer(features), inplace=not torch.is_grad_enabled())
        result: Tensor = self.out(features)
        return result if x.dim() == 3 else result[0]
