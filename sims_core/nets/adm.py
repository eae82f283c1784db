"""ADM (arXiv 2105.05233) as EDM trains it (arXiv 2206.00364, appendix F).

Parameters have the names that EDM's checkpoints give them.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sims_core.nets.dropout import seed_dropouts
from sims_core.nets.edm_config import ADMConfig
from sims_core.nets.layers import (
    AugmentLabels,
    Conv,
    LabelDropout,
    ResidualBlock,
    Told,
    class_rows,
    group_norm,
    sinusoidal_features,
)
from sims_core.nets.unet_layout import BlockPlan

EPS = 1e-5
"""Epsilon of the group normalisations."""


class ADM(Told):
    """F(x [N, channels, H, W], c_noise [N], labels) -> [N, outputs, H, W].

    labels are class indices [N], rows [N, num_classes] or None.
    """

    def __init__(self, config: ADMConfig) -> None:
        super().__init__()
        self.config = config
        layout = self.layout = config.layout
        width, embedding = config.model_channels, config.embedding
        if config.augment_dim:
            self.map_augment = nn.Linear(config.augment_dim, width, bias=False)
        self.map_layer0 = nn.Linear(width, embedding)
        self.map_layer1 = nn.Linear(embedding, embedding)
        if config.num_classes:
            self.map_label = nn.Linear(config.num_classes, embedding, bias=False)
        self.label_dropout = LabelDropout(config.label_dropout)
        self.stem = f"{config.image_size}x{config.image_size}_conv"
        self.enc = nn.ModuleDict({self.stem: Conv(config.channels, layout.stem_channels, 3)})
        self.enc.update({plan.name: self._block(plan) for plan in layout.encoder})
        self.dec = nn.ModuleDict({plan.name: self._block(plan) for plan in layout.decoder})
        self.out_norm = group_norm(config.widths[0], EPS)
        self.out_conv = Conv(config.widths[0], config.outputs, 3)
        self.dropout = seed_dropouts(self)
        self.told = AugmentLabels()

    def _block(self, plan: BlockPlan) -> ResidualBlock:
        return ResidualBlock(
            plan,
            self.config.embedding,
            dropout=self.config.dropout,
            taps=(1, 1),
            adaptive_scale=True,
            projects_resampled=False,
            skip_scale=1.0,
            eps=EPS,
        )

    def embed(self, c_noise: Tensor, labels: Tensor | None, x: Tensor) -> Tensor:
        """What every block is told: [N, embedding]."""
        config = self.config
        features = sinusoidal_features(c_noise, config.model_channels, endpoint=False)
        if config.augment_dim and self.training and self.told.labels is not None:
            features = features + self.map_augment(self.told.labels.to(features))
        embedded: Tensor = self.map_layer1(F.silu(self.map_layer0(features)))
        rows = class_rows(labels, config.num_classes, x)
        if config.num_classes:
            embedded = embedded + self.map_label(self.label_dropout(rows))
        return F.silu(embedded)

    def forward(self, x: Tensor, c_noise: Tensor, labels: Tensor | None = None) -> Tensor:
        layout, embedded = self.layout, self.embed(c_noise, labels, x)
        x = self.enc[self.stem](x)
        skips = [x]
        for plan in layout.encoder:
            x = self.enc[plan.name](x, embedded)
            skips.append(x)
        for plan in layout.decoder:
            joined = torch.cat([x, skips.pop()], dim=1) if plan.joins else x
            x = self.dec[plan.name](joined, embedded)
        result: Tensor = self.out_conv(F.silu(self.out_norm(x)))
        return result

    @torch.no_grad()
    def initialise(self, generator: torch.Generator) -> None:
        """ADM's initial weights: torch's default, zero at the end of each block and the output."""
        for name, module in self.named_modules():
            if isinstance(module, nn.GroupNorm):
                module.reset_parameters()
            if not isinstance(module, nn.Linear | nn.Conv2d):
                continue
            last = name.rpartition(".")[2]
            bound = 0.0 if last in ("conv1", "proj", "out_conv", "map_augment") else 1.0
            bound /= math.sqrt(module.weight[0].numel())
            if last == "map_label":  # a table of embeddings
                nn.init.normal_(module.weight, generator=generator)
                continue
            for parameter in module.parameters(recurse=False):
                nn.init.uniform_(parameter, -bound, bound, generator=generator)
