"""diffusers' U-Net behind F's signature."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from diffusers import UNet2DModel
from diffusers.models.embeddings import TimestepEmbedding
from diffusers.models.resnet import ResnetBlock2D
from torch import Tensor, nn

from sims_core.nets.config import (
    AUGMENT_LABELS,
    DiffusersUNetConfig,
    UNetConfig,
)
from sims_core.nets.dropout import seed_dropouts
from sims_core.nets.layers import AugmentLabels, LabelDropout


def unet_arguments(config: UNetConfig) -> dict[str, Any]:
    """Arguments of `UNet2DModel` for one of our networks."""
    levels = range(len(config.block_out_channels))
    attends = ["Attn" if level in config.attention_levels else "" for level in levels]
    return {
        "sample_size": config.image_size,
        "in_channels": config.channels,
        "out_channels": config.channels,
        "block_out_channels": config.block_out_channels,
        "layers_per_block": config.layers_per_block,
        "down_block_types": tuple(f"{prefix}DownBlock2D" for prefix in attends),
        "up_block_types": tuple(f"{prefix}UpBlock2D" for prefix in reversed(attends)),
        "add_attention": bool(config.attention_levels),
        "attention_head_dim": config.attention_head_dim,
        "norm_num_groups": config.norm_num_groups,
        # One more where classes are hidden: the last stands for "no class".
        "num_class_embeds": (config.num_classes + config.knows_no_class) or None,
        "dropout": config.dropout,
    }


class ToldEmbedding(TimestepEmbedding):
    """The embedding of c_noise, and in training of augmentation labels, as EDM adds them.

    Without a bias: labels of zero, which is how the network is sampled, add nothing, so that
    `UNet2DModel` needs to know nothing of them.
    """

    def __init__(self, embedding: TimestepEmbedding, told: AugmentLabels) -> None:
        first: nn.Linear = embedding.linear_1
        super().__init__(first.in_features, first.out_features, cond_proj_dim=AUGMENT_LABELS)
        self.told = told

    def forward(self, sample: Tensor, condition: Tensor | None = None) -> Tensor:
        embedded: Tensor = super().forward(sample, self.told.labels if self.training else None)
        return embedded


class UNet(nn.Module):
    """diffusers' U-Net behind F's signature; c_noise goes through its positional embedding.

    An imported one takes its own timesteps in the place of c_noise. One with label dropout sees
    "no class" where labels are None.
    """

    def __init__(self, config: UNetConfig | DiffusersUNetConfig) -> None:
        super().__init__()
        self.channels = config.channels
        if isinstance(config, DiffusersUNetConfig):
            arguments, self.noise_scale = config.config, 1.0
        else:
            arguments, self.noise_scale = unet_arguments(config), C_NOISE_SCALE
        # diffusers' class is untyped once its mixins come in.
        unet: Any = UNet2DModel(**arguments)  # type: ignore[no-untyped-call]
        self.unet = unet
        self.no_class: int | None = None
        if isinstance(config, UNetConfig) and config.knows_no_class:
            self.no_class = config.num_classes
            self.label_dropout = LabelDropout(config.label_dropout)
        self.dropout = seed_dropouts(self)
        self.told = AugmentLabels()
        if config.is_told_of_augmentation:
            unet.time_embedding = ToldEmbedding(unet.time_embedding, self.told)
        # oneDNN's convolutions run up to 1.6 times faster on small CPUs with channels last.
        self.to(memory_format=torch.channels_last)

    @property
    def last_layer(self) -> nn.Module:
        """What `initialise` sets to zero."""
        layer: nn.Module = self.unet.conv_out
        return layer

    @property
    def stored(self) -> nn.Module:
        """What is written to disk: diffusers' own network without our wrapper."""
        module: nn.Module = self.unet
        return module

    def write_config(self, folder: Path) -> None:
        """Writes config.json as diffusers reads it."""
        self.unet.save_config(folder)

    def tell(self, dropout: Tensor | None, augment_labels: Tensor | None) -> None:
        """Dropout keys [N] and augmentation labels [N, 9] of the batch that comes next."""
        self.dropout.keys = dropout
        self.told.labels = augment_labels

    def train(self, mode: bool = True) -> UNet:
        """Switches between training and evaluation; diffusers' residual blocks do not learn of it.

        All that they do in training is to copy their input out of the channels-last format, for 8 %
        of a step's time on a CPU; the values are the same. Dropouts are modules of their own.
        """
        super().train(mode)
        for module in self.modules():
            if isinstance(module, ResnetBlock2D):
                module.training = False
        return self

    def forward(self, x: Tensor, c_noise: Tensor, labels: Tensor | None = None) -> Tensor:
        result: Tensor = self.unet(x, c_noise * self.noise_scale, self._seen(labels, x)).sample
        return result[:, : self.channels]  # what more an imported one gives is its variance

    def _seen(self, labels: Tensor | None, x: Tensor) -> Tensor | None:
        """The classes that are embedded: in training some are hidden."""
        if self.no_class is None:
            return labels
        nothing = torch.full((len(x),), self.no_class, device=x.device)
        if labels is None:
            return nothing
        kept = self.label_dropout(x.new_ones(len(x), 1))[:, 0] > 0
        return torch.where(kept, labels, nothing)


C_NOISE_SCALE = 250.0
"""The embedding's frequencies are made for timesteps 0..1000; c_noise spans about -2..1."""
