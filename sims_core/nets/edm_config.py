"""Configuration of EDM's and EDM2's networks, preconditionings and losses, in the papers' words.

Everything is bounded: a configuration that validates describes a network that can be built.
"""

from __future__ import annotations

import math
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, TypeAdapter, model_validator

from sims_core.nets.base import NETS, ImageNet
from sims_core.nets.preconditioning_config import EDM2Preconditioning
from sims_core.nets.unet_layout import (
    LayoutRules,
    UNetLayout,
    group_count,
    linear_parameters,
    plan_unet,
    residual_parameters,
)

MOST_PARAMETERS = 4 * 10**9
"""16 GB in float32. EDM2-XXL, the largest of the papers, has 1.5e9."""
AUGMENT_DIM = 9
"""Augmentation labels that `sims_core.training.augmentation` gives."""

Width = Annotated[int, Field(ge=2, le=16384)]
Multiplier = Annotated[int, Field(ge=1, le=64)]
Multipliers = Annotated[tuple[Multiplier, ...], Field(min_length=1, max_length=10)]
Blocks = Annotated[int, Field(ge=1, le=64)]
Resolution = Annotated[int, Field(ge=1, le=4096)]
Resolutions = Annotated[tuple[Resolution, ...], Field(max_length=16)]
Dropout = Annotated[float, Field(ge=0, lt=1)]
Balance = Annotated[float, Field(ge=0, le=1)]
Taps = Annotated[tuple[Annotated[float, Field(ge=-1e6, le=1e6)], ...], Field(min_length=2)]


class _UNetBase(ImageNet):
    """What the three families share. Images are square, [N, channels, image_size, image_size]."""

    image_size: Annotated[int, Field(ge=2, le=4096)]
    channels: Annotated[int, Field(ge=1, le=1024)]
    num_classes: Annotated[int, Field(ge=0, le=10**6)] = 0
    """Classes that the network is conditioned on; 0 is unconditional."""
    model_channels: Width
    channel_mult: Multipliers
    """Channels of each resolution, in `model_channels`, the finest first."""
    num_blocks: Blocks
    """Residual blocks at each resolution of the encoder; the decoder has one more."""
    attn_resolutions: Resolutions
    """Resolutions with self-attention, in pixels; those that the network lacks mean nothing."""
    dropout: Dropout
    """Probability with which an activation of a residual block is dropped in training."""

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels at each resolution, the finest first."""
        return tuple(self.model_channels * multiplier for multiplier in self.channel_mult)

    @property
    def drops_out(self) -> bool:
        return self.dropout > 0

    @property
    def layout(self) -> UNetLayout:
        """The network's blocks."""
        raise NotImplementedError

    @property
    def parameters(self) -> int:
        """How many numbers are trained, counted without building the network."""
        raise NotImplementedError

    @model_validator(mode="after")
    def _halves_exactly(self) -> Self:
        if self.image_size % 2 ** (len(self.channel_mult) - 1):
            raise ValueError(
                f"image_size {self.image_size} cannot be halved {len(self.channel_mult) - 1} "
                f"times, as {len(self.channel_mult)} entries of channel_mult ask"
            )
        return self

    @model_validator(mode="after")
    def _can_be_built(self) -> Self:
        if self.parameters > MOST_PARAMETERS:
            raise ValueError(
                f"a network of {self.parameters:,} parameters is larger than the "
                f"{MOST_PARAMETERS:,} that can be built here"
            )
        for block in self.layout.blocks:
            if block.heads and block.out_channels % block.heads:
                raise ValueError(
                    f"the {block.out_channels} channels of {block.name} cannot be shared by its "
                    f"{block.heads} attention heads"
                )
        return self


def _check_taps(taps: tuple[float, ...]) -> None:
    """Raises ValueError unless a resampling filter has an even number of taps, not of sum zero."""
    if len(taps) % 2 or len(taps) > 16 or math.isclose(sum(taps), 0, abs_tol=1e-9):
        raise ValueError(
            f"resample_filter must have an even number of at most 16 taps whose sum is not 0, such "
            f"as 1,1 or 1,3,3,1, got {list(taps)}"
        )


class _EDMBase(_UNetBase):
    """What DDPM++, NCSN++ and ADM share."""

    out_channels: Annotated[int, Field(ge=1, le=2048)] | None = None
    """What the network predicts; None is as many as `channels`. iDDPM's predict twice as many."""
    channel_mult_emb: Multiplier = 4
    """Channels of the embedding of noise level and labels, in `model_channels`."""
    label_dropout: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Probability with which an image's class is hidden in training."""
    augment_dim: Annotated[int, Field(ge=0, le=1024)] = 0
    """Augmentation labels that the network is told of in training; 0 is none."""

    @property
    def outputs(self) -> int:
        """Channels of what the network predicts."""
        return self.out_channels or self.channels

    @property
    def embedding(self) -> int:
        """Channels of what every block is told of noise level and labels."""
        return self.model_channels * self.channel_mult_emb

    @property
    def augment_labels(self) -> bool:
        """Whether the network can be told of this project's augmentation."""
        return self.augment_dim == AUGMENT_DIM

    @property
    def is_told_of_augmentation(self) -> bool:
        return self.augment_labels

    @property
    def knows_no_class(self) -> bool:
        return self.num_classes > 0 and self.label_dropout > 0

    @property
    def drops_out(self) -> bool:
        """The classes that are hidden in training are drawn as dropout is."""
        return self.dropout > 0 or (self.num_classes > 0 and self.label_dropout > 0)

    def normalised(self) -> set[int]:
        """Channel counts of all group normalisations."""
        counts = {count for b in self.layout.blocks for count in (b.in_channels, b.out_channels)}
        return counts | {self.widths[0]}

    @model_validator(mode="after")
    def _groups_fit(self) -> Self:
        for channels in sorted(self.normalised()):
            groups = group_count(channels)
            if groups == 0 or channels % groups:
                raise ValueError(
                    f"{channels} channels cannot be normalised in groups: a multiple of 4 up to "
                    "128, beyond that of 32, can (see model_channels and channel_mult)"
                )
        return self


@NETS.add("song")
class SongUNetConfig(_EDMBase):
    """DDPM++ and NCSN++ (arXiv 2011.13456) as EDM trains them (arXiv 2206.00364, appendix F).

    The defaults are DDPM++ of FFHQ-64 but for its dropout; NCSN++ has embedding_type fourier,
    encoder_type residual, channel_mult_noise 2 and resample_filter 1,3,3,1.
    """

    BUILT_BY: ClassVar[str] = "sims_core.nets.song:SongUNet"

    kind: Literal["song"] = "song"
    model_channels: Width = 128
    channel_mult: Multipliers = (1, 2, 2, 2)
    num_blocks: Blocks = 4
    attn_resolutions: Resolutions = (16,)
    dropout: Dropout = 0.10
    embedding_type: Literal["positional", "fourier"] = "positional"
    channel_mult_noise: Multiplier = 1
    """Channels of the features of the noise level, in `model_channels`."""
    encoder_type: Literal["standard", "skip", "residual"] = "standard"
    """skip: the shrunken image is added to every resolution; residual: what was made of it is."""
    decoder_type: Literal["standard", "skip"] = "standard"
    """skip: the output is the sum of what every resolution gives, enlarged."""
    resample_filter: Taps = (1, 1)

    @property
    def noise_channels(self) -> int:
        """Features of the noise level before they are embedded."""
        return self.model_channels * self.channel_mult_noise

    @property
    def layout(self) -> UNetLayout:
        rules = LayoutRules(
            stem_channels=self.model_channels,
            num_blocks=self.num_blocks,
            attn_resolutions=self.attn_resolutions,
            heads=lambda channels: 1,
            every_decoder_block_attends=False,
        )
        return plan_unet(self.image_size, self.widths, rules)

    def normalised(self) -> set[int]:
        return super().normalised() | (set(self.widths) if self.decoder_type == "skip" else set())

    @property
    def parameters(self) -> int:
        noise, layout = self.noise_channels, self.layout
        total = linear_parameters(noise, self.embedding)
        total += linear_parameters(self.embedding, self.embedding)
        total += linear_parameters(self.num_classes, noise) if self.num_classes else 0
        total += linear_parameters(self.augment_dim, noise, bias=False)
        total += linear_parameters(9 * self.channels, layout.stem_channels)
        total += sum(residual_parameters(b, self.embedding, False, True) for b in layout.blocks)
        auxiliary = self.channels
        for block in layout.encoder:
            if block.resample == "down" and self.encoder_type != "standard":
                taps = 9 if self.encoder_type == "residual" else 1
                total += linear_parameters(taps * auxiliary, block.out_channels)
                auxiliary = block.out_channels if self.encoder_type == "residual" else auxiliary
        ends = self.widths if self.decoder_type == "skip" else self.widths[:1]
        return total + sum(2 * w + linear_parameters(9 * w, self.outputs) for w in ends)

    @model_validator(mode="after")
    def _features_fit(self) -> SongUNetConfig:
        _check_taps(self.resample_filter)
        if self.noise_channels % 2 or self.noise_channels < 4:
            raise ValueError(
                "model_channels times channel_mult_noise must be even and at least 4, got "
                f"{self.noise_channels}"
            )
        return self


@NETS.add("adm")
class ADMConfig(_EDMBase):
    """ADM (arXiv 2105.05233) as EDM trains it (arXiv 2206.00364, appendix F).

    The defaults are ImageNet-64's but for its size, channels and classes.
    """

    BUILT_BY: ClassVar[str] = "sims_core.nets.adm:ADM"

    kind: Literal["adm"] = "adm"
    model_channels: Width = 192
    channel_mult: Multipliers = (1, 2, 3, 4)
    num_blocks: Blocks = 3
    attn_resolutions: Resolutions = (32, 16, 8)
    dropout: Dropout = 0.10

    @property
    def layout(self) -> UNetLayout:
        rules = LayoutRules(
            stem_channels=self.widths[0],
            num_blocks=self.num_blocks,
            attn_resolutions=self.attn_resolutions,
            heads=lambda channels: channels // 64,
            every_decoder_block_attends=True,
        )
        return plan_unet(self.image_size, self.widths, rules)

    @property
    def parameters(self) -> int:
        layout = self.layout
        total = linear_parameters(self.model_channels, self.embedding)
        total += linear_parameters(self.embedding, self.embedding)
        total += linear_parameters(self.num_classes, self.embedding, bias=False)
        total += linear_parameters(self.augment_dim, self.model_channels, bias=False)
        total += linear_parameters(9 * self.channels, layout.stem_channels)
        total += sum(residual_parameters(b, self.embedding, True, False) for b in layout.blocks)
        return total + 2 * self.widths[0] + linear_parameters(9 * self.widths[0], self.outputs)

    @model_validator(mode="after")
    def _features_fit(self) -> ADMConfig:
        if self.model_channels % 2:
            raise ValueError(f"model_channels must be even, got {self.model_channels}")
        return self


@NETS.add("edm2")
class EDM2Config(_UNetBase):
    """EDM2's magnitude-preserving network (arXiv 2312.02696, config G).

    The defaults are EDM2-S but for its image size, channels and classes.
    """

    BUILT_BY: ClassVar[str] = "sims_core.nets.edm2:EDM2UNet"

    kind: Literal["edm2"] = "edm2"
    model_channels: Width = 192
    channel_mult: Multipliers = (1, 2, 3, 4)
    channel_mult_noise: Multiplier | None = None
    """Fourier features of the noise level, in `model_channels`; None: the finest level's width."""
    channel_mult_emb: Multiplier | None = None
    """Channels of the embedding, in `model_channels`; None: the widest level's."""
    num_blocks: Blocks = 3
    attn_resolutions: Resolutions = (16, 8)
    dropout: Dropout = 0.0
    label_balance: Balance = 0.5
    """Weight of the class embedding against that of the noise level."""
    concat_balance: Balance = 0.5
    """Weight of a skip connection against the main path."""
    res_balance: Balance = 0.3
    """Weight of a residual branch against the main path."""
    attn_balance: Balance = 0.3
    """Weight of attention against the main path."""
    clip_act: Annotated[float, Field(gt=0)] | None = 256
    """Activations after each block are clipped to plus and minus this; None: they are not."""
    channels_per_head: Annotated[int, Field(ge=1, le=16384)] = 64
    resample_filter: Taps = (1, 1)
    logvar_channels: Annotated[int, Field(ge=1, le=16384)] = 128
    """Fourier features of u(sigma), the logarithm of the loss's scale, which is trained along."""

    @property
    def noise_channels(self) -> int:
        """Fourier features of the noise level."""
        return self.model_channels * (self.channel_mult_noise or self.channel_mult[0])

    @property
    def embedding(self) -> int:
        """Channels of what every block is told of noise level and class."""
        return self.model_channels * (self.channel_mult_emb or max(self.channel_mult))

    @property
    def augment_labels(self) -> bool:
        """EDM2 is told of no augmentation."""
        return False

    def preconditioning(self, sigma_data: float) -> EDM2Preconditioning:
        return EDM2Preconditioning(sigma_data=sigma_data)

    @property
    def layout(self) -> UNetLayout:
        rules = LayoutRules(
            stem_channels=self.widths[0],
            num_blocks=self.num_blocks,
            attn_resolutions=self.attn_resolutions,
            heads=lambda channels: channels // self.channels_per_head,
            every_decoder_block_attends=True,
        )
        return plan_unet(self.image_size, self.widths, rules)

    @property
    def parameters(self) -> int:
        layout, emb = self.layout, self.embedding
        total = emb * (self.noise_channels + self.num_classes)
        total += 9 * (self.channels + 1) * layout.stem_channels
        for index, block in enumerate(layout.blocks):
            inputs, outputs = block.in_channels, block.out_channels
            in_encoder = index < len(layout.encoder)
            total += 9 * (outputs if in_encoder else inputs) * outputs + 9 * outputs**2
            total += emb * outputs + 1
            total += inputs * outputs if inputs != outputs else 0
            total += 4 * outputs**2 if block.heads else 0
        return total + 9 * self.widths[0] * self.channels + 1 + self.logvar_channels

    @model_validator(mode="after")
    def _taps_fit(self) -> EDM2Config:
        _check_taps(self.resample_filter)
        return self


EDMNet = SongUNetConfig | ADMConfig | EDM2Config
EDMNetConfig = Annotated[EDMNet, Field(discriminator="kind")]


def edm_net_config(fields: dict[str, Any]) -> EDMNet:
    """The configuration whose `kind` the fields say.

    Raises:
        pydantic.ValidationError: they describe none.
    """
    adapter: TypeAdapter[EDMNet] = TypeAdapter(EDMNetConfig)
    return adapter.validate_python(fields)
