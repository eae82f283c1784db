"""Frozen configuration of every stage. A mistyped key is an error that names the valid ones.

Units: training lengths in kimg (thousand images seen) or mimg (million), never epochs; sigmas on
images scaled to [-1, 1].
"""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    ValidationError,
    model_validator,
)

MOST_IMAGES = 2**30
"""Of one set. Image seeds are 32 bits."""
MOST_KIMG = 1e8
"""Of one training; EDM2's longest is 2e6."""


class Frozen(BaseModel):
    """Immutable, and unknown keys are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Contents(Frozen):
    """What an image data set holds."""

    count: Annotated[int, Field(ge=1)]
    channels: Annotated[int, Field(ge=1)]
    height: Annotated[int, Field(ge=1)]
    width: Annotated[int, Field(ge=1)]
    num_classes: Annotated[int, Field(ge=0)]
    """Class labels are 0 .. num_classes - 1; 0: the images have none."""


class DigitsData(Frozen):
    """The 1,797 real 8x8 grey handwritten digits in scikit-learn's wheel (UCI, 17 grey levels)."""

    source: Literal["digits"] = "digits"
    num_images: Annotated[int, Field(ge=1, le=1797)] = 1797

    @property
    def contents(self) -> Contents:
        return Contents(count=self.num_images, channels=1, height=8, width=8, num_classes=10)


KNOWN_SETS = {
    (source, split): Contents(
        count=count, channels=channels, height=size, width=size, num_classes=10
    )
    for source, split, count, channels, size in (
        ("cifar10", "train", 50_000, 3, 32),
        ("cifar10", "test", 10_000, 3, 32),
        ("mnist", "train", 60_000, 1, 28),
        ("mnist", "test", 10_000, 1, 28),
        ("fashion", "train", 60_000, 1, 28),
        ("fashion", "test", 10_000, 1, 28),
    )
}
"""Size and shape of each public data set that has checksums here, by (source, split)."""


class KnownImages(Frozen):
    """A public data set. Its decoded content is checked, so it does not matter where it was found:
    in the data folder (SIMS_DATA), or fetched from its publisher."""

    source: Literal["cifar10", "mnist", "fashion"]
    split: Literal["train", "test"] = "train"
    num_images: Annotated[int, Field(ge=1)] | None = None
    """The first so many; None is all."""

    @property
    def contents(self) -> Contents:
        whole = KNOWN_SETS[self.source, self.split]
        return whole.model_copy(update={"count": self.num_images or whole.count})

    @model_validator(mode="after")
    def _enough(self) -> KnownImages:
        available = KNOWN_SETS[self.source, self.split].count
        if self.contents.count > available:
            raise ValueError(
                f"num_images must be at most {available}, the size of {self.source}'s "
                f"{self.split} split, got {self.num_images}"
            )
        return self


class ImportConfig(Frozen):
    """What makes an imported set what it is: its source's content and what was done with it."""

    content: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    """Digest of the source's files."""
    layout: str
    """How the source is read; see `sims_core.image_sources`."""
    split: str | None = None
    labels: str | None = None
    """None: those of the source; "none": left out; else the digest of the file that has them."""
    size: Annotated[int, Field(ge=4, le=4096)] | None = None
    """Images are cropped to their central square and resized to so many pixels; None: as is."""
    channels: Literal[1, 3] | None = None
    """Images are converted to grey or RGB; None: all must be what the first one is."""
    skip_broken: bool = False


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

    scaling: Literal["standardized", "autoencoder"] = "standardized"
    """standardized: every channel has mean 0 and deviation 0.5 over the whole set, as EDM2 has
    latents; autoencoder: as diffusers' pipelines scale, by its config's scaling_factor,
    shift_factor, latents_mean and latents_std."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Image i's latents are one draw from their posterior, from a generator of (seed, i)."""


class Encoding(Frozen):
    """What turned a set of images into latents."""

    autoencoder: AutoencoderConfig
    encode: EncodeConfig


class ImportedSet(Frozen):
    """What a name that `sims data import` or `sims data encode` gave stands for."""

    config: ImportConfig
    contents: Contents
    """Of the images."""
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


class ImportedImages(Frozen):
    """Images that `sims data import` brought, or their latents that `sims data encode` made, by the
    name that it gave them."""

    source: Literal["imported"] = "imported"
    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]*$", max_length=100)]
    imported: ImportedSet | None = None
    """What the name stands for in the store at hand; filled in when a run is planned."""

    @property
    def contents(self) -> Contents | None:
        return self.imported.contents if self.imported else None


class GaussianData(Frozen):
    """`replicates` independent data sets of points of one Gaussian, for which all is known."""

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


ImageData = DigitsData | KnownImages | ImportedImages


def encoding_of(data: ImageData) -> Encoding | None:
    """What made the latents that networks of this data see; None: they see the images."""
    if isinstance(data, ImportedImages) and data.imported is not None:
        return data.imported.encoding
    return None


def modelled(data: ImageData) -> Contents | None:
    """What networks see of the data: images or their latents; None: that is not looked up yet."""
    if isinstance(data, ImportedImages) and data.imported is not None:
        return data.imported.modelled
    return data.contents


def _source(value: Any) -> Any:
    """What tells the data sets apart; digits where it is left out."""
    return (
        value.get("source", "digits") if isinstance(value, dict) else getattr(value, "source", None)
    )


DataConfig = Annotated[
    Annotated[DigitsData, Tag("digits")]
    | Annotated[GaussianData, Tag("gaussian")]
    | Annotated[KnownImages, Tag("cifar10")]
    | Annotated[KnownImages, Tag("mnist")]
    | Annotated[KnownImages, Tag("fashion")]
    | Annotated[ImportedImages, Tag("imported")],
    Discriminator(_source),
]


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


class NoiseSchedule(Frozen):
    """DDPM's discrete noise and what the network predicts, in diffusers' schedulers' words."""

    prediction_type: Literal["epsilon", "v_prediction", "sample"] = "epsilon"
    beta_schedule: Literal["linear", "scaled_linear", "squaredcos_cap_v2"] = "linear"
    beta_start: Annotated[float, Field(gt=0, lt=1)] = 1e-4
    beta_end: Annotated[float, Field(gt=0, lt=1)] = 0.02
    num_train_timesteps: Annotated[int, Field(ge=2)] = 1000
    rescale_betas_zero_snr: bool = False


class ModelConfig(Frozen):
    """A raw network and the preconditioning round it."""

    net: NetConfig = UNetConfig()
    sigma_data: Annotated[float, Field(gt=0)] = 0.5
    schedule: NoiseSchedule | None = None
    """Of an imported network that was trained with DDPM's noise; None is EDM's preconditioning."""


Precision = Literal["fp32", "bf16", "fp16"]


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


class TrainingConfig(Frozen):
    """EDM training (arXiv 2206.00364, Table 1), its length in images seen."""

    kimg: Annotated[float, Field(gt=0, le=MOST_KIMG)] = 25.0
    batch_size: Annotated[int, Field(ge=1)] = 64
    learning_rate: Annotated[float, Field(gt=0)] = 1e-3
    ramp_kimg: Annotated[float, Field(ge=0)] = 0.0
    """Linear ramp of the learning rate from zero; EDM's 10,000 kimg starves a short fine-tune."""
    decay: Literal["constant", "cosine"] = "cosine"
    P_mean: float = -1.2
    P_std: Annotated[float, Field(gt=0)] = 1.2
    ema_halflife_kimg: Annotated[float, Field(gt=0)] = 0.5
    """After a warm-up: diffusers' EMAModel caps the decay at (1 + n) / (10 + n) in step n."""
    ema_rampup_ratio: Annotated[float, Field(gt=0)] | None = None
    """Instead of that warm-up EDM's: the half-life is at most this times the images seen so far, so
    that the average never depends on how long the training goes on."""
    precision: Precision = "fp32"
    """Of the network's passes. bf16 and fp16 are mixed: weights, loss and EDM's scalings are always
    float32."""
    x_flip: bool = False
    """Every image is mirrored left to right with probability 1/2 each time that it is seen."""
    augment: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Probability of each kind of EDM's geometric augmentation (0.12 for CIFAR-10), which mirrors
    half of the images as well; 0 is none. The network is told; see sims_core.augmentation."""
    grid_kimg: Annotated[float, Field(ge=0)] = 0.0
    """Every so many kimg a grid of the averaged model's samples is drawn; 0 draws none."""

    @property
    def num_steps(self) -> int:
        """Optimiser steps of the whole training."""
        return self.steps_of(self.kimg)

    def steps_of(self, kimg: float) -> int:
        """`kimg` in optimiser steps, rounded up to whole batches, at least one."""
        return max(1, -(-round(kimg * 1000) // self.batch_size))


class SamplerConfig(Frozen):
    """EDM's deterministic sampler (Algorithm 1 with S_churn = 0)."""

    solver: Literal["heun", "euler"] = "heun"
    num_steps: Annotated[int, Field(ge=1)] = 18
    sigma_min: Annotated[float, Field(gt=0)] = 0.002
    sigma_max: Annotated[float, Field(gt=0)] = 80.0
    rho: Annotated[float, Field(gt=0)] = 7.0
    precision: Precision = "fp32"
    """Of the passes of image networks. bf16 and fp16 are mixed: weights, EDM's scalings and the
    sampler's sums are always float32."""

    @model_validator(mode="after")
    def _ordered(self) -> SamplerConfig:
        if self.sigma_min >= self.sigma_max:
            raise ValueError(f"sigma_min {self.sigma_min} must be below sigma_max {self.sigma_max}")
        return self

    @property
    def nfe(self) -> int:
        """Evaluations of one denoiser for one image (SIMS evaluates two)."""
        return 2 * self.num_steps - 1 if self.solver == "heun" else self.num_steps


class ClassifierConfig(Frozen):
    """A small convolutional classifier whose penultimate layer is the feature space."""

    channels: Annotated[tuple[int, ...], Field(min_length=1)] = (32, 64)
    num_features: Annotated[int, Field(ge=2)] = 64
    kimg: Annotated[float, Field(gt=0)] = 36.0
    batch_size: Annotated[int, Field(ge=2)] = 64
    learning_rate: Annotated[float, Field(gt=0)] = 2e-3


class EvaluationConfig(Frozen):
    """What is measured on each generation, and on how many images."""

    num_images: Annotated[int, Field(ge=2, le=MOST_IMAGES)] = 1797
    min_images: Annotated[int, Field(ge=2)] | None = None
    """Fewer are refused. None: one more than there are features, since the covariance of fewer has
    no full rank and FID is mostly its bias then (Inception 2,049, ResNets and classifier 65)."""
    allow_small_n: bool = False
    """Measure all the same."""
    features: Literal["classifier", "inception", "resnet20", "resnet56"] = "classifier"
    """Feature space: a classifier trained on the real data, torch-fidelity's inception-v3-compat
    (the FID of papers), or a CIFAR ResNet (cheap on a CPU)."""
    weights_sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{8,64}$")] | None = None
    """SHA-256 of the file with the weights of `features`; None: those found when a run is
    planned, which must be known ones."""
    inception_score: bool = False
    classifier: ClassifierConfig = ClassifierConfig()
    kid_subsets: Annotated[int, Field(ge=1)] = 100
    kid_subset_size: Annotated[int, Field(ge=2)] = 500
    prc_neighborhood: Annotated[int, Field(ge=1)] = 3
    num_preview: Annotated[int, Field(ge=1, le=64)] = 64
    """Images of the grid that is drawn from the same seeds in every generation and arm."""

    @property
    def fewest_images(self) -> int:
        """Below so many, real or generated, a run is refused unless `allow_small_n`."""
        if self.allow_small_n:
            return 2
        dim = {"classifier": self.classifier.num_features, "inception": 2048}
        return self.min_images or dim.get(self.features, 64) + 1

    @model_validator(mode="after")
    def _fits_the_features(self) -> EvaluationConfig:
        if self.num_images < self.fewest_images:
            raise ValueError(
                f"num_images {self.num_images} is too few for an FID in {self.features} features: "
                f"want at least {self.fewest_images} (evaluation.min_images), or set "
                "evaluation.allow_small_n=true"
            )
        if self.inception_score and self.features != "inception":
            raise ValueError(f"inception_score needs features=inception, not {self.features}")
        if self.weights_sha256 and self.features == "classifier":
            raise ValueError("weights_sha256 is of inception or a ResNet; a classifier is trained")
        return self

    @model_validator(mode="after")
    def _enough(self) -> EvaluationConfig:
        if self.kid_subset_size > self.num_images:
            raise ValueError(
                f"kid_subset_size {self.kid_subset_size} exceeds num_images {self.num_images}"
            )
        if self.prc_neighborhood >= self.num_images:
            raise ValueError(
                f"prc_neighborhood {self.prc_neighborhood} must be below num_images "
                f"{self.num_images}"
            )
        return self


class PointEvaluationConfig(Frozen):
    """What is measured on each generation of points, on how many, in every replicate."""

    num_points: Annotated[int, Field(ge=2)] = 4000
    """Points whose sample moments give the closed-form Gaussian W2."""
    empirical_points: Annotated[int, Field(ge=2)] = 250
    """Points of the exact empirical W2; its cost grows faster than their square."""
    bootstrap: Annotated[int, Field(ge=100)] = 2000
    """Resamples behind each 95 % interval of a mean over replicates."""

    @model_validator(mode="after")
    def _enough(self) -> PointEvaluationConfig:
        if self.empirical_points > self.num_points:
            raise ValueError(
                f"empirical_points {self.empirical_points} exceeds num_points {self.num_points}"
            )
        return self


class Standard(Frozen):
    """Standard training: the base is the model. The same flow as SIMS less the bracket."""

    kind: Literal["standard"] = "standard"

    @property
    def label(self) -> str:
        return "standard"


class AuxData(StrEnum):
    """What the auxiliary is fine-tuned on. One caption of the paper says the second, three other
    sources the first, hence the default."""

    synthetic = "synthetic"
    real_and_synthetic = "real+synthetic"


class Sims(Frozen):
    """Self-improvement with synthetic data (arXiv 2408.16333, Algorithm 1)."""

    kind: Literal["sims"] = "sims"
    omega: Annotated[float, Field(gt=0)] = 1.0
    """Guidance strength; omega = 0 is `Standard`."""
    n_s: Annotated[int, Field(ge=1, le=MOST_IMAGES)] = 4000
    """Size of the self-synthetic set S."""
    budget_mimg: Annotated[float, Field(gt=0, le=MOST_KIMG / 1000)] = 0.0128
    """B, the auxiliary's training length in million images seen."""
    batch_size: Annotated[int, Field(ge=1)] = 128
    learning_rate: Annotated[float, Field(gt=0)] = 1e-4
    aux_data: AuxData = AuxData.synthetic
    auxiliary_net: UNetConfig | None = None
    """Another architecture for the auxiliary, which is then trained from scratch on S; None
    fine-tunes the base."""

    @property
    def label(self) -> str:
        return f"sims omega={self.omega:g}"


Method = Annotated[Standard | Sims, Field(discriminator="kind")]


class LoopKind(StrEnum):
    """What D^t is made of for t >= 2 (MAD paper, arXiv 2307.01850)."""

    fully_synthetic = "fully_synthetic"
    """Images of G^(t-1) only."""
    synthetic_augmentation = "synthetic_augmentation"
    """The fixed real data and images of G^(t-1)."""
    fresh_data = "fresh_data"
    """A new draw of real data in each generation, and images of G^(t-1)."""


class Accumulation(StrEnum):
    """Which earlier generations D^t's synthetic part comes from."""

    replace_ = "replace"
    """|D_s| images of G^(t-1)."""
    accumulate = "accumulate"
    """|D_s| images of each of G^1 .. G^(t-1): the synthetic part grows."""
    fixed_budget = "fixed_budget"
    """|D_s| images in all, split as evenly as can be over G^1 .. G^(t-1)."""


def _check_fit(net: ImageNet, data: ImageData) -> None:
    """Raises ValueError if the network is for other images, or other classes, than the data has.

    Images that are not imported yet have nothing to compare.
    """
    if (found := modelled(data)) is None:
        return
    name = data.name if isinstance(data, ImportedImages) else data.source
    wanted = (net.channels, net.image_size, net.image_size)
    if (found.channels, found.height, found.width) != wanted:
        what, remedy = "images", ", or import the images with --size and --channels"
        if encoding_of(data) is not None:
            what, remedy = "latents", ""
        elif net.channels not in (1, 3):
            remedy = ", or encode the images by `sims data encode`"
        raise ValueError(
            f"model.net is for {what} of {net.channels} x {net.image_size} x {net.image_size} "
            f"(channels x height x width), those of {name} have "
            f"{found.channels} x {found.height} x {found.width}: set model.net.image_size and "
            f"model.net.channels{remedy}"
        )
    if net.num_classes and not found.num_classes:
        raise ValueError(
            f"model.net.num_classes is {net.num_classes}, but the images of {name} have no labels: "
            "set it to 0, or import them with --labels"
        )
    if net.num_classes and net.num_classes != found.num_classes:
        raise ValueError(
            f"model.net.num_classes is {net.num_classes}, {name} has {found.num_classes} classes: "
            f"set it to {found.num_classes}, or to 0 for none"
        )


class Experiment(Frozen):
    """Everything a preset fixes about the science of one loop; flows turn the flat knobs."""

    data: DataConfig = DigitsData()
    model: ModelConfig = ModelConfig()
    base: BaseConfig = BaseConfig()
    training: TrainingConfig = TrainingConfig()
    sims: Sims = Sims()
    """Template of the SIMS arms; each takes its omega from the flow's `omegas`."""
    sampler: SamplerConfig = SamplerConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    """Of images."""
    point_evaluation: PointEvaluationConfig = PointEvaluationConfig()
    """Of points."""

    @model_validator(mode="after")
    def _data_fit_model(self) -> Experiment:
        net = self.model.net
        if isinstance(self.data, GaussianData) == isinstance(net, IMAGE_NETS):
            raise ValueError(f"a {net.kind} network cannot model {self.data.source} data")
        if isinstance(net, MLPConfig) and net.dim != getattr(self.data, "dim", None):
            raise ValueError(f"model.net.dim is {net.dim}, the data's dimension is another")
        if isinstance(net, IMAGE_NETS) and not isinstance(self.data, GaussianData):
            _check_fit(net, self.data)
        return self

    @property
    def encoding(self) -> Encoding | None:
        """What made the latents that the networks see; None: they see the data."""
        return None if isinstance(self.data, GaussianData) else encoding_of(self.data)

    @model_validator(mode="after")
    def _points_are_sampled_in_full(self) -> Experiment:
        if isinstance(self.data, GaussianData) and self.sampler.precision != "fp32":
            raise ValueError("sampler.precision must be fp32 for points")
        return self

    @model_validator(mode="after")
    def _latents_are_not_augmented(self) -> Experiment:
        for name in ("x_flip", "augment"):
            if getattr(self.training, name) and self.encoding is not None:
                raise ValueError(
                    f"training.{name} must be {'false' if name == 'x_flip' else 0} for latents: "
                    "those of a changed image are not the image's own, changed"
                )
        return self

    @model_validator(mode="after")
    def _network_is_told_of_augmentation(self) -> Experiment:
        if not self.training.augment:
            return self
        nets = {"model.net": self.model.net, "sims.auxiliary_net": self.sims.auxiliary_net}
        if self.base.imported is not None:  # it is fine-tuned as it can be
            del nets["model.net"]
        for name, net in nets.items():
            if net is not None and not getattr(net, "augment_labels", False):
                remedy = f"set {name}.augment_labels=true or" if net.kind == "unet" else "set"
                raise ValueError(
                    f"training.augment {self.training.augment} needs a network that is told of it, "
                    f"and {name} is not: {remedy} training.augment=0"
                )
        return self

    @model_validator(mode="before")
    @classmethod
    def _auxiliary_is_for_the_same_images(cls, values: Any) -> Any:
        """What `sims.auxiliary_net` leaves out about the images is as in `model.net`."""
        try:
            net, given = values["model"]["net"], values["sims"]["auxiliary_net"]
            filled = {name: net[name] for name in SHARED_BY_NETS} | given
        except (KeyError, TypeError):  # models already, or nothing to fill in
            return values
        return {**values, "sims": {**values["sims"], "auxiliary_net": filled}}

    @model_validator(mode="after")
    def _auxiliary_fits_base(self) -> Experiment:
        net, other = self.model.net, self.sims.auxiliary_net
        if other is None:
            return self
        if not isinstance(net, IMAGE_NETS):
            raise ValueError(f"sims.auxiliary_net is a U-Net, model.net is {net.kind!r}")
        for name in ("image_size", "channels", "num_classes"):
            if getattr(other, name) != getattr(net, name):
                raise ValueError(
                    f"sims.auxiliary_net.{name} {getattr(other, name)} must be model.net's, "
                    f"{getattr(net, name)}"
                )
        return self

    @property
    def auxiliary_model(self) -> ModelConfig | None:
        """The auxiliary's own architecture, None where it is the base's."""
        if self.sims.auxiliary_net is None:
            return None
        return ModelConfig(net=self.sims.auxiliary_net, sigma_data=self.model.sigma_data)

    @property
    def trained_model(self) -> ModelConfig:
        """The model with as many replicates as the data."""
        if not isinstance(self.model.net, MLPConfig) or not isinstance(self.data, GaussianData):
            return self.model
        net = self.model.net.model_copy(update={"replicates": self.data.replicates})
        return self.model.model_copy(update={"net": net})

    @model_validator(mode="after")
    def _enough_real_images(self) -> Experiment:
        if isinstance(self.data, GaussianData) or self.data.contents is None:
            return self
        evaluation, count = self.evaluation, self.data.contents.count
        if count < evaluation.fewest_images:
            raise ValueError(
                f"{count} real images are too few for an FID in {evaluation.features} features: "
                f"want at least {evaluation.fewest_images} (evaluation.min_images), or set "
                "evaluation.allow_small_n=true"
            )
        for name in ("kid_subset_size", "prc_neighborhood"):
            if getattr(evaluation, name) >= count:
                raise ValueError(
                    f"evaluation.{name} {getattr(evaluation, name)} must be below the number of "
                    f"real images, {count}"
                )
        return self

    def swept_auxiliary_training(self, budget_mimg: float) -> TrainingConfig:
        """`auxiliary_training` so that a training of every smaller budget is its beginning.

        Its average's half-life is a tenth of the images seen so far, whatever the budget.
        """
        sims = self.sims.model_copy(update={"budget_mimg": budget_mimg})
        training = self.model_copy(update={"sims": sims}).auxiliary_training
        return training.model_copy(update={"ema_rampup_ratio": 0.1})

    @property
    def auxiliary_training(self) -> TrainingConfig:
        """The base's recipe with the fine-tune's length, batch and rate.

        Constant rate after no ramp: within a budget this short a ramp or decay would only shrink
        the budget. The EMA's half-life is a tenth of the budget, so that the base's weights have
        all but left it (2^-10) when the budget is spent. An imported network that cannot be told of
        augmentation is not augmented for.
        """
        kimg = self.sims.budget_mimg * 1000
        told = getattr(self.sims.auxiliary_net or self.model.net, "augment_labels", False)
        return self.training.model_copy(
            update={
                "kimg": kimg,
                "batch_size": self.sims.batch_size,
                "learning_rate": self.sims.learning_rate,
                "ramp_kimg": 0.0,
                "decay": "constant",
                "ema_halflife_kimg": kimg / 10,
                "augment": self.training.augment if told else 0.0,
            }
        )


class DataFiles(Frozen):
    """Where real data are read. Their content is checked or digested: no path is in a digest."""

    source: Path | None = None
    """The folder in which known data sets and weights are looked for."""
    imported: Path | None = None
    """What is being imported."""
    labels: Path | None = None
    """A file with the class labels of what is being imported."""
    downloads: Path | None = None
    """Folder for known data sets that are fetched; None: nothing is fetched."""
    inception: Path | None = None
    """The file with Inception's weights."""


class Execution(Frozen):
    """How a stage runs. Nothing here changes an artifact's digest.

    A stage that was interrupted keeps the execution that it began with, so that its bytes do not
    depend on where it was interrupted.
    """

    device: Annotated[str, Field(pattern=r"^(cpu|cuda(:\d+)?|mps)$")] = "cpu"
    threads: Annotated[int, Field(ge=1)] = 1
    """torch's intra-operation threads; one and two differ in the last digits."""
    sampling_batch_size: Annotated[int, Field(ge=1)] = 256
    checkpoint_kimg: Annotated[float, Field(gt=0)] = 2.0
    """A training stage saves its progress every so many thousand images seen."""
    num_processes: Annotated[int, Field(ge=1)] = 1
    """Training processes that share each batch: on GPUs, one a GPU."""
    micro_batch_size: Annotated[int, Field(ge=1)] | None = None
    """At most so many images go through the network at once in training, in each process; their
    gradients are added up. None is the whole batch."""
    compile: Literal["inductor", "eager"] | None = None
    """torch.compile's backend for the network in training and sampling; None does not compile."""
    channels_last: bool = True
    """Weights in memory as [out, height, width, in]: faster on CPUs and on tensor cores."""
    files: DataFiles = DataFiles()


def one_line(error: ValidationError) -> str:
    """The first problem of a pydantic error: where it is, what it is, what was given."""
    first = error.errors(include_url=False)[0]
    where = ".".join(str(part) for part in first["loc"]) or "value"
    message = first["msg"].removeprefix("Value error, ")
    message = message[:1].lower() + message[1:]
    if first["type"] in ("extra_forbidden", "missing") or isinstance(first["input"], dict):
        return f"{where}: {message}"
    return f"{where}: {message}, got {first['input']!r}"
