"""DDPM++ and NCSN++ (arXiv 2011.13456) as EDM trains them (arXiv 2206.00364, appendix F).

Parameters have the names that EDM's checkpoints give them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sims_core.nets.dropout import seed_dropouts
from sims_core.nets.edm_config import SongUNetConfig
from sims_core.nets.layers import (
    AugmentLabels,
    Conv,
    FourierFeatures,
    LabelDropout,
    Resample,
    ResidualBlock,
    Told,
    class_rows,
    group_norm,
    sinusoidal_features,
)
from sims_core.nets.unet_layout import BlockPlan

EPS = 1e-6
"""Epsilon of the group normalisations."""
ALMOST_ZERO = 1e-5
"""Scale of the initial weights of what each block and the network end with."""


class SongUNet(Told):
    """F(x [N, channels, H, W], c_noise [N], labels) -> [N, outputs, H, W].

    labels are class indices [N], rows [N, num_classes] or None.
    """

    def __init__(self, config: SongUNetConfig) -> None:
        super().__init__()
        self.config = config
        layout = self.layout = config.layout
        noise, embedding = config.noise_channels, config.embedding
        if config.embedding_type == "fourier":
            self.map_noise = FourierFeatures(noise)
        if config.num_classes:
            self.map_label = nn.Linear(config.num_classes, noise)
        if config.augment_dim:
            self.map_augment = nn.Linear(config.augment_dim, noise, bias=False)
        self.map_layer0 = nn.Linear(noise, embedding)
        self.map_layer1 = nn.Linear(embedding, embedding)
        self.label_dropout = LabelDropout(config.label_dropout)
        sizes = [f"{size}x{size}" for size in layout.resolutions]
        self.enc = nn.ModuleDict(
            {f"{sizes[0]}_conv": Conv(config.channels, layout.stem_channels, 3)}
        )
        auxiliary = config.channels
        for plan in layout.encoder:
            self.enc[plan.name] = self._block(plan)
            if plan.resample == "down":
                ways = self._encoder_ways(sizes[plan.level], auxiliary, plan.out_channels)
                self.enc.update(ways)
                auxiliary = plan.out_channels if config.encoder_type == "residual" else auxiliary
        self.dec = nn.ModuleDict()
        for level in reversed(range(len(sizes))):
            for plan in layout.decoder_at(level):
                self.dec[plan.name] = self._block(plan)
            self.dec.update(self._decoder_ways(sizes[level], level))
        self.dropout = seed_dropouts(self)
        self.told = AugmentLabels()

    def _block(self, plan: BlockPlan) -> ResidualBlock:
        return ResidualBlock(
            plan,
            self.config.embedding,
            dropout=self.config.dropout,
            taps=self.config.resample_filter,
            adaptive_scale=False,
            projects_resampled=True,
            skip_scale=math.sqrt(0.5),
            eps=EPS,
        )

    def _encoder_ways(self, size: str, auxiliary: int, channels: int) -> Mapping[str, nn.Module]:
        """What takes the image, or what was made of it, to one resolution of the encoder."""
        taps = self.config.resample_filter
        if self.config.encoder_type == "residual":
            way = Conv(auxiliary, channels, 3, "down", taps, filter_last=True)
            return {f"{size}_aux_residual": way}
        if self.config.encoder_type == "skip":
            return {
                f"{size}_aux_down": Resample("down", taps),
                f"{size}_aux_skip": Conv(auxiliary, channels, 1),
            }
        return {}

    def _decoder_ways(self, size: str, level: int) -> Mapping[str, nn.Module]:
        """What makes the output, or one resolution's part of it."""
        config, width = self.config, self.config.widths[level]
        if config.decoder_type == "standard" and level > 0:
            return {}
        ways: dict[str, nn.Module] = {
            f"{size}_aux_norm": group_norm(width, EPS),
            f"{size}_aux_conv": Conv(width, config.outputs, 3),
        }
        if config.decoder_type == "skip" and level < len(config.widths) - 1:
            ways[f"{size}_aux_up"] = Resample("up", config.resample_filter)
        return ways

    def embed(self, c_noise: Tensor, labels: Tensor | None, x: Tensor) -> Tensor:
        """What every block is told: [N, embedding]."""
        config = self.config
        if config.embedding_type == "fourier":
            features = self.map_noise(c_noise)
        else:
            features = sinusoidal_features(c_noise, config.noise_channels, endpoint=True)
        features = features.roll(config.noise_channels // 2, dims=1)  # sines first
        rows = class_rows(labels, config.num_classes, x)
        if config.num_classes:
            rows = self.label_dropout(rows)
            features = features + self.map_label(rows * math.sqrt(config.num_classes))
        if config.augment_dim and self.training and self.told.labels is not None:
            features = features + self.map_augment(self.told.labels.to(features))
        embedded: Tensor = F.silu(self.map_layer1(F.silu(self.map_layer0(features))))
        return embedded

    def forward(self, x: Tensor, c_noise: Tensor, labels: Tensor | None = None) -> Tensor:
        embedded = self.embed(c_noise, labels, x)
        return self._decode(*self._encode(x, embedded), embedded)

    def _encode(self, x: Tensor, embedded: Tensor) -> tuple[Tensor, list[Tensor]]:
        """The coarsest features, and the encoder's outputs in the order in which they were made."""
        layout, auxiliary = self.layout, x
        sizes = [f"{size}x{size}" for size in layout.resolutions]
        x = self.enc[f"{sizes[0]}_conv"](x)
        outputs = [x]
        for plan in layout.encoder:
            x = self.enc[plan.name](x, embedded)
            if plan.resample == "down" and self.config.encoder_type == "residual":
                way = self.enc[f"{sizes[plan.level]}_aux_residual"]
                x = auxiliary = (x + way(auxiliary)) * math.sqrt(0.5)
            elif plan.resample == "down" and self.config.encoder_type == "skip":
                auxiliary = self.enc[f"{sizes[plan.level]}_aux_down"](auxiliary)
                x = x + self.enc[f"{sizes[plan.level]}_aux_skip"](auxiliary)
            outputs.append(x)
        return x, outputs

    def _decode(self, x: Tensor, skips: list[Tensor], embedded: Tensor) -> Tensor:
        """The network's output. Takes its skip connections from `skips`."""
        layout = self.layout
        image: Tensor | None = None
        for level in reversed(range(len(layout.resolutions))):
            size = f"{layout.resolutions[level]}x{layout.resolutions[level]}"
            for plan in layout.decoder_at(level):
                joined = torch.cat([x, skips.pop()], dim=1) if plan.joins else x
                x = self.dec[plan.name](joined, embedded)
            if image is not None:
                image = self.dec[f"{size}_aux_up"](image)
            if self.config.decoder_type == "skip" or level == 0:
                part = self.dec[f"{size}_aux_conv"](F.silu(self.dec[f"{size}_aux_norm"](x)))
                image = part if image is None else image + part
        assert image is not None  # noqa: S101  (level 0 always gives one)
        return image

    @torch.no_grad()
    def initialise(self, generator: torch.Generator) -> None:
        """Initial weights of DDPM++ and NCSN++: Xavier's, blocks and output almost zero."""
        for name, module in self.named_modules():
            last = name.rpartition(".")[2]
            if isinstance(module, nn.Linear | nn.Conv2d):
                nn.init.xavier_uniform_(module.weight, generator=generator)
                if last in ("conv1", "proj") or last.endswith("_aux_conv"):
                    module.weight.mul_(ALMOST_ZERO)
                elif last == "qkv":
                    module.weight.mul_(math.sqrt(0.2))
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
            elif isinstance(module, nn.GroupNorm):
                module.reset_parameters()
            elif isinstance(module, FourierFeatures):
                module.draw(generator)
