"""Configuration of real data, of mixes and of what was imported."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field, SerializeAsAny, field_validator, model_validator

from sims_core.common.errors import BadInput
from sims_core.common.frozen import Frozen, Grown
from sims_core.common.seeding import MOST_SEED
from sims_core.common.variants import Variants
from sims_core.data.known_sets import KNOWN_SETS
from sims_core.store.artifacts import Name


class Contents(Frozen):
    """What an image data set holds."""

    count: Annotated[int, Field(ge=1)]
    channels: Annotated[int, Field(ge=1)]
    height: Annotated[int, Field(ge=1)]
    width: Annotated[int, Field(ge=1)]
    num_classes: Annotated[int, Field(ge=0)]
    """Class labels are 0 .. num_classes - 1; 0: the images have none."""


class Data(Frozen):
    """Real data that a loop starts from. Each source is a subclass, told apart by `source`."""

    KIND: ClassVar[str]
    """`module:object` of the `sims_core.studies.planner.Kind` that plans with such data."""

    source: str

    @property
    def title(self) -> str:
        """What a message calls the data."""
        return self.source


DATA: Variants[Data] = Variants("data set", "source", Data, default="digits")
"""Every source of data: a class is one by `@DATA.add(<source>)`."""
DataConfig = Annotated[SerializeAsAny[Data], BeforeValidator(DATA.read)]


class ImageData(Grown, Data):
    """A fixed set of images; networks see them, or their latents."""

    YOUNGER: ClassVar[tuple[str, ...]] = ("initial_images", "fresh_images")
    KIND: ClassVar[str] = "sims_core.studies.kinds.images:IMAGES"
    STAGE: ClassVar[str]
    """`module:object` of the stage that stores the images."""

    initial_images: Annotated[int, Field(ge=1)] | None = None
    """n_ini of the fresh-data loop: how many of the images its first model sees."""
    fresh_images: Annotated[int, Field(ge=1)] | None = None
    """n_r, how many of those that no generation has seen yet each later one of the fresh-data loop
    gets; None is as many as `initial_images`."""

    @property
    def contents(self) -> Contents | None:
        """What the images are; None: that is not looked up yet."""
        raise NotImplementedError

    @property
    def encoding(self) -> Encoding | None:
        """What made the latents that networks see; None: they see the images."""
        return None

    @property
    def modelled(self) -> Contents | None:
        """What networks see: the images or their latents; None: that is not looked up yet."""
        return self.contents

    @property
    def stage_config(self) -> Frozen:
        """The configuration of the stage that stores the images.

        Raises:
            BadInput: they were imported under a name that nobody has looked up in a store.
        """
        return self.model_copy(update=dict.fromkeys(self.YOUNGER))


@DATA.add("digits")
class DigitsData(ImageData):
    """The 1,797 real 8x8 grey handwritten digits in scikit-learn's wheel (UCI, 17 grey levels)."""

    STAGE: ClassVar[str] = "sims_core.data.stages:PREPARE"

    source: Literal["digits"] = "digits"
    num_images: Annotated[int, Field(ge=1, le=1797)] = 1797

    @property
    def contents(self) -> Contents:
        return Contents(count=self.num_images, channels=1, height=8, width=8, num_classes=10)


@DATA.add(*KNOWN_SETS)
class KnownImages(ImageData):
    """A public data set. Its decoded content is checked, so it does not matter where it was found:
    in the data folder (SIMS_DATA), or fetched from its publisher."""

    STAGE: ClassVar[str] = "sims_core.data.stages:PREPARE_KNOWN"

    source: str
    split: Literal["train", "test"] = "train"
    num_images: Annotated[int, Field(ge=1)] | None = None
    """The first so many; None is all."""

    @property
    def available(self) -> int:
        """Images of the whole split."""
        return KNOWN_SETS[self.source].counts[self.split]

    @property
    def contents(self) -> Contents:
        known = KNOWN_SETS[self.source]
        return Contents(
            count=self.num_images or self.available,
            channels=known.channels,
            height=known.size,
            width=known.size,
            num_classes=known.num_classes,
        )

    @field_validator("source")
    @classmethod
    def _is_known(cls, source: str) -> str:
        if source not in KNOWN_SETS:
            raise ValueError(f"must be one of {', '.join(KNOWN_SETS)}")
        return source

    @model_validator(mode="after")
    def _enough(self) -> KnownImages:
        if self.contents.count > self.available:
            raise ValueError(
                f"num_images must be at most {self.available}, the size of {self.source}'s "
                f"{self.split} split, got {self.num_images}"
            )
        return self


RAW_LATENTS = "raw latents"
"""The layout of an encoded set: means and deviations of latents in the place of images."""


class ImportConfig(Frozen):
    """What makes an imported set what it is: its source's content and what was done with it."""

    content: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    """Digest of the source's files."""
    layout: str
    """How the source is read; see `sims_core.data.sources`."""
    split: str | None = None
    labels: str | None = None
    """None: those of the source; "none": left out; else the digest of the file that has them."""
    size: Annotated[int, Field(ge=4, le=4096)] | None = None
    """Images are cropped to their central square and resized to so many pixels; None: as is."""
    channels: Literal[1, 3] | None = None
    """Images are converted to grey or RGB; None: all must be what the first one is."""
    skip_broken: bool = False
    srgb: bool = Field(default=False, exclude_if=lambda value: not value)
    """Colours of other profiles were converted to sRGB; where there were none it is not named."""


class AutoencoderConfig(Frozen):
    """An imported diffusers `AutoencoderKL`, in diffusers' own words, and which weights it has."""

    config: dict[str, Any]
    """config.json of the folder that it came from, without its private entries."""
    in_channels: Annotated[int, Field(ge=1)]
    latent_channels: Annotated[int, Field(ge=1)]
    downsampling: Annotated[int, Field(ge=1)]
    """An image of S x S pixels has latents of S / downsampling squared."""
    weights_sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class EncodeConfig(Frozen):
    """How images become what a network of latents sees."""

    scaling: Literal["standardized", "autoencoder", "fixed"] = "standardized"
    """standardized: every channel has mean 0 and deviation 0.5 over the whole set; autoencoder: as
    diffusers' pipelines scale, by its config's scaling_factor, shift_factor, latents_mean and
    latents_std; fixed: by `shift` and `scale`, as EDM2's networks were trained."""
    shift: tuple[float, ...] = Field(default=(), exclude_if=lambda value: not value)
    """What is subtracted from each channel, where scaling is fixed."""
    scale: tuple[float, ...] = Field(default=(), exclude_if=lambda value: not value)
    """What each channel is multiplied by then."""
    seed: Annotated[int, Field(ge=0, le=MOST_SEED)] = 0
    """Image i's latents are one draw from their posterior, from a generator of (seed, i)."""

    @model_validator(mode="after")
    def _fixed_is_said(self) -> EncodeConfig:
        if bool(self.scale) != (self.scaling == "fixed") or len(self.shift) != len(self.scale):
            raise ValueError("scaling fixed wants shift and scale of each channel, others neither")
        if not all(self.scale):
            raise ValueError(f"a scale of 0 leaves nothing of a channel, got {self.scale}")
        return self


class Encoding(Frozen):
    """What turned a set of images into latents."""

    autoencoder: AutoencoderConfig
    encode: EncodeConfig


class ImportedSet(Frozen):
    """What a name that `sims data import` or `sims data encode` gave stands for."""

    config: ImportConfig
    contents: Contents
    """What the images are."""
    encoding: Encoding | None = None
    """Networks see the images' latents; None: the images."""

    @property
    def modelled(self) -> Contents:
        """What networks see."""
        if self.encoding is None:
            return self.contents
        autoencoder = self.encoding.autoencoder
        shape = {
            "channels": autoencoder.latent_channels,
            "height": self.contents.height // autoencoder.downsampling,
            "width": self.contents.width // autoencoder.downsampling,
        }
        return self.contents.model_copy(update=shape)


@DATA.add("imported")
class ImportedImages(ImageData):
    """Images that `sims data import` brought, or their latents that `sims data encode` made, by the
    name that it gave them."""

    STAGE: ClassVar[str] = "sims_core.data.stages:IMPORT"

    source: Literal["imported"] = "imported"
    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]*$", max_length=100)]
    imported: ImportedSet | None = None
    """What the name stands for in the store at hand; filled in when a run is planned."""

    @property
    def title(self) -> str:
        return self.name

    @property
    def contents(self) -> Contents | None:
        return self.imported.contents if self.imported else None

    @property
    def encoding(self) -> Encoding | None:
        return self.imported.encoding if self.imported else None

    @property
    def modelled(self) -> Contents | None:
        return self.imported.modelled if self.imported else None

    @property
    def stage_config(self) -> ImportConfig:
        if self.imported is None:
            raise BadInput(
                f"data set {self.name!r} was not looked up: see sims_core.studies.resolve"
            )
        return self.imported.config


@DATA.add("gaussian")
class GaussianData(Data):
    """`replicates` independent data sets of points of one Gaussian, for which all is known."""

    KIND: ClassVar[str] = "sims_core.studies.kinds.points:POINTS"

    source: Literal["gaussian"] = "gaussian"
    mean: Annotated[tuple[float, ...], Field(min_length=1)] = (0.0, 0.0)
    covariance: tuple[tuple[float, ...], ...] | None = None
    """Symmetric and positive semi-definite; None is the identity."""
    num_points: Annotated[int, Field(ge=2)] = 500
    """|D_r| of each replicate (in the fresh-data loop: n_ini, what the first model sees)."""
    fresh_points: Annotated[int, Field(ge=1)] | None = None
    """n_r, the new real points of each later generation of the fresh-data loop; None is as many
    as `num_points`."""
    replicates: Annotated[int, Field(ge=1)] = 16

    @property
    def dim(self) -> int:
        return len(self.mean)

    @model_validator(mode="after")
    def _square(self) -> GaussianData:
        if (
            self.covariance is not None
            and [len(row) for row in self.covariance] != [self.dim] * self.dim
        ):
            raise ValueError(f"covariance must be {self.dim} x {self.dim}, as mean is long")
        return self


class MixPart(Frozen):
    """`count` first images of the input artifact named `input`; None is all of them."""

    input: Name
    synthetic: bool
    count: int | None = Field(default=None, ge=1)


class MixConfig(Frozen):
    parts: tuple[MixPart, ...] = Field(min_length=1)
    real_fraction: float | None = Field(
        default=None, gt=0, lt=1, exclude_if=lambda value: value is None
    )
    """How often a training draws from the parts that are not synthetic; None: as often as each
    image of all, by counts."""

    @model_validator(mode="after")
    def _both_to_weigh(self) -> MixConfig:
        if self.real_fraction is not None and len({part.synthetic for part in self.parts}) < 2:
            raise ValueError("real_fraction weighs real parts against synthetic ones: want both")
        return self


class PickConfig(Frozen):
    """`count` images of a set, from place `start` of its random order on."""

    seed: int
    """Of the order."""
    start: int = Field(ge=0)
    count: int = Field(ge=1)


class PointSourceConfig(Frozen):
    """`count` points of one Gaussian for each of `replicates`."""

    mean: tuple[float, ...]
    covariance: tuple[tuple[float, ...], ...] | None
    replicates: int
    count: int
    seed: int


class Mixture(Frozen):
    """A mixture of Gaussians N(mean_k, std^2 I)."""

    means: Annotated[tuple[tuple[float, ...], ...], Field(min_length=2)]
    std: Annotated[float, Field(gt=0)]
    weights: tuple[Annotated[float, Field(gt=0, lt=1)], ...]

    @model_validator(mode="after")
    def _fits(self) -> Mixture:
        if len(self.weights) != len(self.means) or abs(sum(self.weights) - 1) > 1e-6:
            raise ValueError(
                f"weights must be {len(self.means)}, as there are means, and sum to 1, got "
                f"{list(self.weights)}"
            )
        if len({len(mean) for mean in self.means}) != 1:
            raise ValueError("means must all be equally long")
        return self


class MixtureSourceConfig(Frozen):
    """`count` points of a mixture for each of `replicates`."""

    mixture: Mixture
    replicates: Annotated[int, Field(ge=1)]
    count: Annotated[int, Field(ge=1)]
    seed: int


@DATA.add("gaussian_mixture")
class MixtureData(Data):
    """`replicates` independent data sets of points of one mixture; its components are classes."""

    KIND: ClassVar[str] = "sims_core.studies.kinds.mixtures:MIXTURES"

    source: Literal["gaussian_mixture"] = "gaussian_mixture"
    mixture: Mixture = Mixture(means=((-2.0, 0.0), (2.0, 0.0)), std=0.5, weights=(0.6, 0.4))
    num_points: Annotated[int, Field(ge=2)] = 2000
    """|D_r| of each replicate."""
    replicates: Annotated[int, Field(ge=1)] = 8

    @property
    def dim(self) -> int:
        return len(self.mixture.means[0])
