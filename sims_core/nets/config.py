"""Configuration of networks and of the models made of them."""

from __future__ import annotations

import math
from enum import StrEnum
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BeforeValidator, Field, SerializeAsAny, model_validator

from sims_core.common.frozen import Frozen, Grown
from sims_core.diffusion.config import NoiseSchedule, SamplerConfig
from sims_core.nets.base import NETS, ImageNet, Net, NetConfig, PointNet
from sims_core.nets.edm_config import ADMConfig, EDM2Config, SongUNetConfig, Width
from sims_core.nets.preconditioning_config import (
    EDM2Preconditioning,
    LossConfig,
    Preconditioning,
    PreconditioningConfig,
)

__all__ = [
    "AUGMENT_LABELS",
    "NETS",
    "ADMConfig",
    "BaseConfig",
    "DiffusersUNetConfig",
    "EDM2Config",
    "ExactGaussianConfig",
    "ImageNet",
    "ImportedModel",
    "MLPConfig",
    "MergeConfig",
    "ModelConfig",
    "Net",
    "NetConfig",
    "NetOrUNet",
    "PointNet",
    "SongUNetConfig",
    "UNetConfig",
]

AUGMENT_LABELS = 9
"""x and y mirrored; scale; cos - 1 and sin of the turn; stretch (2); shift (2)."""


@NETS.add("mlp")
class MLPConfig(PointNet):
    """Multi-layer perceptrons, one a replicate, for points of shape [replicates, N, dim]."""

    BUILT_BY: ClassVar[str] = "sims_core.nets.mlp:MLP"

    kind: Literal["mlp"] = "mlp"
    replicates: Annotated[int, Field(ge=1, le=10**6)] = 1
    """In an experiment the data's `replicates` count, whatever stands here."""
    dim: Annotated[int, Field(ge=1, le=10**5)] = 2
    hidden_features: Annotated[int, Field(ge=1, le=10**5)] = 32
    hidden_layers: Annotated[int, Field(ge=1, le=100)] = 3

    def for_data(self, dim: int, replicates: int) -> Self:
        if self.dim != dim:
            raise ValueError(f"model.net.dim is {self.dim}, the data's dimension is {dim}")
        return self.model_copy(update={"replicates": replicates})


@NETS.add("unet")
class UNetConfig(Grown, ImageNet):
    """diffusers' `UNet2DModel` for images of shape [N, channels, image_size, image_size]."""

    YOUNGER: ClassVar[tuple[str, ...]] = ("label_dropout",)
    BUILT_BY: ClassVar[str] = "sims_core.nets.unet:UNet"

    kind: Literal["unet"] = "unet"
    image_size: Annotated[int, Field(ge=4, le=4096)] = 8
    channels: Annotated[int, Field(ge=1, le=1024)] = 1
    block_out_channels: Annotated[tuple[Width, ...], Field(min_length=1, max_length=16)] = (32, 64)
    layers_per_block: Annotated[int, Field(ge=1, le=100)] = 1
    attention_levels: tuple[int, ...] = ()
    """Which resolution levels have self-attention, 0 the finest; the middle has it too, then."""
    attention_head_dim: Annotated[int, Field(ge=1)] | None = 8
    """Channels of one attention head; None is one head."""
    norm_num_groups: Annotated[int, Field(ge=1)] = 8
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Probability with which an activation of a residual block is dropped in training."""
    augment_labels: bool = False
    """Whether the network is told, in training, how an image was augmented."""
    label_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Probability with which an image's class is hidden in training: then the network has an
    embedding of its own for "no class", and can be asked for any image as well as for a class."""

    @property
    def drops_out(self) -> bool:
        """The classes that are hidden in training are drawn as dropout is."""
        return self.dropout > 0 or self.label_dropout > 0

    @property
    def knows_no_class(self) -> bool:
        return self.label_dropout > 0

    @property
    def is_told_of_augmentation(self) -> bool:
        return self.augment_labels

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
    def _has_a_class_to_hide(self) -> UNetConfig:
        if self.label_dropout and not self.num_classes:
            raise ValueError(
                f"label_dropout {self.label_dropout:g} hides classes, and num_classes is 0: set "
                "num_classes, or label_dropout=0"
            )
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


def _net_or_unet(value: Any) -> Net:
    """A network; one whose kind is not said is a `unet`."""
    return NETS.read({"kind": "unet", **value} if isinstance(value, dict) else value)


NetOrUNet = Annotated[SerializeAsAny[Net], BeforeValidator(_net_or_unet)]


@NETS.add("diffusers")
class DiffusersUNetConfig(ImageNet):
    """An imported `UNet2DModel`, in diffusers' own words."""

    BUILT_BY: ClassVar[str] = "sims_core.nets.unet:UNet"

    kind: Literal["diffusers"] = "diffusers"
    config: dict[str, Any]
    """config.json of the folder that it came from, without its private entries."""

    @property
    def learns_variance(self) -> bool:
        """Whether it predicts a variance, in as many channels again, which is not used."""
        return bool(self.config.get("out_channels", self.channels) == 2 * self.channels)

    @property
    def drops_out(self) -> bool:
        return float(self.config.get("dropout") or 0) > 0


@NETS.add("exact_gaussian")
class ExactGaussianConfig(PointNet):
    """No network: A(D) is the maximum-likelihood Gaussian of D, its denoiser in closed form."""

    TRAINED_BY: ClassVar[str] = "sims_core.training.points:fit_exact_gaussian"

    kind: Literal["exact_gaussian"] = "exact_gaussian"
    budget: Annotated[float, Field(gt=0, le=1)] = 1.0
    """How far the auxiliary goes from the base (0) to the fit of S (1), in mean and covariance."""
    sampling_bias: Annotated[float, Field(ge=0, le=1)] = 1.0
    """lambda of the MAD paper: what is sampled has lambda times the covariance."""

    @property
    def covariance_factor(self) -> float:
        return self.sampling_bias


SHARED_BY_NETS = (
    *("image_size", "channels", "num_classes", "augment_labels", "augment_dim", "label_dropout"),
    "dim",
)
"""What an auxiliary of another architecture has from the base's, where both have it."""


class ModelConfig(Grown):
    """A raw network and the preconditioning round it."""

    YOUNGER: ClassVar[tuple[str, ...]] = ("preconditioning", "loss")

    net: NetConfig = UNetConfig()
    sigma_data: Annotated[float, Field(gt=0)] = 0.5
    schedule: NoiseSchedule | None = None
    """DDPM's noise that an imported network was trained with; None is EDM's preconditioning."""
    preconditioning: PreconditioningConfig | None = None
    """That of EDM's and EDM2's networks; None is what `schedule` says, else the network's own, else
    EDM's."""
    loss: LossConfig | None = None
    """What it is trained and fine-tuned with; None is the preconditioning's own, at the noise
    levels of `training.P_mean` and `training.P_std`."""

    @property
    def conditioned(self) -> Preconditioning | None:
        """The preconditioning round the network, where it is one of EDM's table; None: that of
        `schedule`, or EDM's of `sigma_data`."""
        return self.preconditioning or self.net.preconditioning(self.sigma_data)

    @property
    def known_levels(self) -> tuple[float, float]:
        """Least and largest noise level that the network was trained at."""
        if self.schedule is not None:  # below its least level it is asked for that one
            return 0.0, self.schedule.sigma_max
        return self.conditioned.sigma_range if self.conditioned else (0.0, math.inf)

    def sampler_for(self, sampler: SamplerConfig) -> SamplerConfig:
        """The sampler within the noise levels that the network was trained at.

        Raises:
            ValueError: none is left.
        """
        low, high = self.known_levels
        low, high = max(sampler.sigma_min, low), min(sampler.sigma_max, high)
        if (low, high) == (sampler.sigma_min, sampler.sigma_max):
            return sampler
        if low >= high:
            raise ValueError(
                f"the sampler's noise levels {sampler.sigma_min:g} to {sampler.sigma_max:g} are "
                "all beyond those that the network was trained at"
            )
        return sampler.model_copy(update={"sigma_min": low, "sigma_max": high})

    @property
    def without_loss(self) -> ModelConfig:
        """What is sampled: the same network and preconditioning, however it is trained."""
        return self.model_copy(update={"loss": None})

    @model_validator(mode="after")
    def _preconditioning_fits(self) -> ModelConfig:
        config, net = self.conditioned, self.net
        if config is not None and self.schedule is not None:
            raise ValueError("a model has a schedule or a preconditioning, not both")
        if (config is not None or self.loss is not None) and not isinstance(net, ImageNet):
            raise ValueError(f"preconditioning and loss are of image networks, not of {net.kind}")
        if self.loss is not None and self.schedule is not None:
            raise ValueError(
                "a model with a schedule is fine-tuned with EDM's loss: leave out loss"
            )
        if isinstance(config, EDM2Preconditioning) != isinstance(net, EDM2Config):
            raise ValueError(
                f"a {net.kind} network cannot be preconditioned as "
                f"{config.kind if config else 'edm'}: edm2 belongs to edm2"
            )
        if (self.loss is not None and self.loss.kind == "edm2") and net.kind != "edm2":
            raise ValueError("EDM2's loss needs EDM2's network, which carries u(sigma)")
        if (own := getattr(config, "sigma_data", self.sigma_data)) != self.sigma_data:
            raise ValueError(
                f"preconditioning.sigma_data is {own:g}, sigma_data {self.sigma_data:g}: they must "
                "be equal"
            )
        return self

    @model_validator(mode="after")
    def _outputs_fit(self) -> ModelConfig:
        if not isinstance(self.net, SongUNetConfig | ADMConfig):
            return self
        doubled = self.preconditioning is not None and self.preconditioning.kind == "iddpm"
        wanted = self.net.channels * (2 if doubled else 1)
        if self.net.outputs != wanted:
            raise ValueError(
                f"net.out_channels is {self.net.outputs}, this preconditioning wants {wanted}"
            )
        return self


class ImportedModel(Frozen):
    """What a name that `sims model import` gave stands for."""

    model: ModelConfig
    weights_sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class MergeConfig(Frozen):
    """How the weights of a base and an auxiliary become those of one model."""

    w: float
    """base + w (base - auxiliary)."""


class Later(StrEnum):
    """How the bases of later generations are made where the first one's was imported."""

    recipe = "recipe"
    """Trained from scratch by the experiment's own recipe."""
    fine_tune = "fine_tune"
    """The imported model, fine-tuned as `sims` fine-tunes an auxiliary."""


class BaseConfig(Frozen):
    """Where the base comes from."""

    imported: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]*$", max_length=100)] | None = None
    """Name that `sims model import` gave to a model; None: the base is trained."""
    model: ImportedModel | None = None
    """What the name stands for in the store at hand; filled in when a run is planned."""
    later: Later | None = None
    """How the imported model is followed in later generations; None: as published for the loop at
    hand, which for every loop that there is means from scratch (MAD paper, arXiv 2307.01850)."""
    later_mimg: Annotated[float, Field(gt=0, le=1e5)] | None = None
    """How long each later generation is fine-tuned, in million images; None: as an auxiliary."""

    @model_validator(mode="after")
    def _says_only_what_is_followed(self) -> BaseConfig:
        if self.imported is None and (self.later or self.later_mimg):
            name = "later" if self.later else "later_mimg"
            raise ValueError(
                f"base.{name} says how an imported base is followed, and base.imported is not set: "
                "leave it out, every generation is trained by the experiment's recipe"
            )
        if self.later_mimg and self.later != Later.fine_tune:
            raise ValueError(
                "base.later_mimg is the length of a fine-tune: set base.later=fine_tune, or "
                "training.kimg for the recipe"
            )
        return self
