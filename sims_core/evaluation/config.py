"""Configuration of what is measured, and of the stages that measure it."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import (
    Field,
    ValidationError,
    model_validator,
)

from sims_core.common.frozen import Frozen, one_line
from sims_core.common.seeding import MOST_IMAGES
from sims_core.data.config import Mixture, PointSourceConfig
from sims_core.data.groups import GroupMix
from sims_core.evaluation.metric import STANDARD_METRICS, further_metrics

ONLY_FID = "KID, precision and recall need images, a mean and covariance give FID alone"


class ClassifierConfig(Frozen):
    """A small convolutional classifier whose penultimate layer is the feature space."""

    channels: Annotated[tuple[int, ...], Field(min_length=1)] = (32, 64)
    num_features: Annotated[int, Field(ge=2, le=10**4)] = 64
    kimg: Annotated[float, Field(gt=0, le=1e8)] = 36.0
    batch_size: Annotated[int, Field(ge=2, le=10**6)] = 64
    learning_rate: Annotated[float, Field(gt=0, le=100)] = 2e-3


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
    reference: str | None = None
    """An .npz with the mean and covariance of the real images' `features`, as EDM's fid-refs and
    guided-diffusion's are: FID is against it, and nothing else is measured. None: the real data."""
    reference_sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None = None
    """SHA-256 of `reference`; None: that of the file as it is when a run is planned."""
    inception_score: bool = False
    classifier: ClassifierConfig = ClassifierConfig()
    kid_subsets: Annotated[int, Field(ge=1, le=10**5)] = 100
    kid_subset_size: Annotated[int, Field(ge=2)] = 500
    prc_neighborhood: Annotated[int, Field(ge=1)] = 3
    prc_real_images: Annotated[int, Field(ge=2, le=MOST_IMAGES)] | None = None
    """Precision and recall are against a random sample of so many real images; None: all of them.
    Their time grows with the square of the number: against ImageNet's 1.28 million it is hours for
    each set of images. FID and KID are against all."""
    metrics: tuple[str, ...] = ()
    """Metrics beyond the standard ones, by the names of files in sims_core/evaluation/metrics. Each
    is a stage of its own: adding one computes nothing else again."""
    metric_options: dict[str, dict[str, Any]] = {}
    """Options of `metrics` where they are not the metric's own defaults, by name."""
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
    def _reference_gives_fid_alone(self) -> EvaluationConfig:
        if self.reference is None:
            return self
        if self.features == "classifier":
            raise ValueError(
                "reference needs features=inception, resnet20 or resnet56: a classifier is trained "
                "anew on the real images, and no file has its features"
            )
        for name in ("metrics", "inception_score"):
            if getattr(self, name):
                raise ValueError(f"{name} cannot be measured against a reference: {ONLY_FID}")
        return self

    @model_validator(mode="after")
    def _enough(self) -> EvaluationConfig:
        if self.kid_subset_size > self.num_images:
            raise ValueError(
                f"kid_subset_size {self.kid_subset_size} exceeds num_images {self.num_images}"
            )
        for name in ("num_images", "prc_real_images"):
            count = getattr(self, name)
            if count is not None and self.prc_neighborhood >= count:
                raise ValueError(
                    f"prc_neighborhood {self.prc_neighborhood} must be below {name} {count}"
                )
        return self

    @model_validator(mode="after")
    def _metrics_are_known(self) -> EvaluationConfig:
        if not self.metrics and not self.metric_options:  # nothing to load
            return self
        known = further_metrics()
        for name in self.metrics:
            if name in STANDARD_METRICS:
                raise ValueError(f"metrics: {name} is measured in every run, leave it out")
            if name not in known:
                raise ValueError(f"metrics: no metric {name!r}; metrics: {', '.join(known)}")
            if "logits" in known[name].needs and not self.inception_score:
                raise ValueError(f"metrics: {name} needs logits: set inception_score=true")
        if len(set(self.metrics)) < len(self.metrics):
            raise ValueError(f"metrics: the same one twice in {', '.join(self.metrics)}")
        for name, options in self.metric_options.items():
            if name not in self.metrics:
                raise ValueError(f"metric_options: {name!r} is not in metrics {[*self.metrics]}")
            try:
                known[name].options.model_validate(options)
            except ValidationError as error:
                raise ValueError(f"metric_options.{name}: {one_line(error)}") from None
        return self

    @property
    def neighborhoods(self) -> dict[str, int]:
        """k of each metric that is made of nearest neighbours, by the metric's name."""
        named = {
            each.name: each.options["neighborhood"]
            for each in self.metric_stages(0)
            if "neighborhood" in each.options
        }
        return {"precision_recall": self.prc_neighborhood, **named}

    def metric_stages(self, seed: int) -> tuple[MetricConfig, ...]:
        """The configuration of the stage of each of `metrics`, with all its options."""
        known, stages = further_metrics() if self.metrics else {}, []
        for name in self.metrics:
            metric = known[name]
            options = metric.options.model_validate(self.metric_options.get(name, {}))
            stages.append(
                MetricConfig(
                    name=name,
                    version=metric.version,
                    options=options.model_dump(mode="json"),
                    seed=seed if metric.random else None,
                )
            )
        return tuple(stages)


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


class ReferenceConfig(Frozen):
    """`source.count` points for moments, `empirical_points` for the empirical distance."""

    source: PointSourceConfig
    empirical_points: int


class EvaluatePointsConfig(Frozen):
    num_points: int
    empirical_points: int
    bootstrap: int
    seed: int
    """What the bootstrap's resamples are drawn from."""


class EvaluateAgainstPointsConfig(Frozen):
    """Exact transport between as many generated points and reference points."""

    empirical_points: int
    bootstrap: int
    seed: int
    """What the bootstrap's resamples are drawn from."""


class Half(Frozen):
    """One half of a set, drawn at random; the other has the other number."""

    number: Literal[0, 1]
    seed: int


class ClassifierStageConfig(Frozen):
    classifier: ClassifierConfig
    seed: int
    half: Half | None = Field(default=None, exclude_if=lambda value: value is None)
    """It is trained on this half and tested on the other; None: on all images."""


class LabelConfig(Frozen):
    """Every image gets the class that a classifier finds likeliest."""


class LabelPointsConfig(Frozen):
    """Every point gets the component of a known mixture that it is likeliest of."""

    mixture: Mixture


class SharesConfig(Frozen):
    """The share of each group among labelled samples, and how far the mix is from a target."""

    names: tuple[str, ...]
    """What each group is called."""
    target: GroupMix


class ExtractorConfig(Frozen):
    """A network that was trained elsewhere, named by the content of its file."""

    features: Literal["inception", "resnet20", "resnet56"]
    sha256: str = Field(pattern=r"^[0-9a-f]{8,64}$")
    """SHA-256 of the file with the weights; its first digits are enough."""
    inception_score: bool = False
    """Its features come with the logits that the Inception Score is made from."""


class FeaturesConfig(Frozen):
    count: int | None = Field(default=None, ge=1)
    """First so many images; None is all."""
    sample_seed: int | None = Field(default=None, exclude_if=lambda value: value is None)
    """With it the `count` images are a random sample of the set, in the set's order."""


class ReferenceFileConfig(Frozen):
    """A mean and a covariance from a file, named by its content."""

    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")


class StatisticsFidConfig(Frozen):
    count: int
    """Images behind the features."""


class EvaluateConfig(Frozen):
    kid_subsets: int
    kid_subset_size: int
    prc_neighborhood: int
    prc_real_images: int | None = Field(default=None, exclude_if=lambda value: value is None)
    """Of so many real images, drawn at random, for precision and recall; None: all."""
    seed: int


class MetricConfig(Frozen):
    """One metric that is not among the standard ones."""

    name: str
    version: int
    options: dict[str, Any]
    seed: int | None
    """None: the metric draws nothing."""
