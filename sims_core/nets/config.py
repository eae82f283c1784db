"""Configuration of networks and of the models made of them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import (
    Field,
    model_validator,
)

from sims_core.common.frozen import Frozen
from sims_core.diffusion.config import NoiseSchedule


class MLPConfig(Frozen):
    """Multi-layer perceptrons, one a replicate, for points of shape [replicates, N, dim]."""

    kind: Literal["mlp"] = "mlp"
    replicates: Annotated[int, Field(ge=1)] = 1
    """In an experiment the data's `replicates` count, whatever stands here."""
    dim: Annotated[int, Field(ge=1)] = 2
    hidden_features: Annotated[int, Field(ge=1)] = 32
    hidden_layers: Annotated[int, Field(ge=1)] = 3


class UNetConfig(Frozen):
    """diffusers' `UNet2DModel` for images of shape [N, channels, image_size, image_size]."""

    kind: Literal["unet"] = "unet"
    image_size: Annotated[int, Field(ge=4)] = 8
    channels: Annotated[int, Field(ge=1)] = 1
    block_out_channels: Annotated[tuple[Annotated[int, Field(ge=2)], ...], Field(min_length=1)] = (
        32,
        64,
    )
    layers_per_block: Annotated[int, Field(ge=1)] = 1
    attention_levels: tuple[int, ...] = ()
    """Which resolution levels have self-attention, 0 the finest; the middle has it too, then."""
    attention_head_dim: Annotated[int, Field(ge=1)] | None = 8
    """Channels of one attention head; None is one head."""
    norm_num_groups: Annotated[int, Field(ge=1)] = 8
    num_classes: Annotated[int, Field(ge=0)] = 0
    """Classes that the network is conditioned on; 0 is unconditional."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Probability with which an activation of a residual block is dropped in training."""
    augment_labels: bool = False
    """Whether the network is told, in training, how an image was augmented."""

    @model_validator(mode="after")
    def _shapes_fit(self) -> UNetConfig:
        levels = len(self.block_out_channels)
        if self.image_size % 2 ** (levels - 1):
            raise ValueError(
                f"image_size {self.image_size} cannot be halved {levels - 1} times for "
                f"{levels} block_out_channels"
            )
        if any(width % self.norm_num_groups for width in self.block_out_channels):
            raise ValueError(
                f"every one of block_out_channels {self.block_out_channels} must be a multiple of "
                f"norm_num_groups {self.norm_num_groups}"
            )
        if any(not 0 <= level < levels for level in self.attention_levels):
            raise ValueError(f"attention_levels {self.attention_levels} must be in 0..{levels - 1}")
        return self

    @model_validator(mode="after")
    def _heads_fit(self) -> UNetConfig:
        head = self.attention_head_dim
        if not self.attention_levels or head is None:
            return self
        attending = {self.block_out_channels[level] for level in (*self.attention_levels, -1)}
        if bad := sorted(width for width in attending if width % head):
            raise ValueError(
                f"the {bad[0]} channels of a level with attention (or of the middle) must be a "
                f"multiple of attention_head_dim {head}"
            )
        return self


class DiffusersUNetConfig(Frozen):
    """An imported `UNet2DModel`, in diffusers' own words."""

    kind: Literal["diffusers"] = "diffusers"
    image_size: Annotated[int, Field(ge=4)]
    channels: Annotated[int, Field(ge=1)]
    num_classes: Annotated[int, Field(ge=0)] = 0
    config: dict[str, Any]
    """config.json of the folder that it came from, without its private entries."""

    @property
    def dropout(self) -> float:
        return float(self.config.get("dropout") or 0)

    @property
    def augment_labels(self) -> bool:
        return False


class ExactGaussianConfig(Frozen):
    """No network: A(D) is the maximum-likelihood Gaussian of D, its denoiser in closed form."""

    kind: Literal["exact_gaussian"] = "exact_gaussian"
    budget: Annotated[float, Field(gt=0, le=1)] = 1.0
    """How far the auxiliary goes from the base (0) to the fit of S (1), in mean and covariance."""
    sampling_bias: Annotated[float, Field(ge=0, le=1)] = 1.0
    """lambda of the MAD paper: what is sampled has lambda times the covariance."""


NetConfig = Annotated[
    MLPConfig | UNetConfig | DiffusersUNetConfig | ExactGaussianConfig,
    Field(discriminator="kind"),
]


IMAGE_NETS = (UNetConfig, DiffusersUNetConfig)


SHARED_BY_NETS = ("image_size", "channels", "num_classes", "augment_labels")
"""What an auxiliary of another architecture has from the base's."""


ImageNet = UNetConfig | DiffusersUNetConfig


class ModelConfig(Frozen):
    """A raw network and the preconditioning round it."""

    net: NetConfig = UNetConfig()
    sigma_data: Annotated[float, Field(gt=0)] = 0.5
    schedule: NoiseSchedule | None = None
    """Of an imported network that was trained with DDPM's noise; None is EDM's preconditioning."""


class ImportedModel(Frozen):
    """What a name that `sims model import` gave stands for."""

    model: ModelConfig
    weights_sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class BaseConfig(Frozen):
    """Where the base of the first generation comes from."""

    imported: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]*$", max_length=100)] | None = None
    """Name that `sims model import` gave to a model; None: the base is trained."""
    model: ImportedModel | None = None
    """What the name stands for in the store at hand; filled in when a run is planned."""
