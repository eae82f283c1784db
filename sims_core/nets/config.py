"""Configuration of networks and of the models made of them."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BeforeValidator, Field, SerializeAsAny, model_validator

from sims_core.common.frozen import Frozen
from sims_core.common.variants import Variants
from sims_core.diffusion.config import NoiseSchedule


class Net(Frozen):
    """A network. Each architecture is a subclass, told apart by `kind`."""

    BUILT_BY: ClassVar[str]
    """`module:class` of the network, which is made from this configuration alone."""
    TRAINED_BY: ClassVar[str]
    """`module:function` that computes stage `train` for such a network."""
    TINY: ClassVar[bool] = False
    """Whether its matrices are so small that a second thread costs more than it brings."""

    kind: str


NETS: Variants[Net] = Variants("network", "kind", Net)
"""Every architecture: a class is one by `@NETS.add(<kind>)`."""
NetConfig = Annotated[SerializeAsAny[Net], BeforeValidator(NETS.read)]


class PointNet(Net):
    """A model of points."""

    TRAINED_BY: ClassVar[str] = "sims_core.training.points:train_point_model"
    TINY: ClassVar[bool] = True

    def for_data(self, dim: int, replicates: int) -> Self:
        """The network for so many replicates of points.

        Raises:
            ValueError: it is for points of another dimension.
        """
        return self

    @property
    def covariance_factor(self) -> float:
        """What the covariance of what is sampled is multiplied by."""
        return 1.0


class ImageNet(Net):
    """A model of images or latents of shape [N, channels, image_size, image_size]."""

    TRAINED_BY: ClassVar[str] = "sims_core.training.compute:train_images"

    image_size: Annotated[int, Field(ge=4)]
    channels: Annotated[int, Field(ge=1)]
    num_classes: Annotated[int, Field(ge=0)] = 0
    """Classes that the network is conditioned on; 0 is unconditional."""

    @property
    def drops_out(self) -> bool:
        """Whether activations are dropped in training."""
        return False

    @property
    def is_told_of_augmentation(self) -> bool:
        """Whether it is told, in training, how an image was augmented."""
        return False


@NETS.add("mlp")
class MLPConfig(PointNet):
    """Multi-layer perceptrons, one a replicate, for points of shape [replicates, N, dim]."""

    BUILT_BY: ClassVar[str] = "sims_core.nets.mlp:MLP"

    kind: Literal["mlp"] = "mlp"
    replicates: Annotated[int, Field(ge=1)] = 1
    """In an experiment the data's `replicates` count, whatever stands here."""
    dim: Annotated[int, Field(ge=1)] = 2
    hidden_features: Annotated[int, Field(ge=1)] = 32
    hidden_layers: Annotated[int, Field(ge=1)] = 3

    def for_data(self, dim: int, replicates: int) -> Self:
        if self.dim != dim:
            raise ValueError(f"model.net.dim is {self.dim}, the data's dimension is {dim}")
        return self.model_copy(update={"replicates": replicates})


@NETS.add("unet")
class UNetConfig(ImageNet):
    """diffusers' `UNet2DModel` for images of shape [N, channels, image_size, image_size]."""

    BUILT_BY: ClassVar[str] = "sims_core.nets.unet:UNet"

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
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Probability with which an activation of a residual block is dropped in training."""
    augment_labels: bool = False
    """Whether the network is told, in training, how an image was augmented."""

    @property
    def drops_out(self) -> bool:
        return self.dropout > 0

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


@NETS.add("diffusers")
class DiffusersUNetConfig(ImageNet):
    """An imported `UNet2DModel`, in diffusers' own words."""

    BUILT_BY: ClassVar[str] = "sims_core.nets.unet:UNet"

    kind: Literal["diffusers"] = "diffusers"
    config: dict[str, Any]
    """config.json of the folder that it came from, without its private entries."""

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


SHARED_BY_NETS = ("image_size", "channels", "num_classes", "augment_labels")
"""What an auxiliary of another architecture has from the base's."""


class ModelConfig(Frozen):
    """A raw network and the preconditioning round it."""

    net: NetConfig = UNetConfig()
    sigma_data: Annotated[float, Field(gt=0)] = 0.5
    schedule: NoiseSchedule | None = None
    """DDPM's noise that an imported network was trained with; None is EDM's preconditioning."""


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
