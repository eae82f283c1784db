"""Plans the stages that every study is made of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from sims_core.common.errors import BadInput
from sims_core.common.seeding import derive_seed
from sims_core.data.config import (
    GaussianData,
    ImageData,
    ImportedImages,
    MixConfig,
    MixPart,
    PointSourceConfig,
)
from sims_core.data.stages import MIX, PREPARE_POINTS, data_request
from sims_core.evaluation.config import (
    ClassifierStageConfig,
    EvaluateConfig,
    EvaluatePointsConfig,
    ExtractorConfig,
    FeaturesConfig,
    ReferenceConfig,
)
from sims_core.evaluation.stages import (
    CLASSIFIER,
    EVALUATE,
    EVALUATE_POINTS,
    EXTRACTOR,
    FEATURES,
    REFERENCE,
)
from sims_core.latents.config import DecodeConfig
from sims_core.latents.stages import DECODE, IMPORT_AUTOENCODER, decoder_of, encode_request
from sims_core.methods.sims import AuxData, Sims
from sims_core.nets.config import ExactGaussianConfig, ModelConfig
from sims_core.nets.stages import IMPORT_MODEL
from sims_core.sampling.config import GenerateConfig, GeneratePointsConfig
from sims_core.sampling.stages import GENERATE, GENERATE_LATENTS, GENERATE_POINTS
from sims_core.store.artifacts import ArtifactRef, StageRequest
from sims_core.studies.experiment import Experiment
from sims_core.studies.plan import PlannedStage
from sims_core.training.config import TrainingConfig, TrainStageConfig
from sims_core.training.stages import TRAIN

Pollution = tuple[ArtifactRef, int | None]
"""An earlier generation's data and how many of them, None for all."""


@dataclass
class Planner:
    """Collects stages; `add` returns the artifact that the stage will make."""

    experiment: Experiment
    seed: int
    t: int = 0
    stages: list[PlannedStage] = field(default_factory=list)

    def add(self, role: str, request: StageRequest) -> ArtifactRef:
        self.stages.append(PlannedStage(self.t, role, request))
        return request.ref

    def stage_seed(self, purpose: str) -> int:
        return derive_seed(self.seed, purpose, self.t)

    def mix(
        self, role: str, kept: ArtifactRef | None, synthetic: Sequence[Pollution]
    ) -> ArtifactRef:
        """All of `kept` (data or a mix), and the first so many (None: all) of each `synthetic`."""
        parts, inputs = [], {}
        if kept is not None:
            parts.append(MixPart(input="kept", synthetic=False))
            inputs["kept"] = kept
        for number, (artifact, count) in enumerate(synthetic, start=1):
            name = "synthetic" if len(synthetic) == 1 else f"synthetic_{number}"
            parts.append(MixPart(input=name, synthetic=True, count=count))
            inputs[name] = artifact
        return self.add(role, MIX.request(MixConfig(parts=tuple(parts)), **inputs))

    def train(
        self,
        role: str,
        training: TrainingConfig,
        model: ModelConfig | None = None,
        snapshots_kimg: tuple[float, ...] = (),
        **inputs: ArtifactRef,
    ) -> ArtifactRef:
        """Trains the experiment's model, or another `model`.

        One of latents that draws grids on the way is given what decodes them.
        """
        if training.grid_kimg:
            inputs |= self.decoder
        config = TrainStageConfig(
            model=model or self.experiment.trained_model,
            training=training,
            seed=self.stage_seed(role),
            snapshots_kimg=snapshots_kimg,
        )
        return self.add(role, TRAIN.request(config, **inputs))

    def base(self, data: ArtifactRef) -> ArtifactRef:
        """The base: trained on `data`, or brought along for the first generation.

        Raises:
            BadInput: a later generation's is trained from scratch, so nothing can be brought.
        """
        base = self.experiment.base
        if base.imported is None:
            return self.train("train base", self.experiment.training, data=data)
        if base.model is None:
            raise BadInput(
                f"model {base.imported!r} was not looked up: see sims_core.studies.resolve"
            )
        if self.t > 1:
            raise BadInput(
                f"base.imported {base.imported} is the model of generation 1; generation "
                f"{self.t} would be trained by a recipe that is not its own: set generations=1"
            )
        return self.add("imported base", IMPORT_MODEL.request(base.model))

    def generate(
        self, role: str, count: int, first_seed: int, models: dict[str, ArtifactRef], omega: float
    ) -> ArtifactRef:
        if isinstance(self.experiment.data, GaussianData):
            net = self.experiment.model.net
            points = GeneratePointsConfig(
                sampler=self.experiment.sampler,
                omega=omega,
                sampling_bias=net.sampling_bias if isinstance(net, ExactGaussianConfig) else 1,
                count=count,
                seed=first_seed,
            )
            return self.add(role, GENERATE_POINTS.request(points, **models))
        config = GenerateConfig(
            sampler=self.experiment.sampler, omega=omega, count=count, first_seed=first_seed
        )
        stage = GENERATE if self.experiment.encoding is None else GENERATE_LATENTS
        return self.add(role, stage.request(config, **models))

    def generate_images(
        self, role: str, count: int, first_seed: int, models: dict[str, ArtifactRef], omega: float
    ) -> tuple[ArtifactRef, ArtifactRef]:
        """What the models sample, and the images that it is: of latents, the decoded ones."""
        if not self.decoder:
            images = self.generate(role, count, first_seed, models, omega)
            return images, images
        latents = self.generate(f"{role} latents", count, first_seed, models, omega)
        request = DECODE.request(DecodeConfig(), latents=latents, **self.decoder)
        return latents, self.add(role, request)

    @property
    def decoder(self) -> dict[str, ArtifactRef]:
        """What decodes latents, as inputs of a stage; nothing where networks see the data."""
        data = self.experiment.data
        return {} if isinstance(data, GaussianData) else decoder_of(data)

    @property
    def gaussian(self) -> GaussianData:
        """The distribution that data are drawn from.

        Raises:
            BadInput: the data set is fixed, nothing new can be drawn from it.
        """
        data = self.experiment.data
        if not isinstance(data, GaussianData):
            raise BadInput(f"loop fresh_data needs data to draw from, {data.source} is a fixed set")
        return data

    def point_source(self, count: int, *purpose: str | int) -> PointSourceConfig:
        """The true Gaussian and a seed of its own for each purpose."""
        data = self.gaussian
        return PointSourceConfig(
            mean=data.mean,
            covariance=data.covariance,
            replicates=data.replicates,
            count=count,
            seed=derive_seed(self.seed, *purpose),
        )

    def fresh_real(self) -> ArtifactRef:
        """New real points of this generation.

        Raises:
            BadInput: the data set is fixed, nothing new can be drawn from it.
        """
        data = self.gaussian
        source = self.point_source(data.fresh_points or data.num_points, "fresh data", self.t)
        return self.add("fresh data", PREPARE_POINTS.request(source))


@dataclass(frozen=True)
class Setup:
    """What all arms share: real data, and what generated data are compared with."""

    real: ArtifactRef
    """What networks are trained on: points, images or their latents."""
    references: dict[str, ArtifactRef]
    extractor: dict[str, ArtifactRef] = field(default_factory=dict)
    """Of images: what makes their features."""


def plan_setup(planner: Planner) -> Setup:
    experiment = planner.experiment
    if not isinstance(experiment.data, GaussianData):
        return _plan_image_setup(planner, experiment.data)
    data, evaluation = experiment.data, experiment.point_evaluation
    source = planner.point_source(data.num_points, "data")
    real = planner.add("prepare data", PREPARE_POINTS.request(source))
    config = ReferenceConfig(
        source=planner.point_source(evaluation.num_points, "reference"),
        empirical_points=evaluation.empirical_points,
    )
    return Setup(real, {"reference": planner.add("reference", REFERENCE.request(config))})


def _check_labels(data: ImageData) -> None:
    """Raises BadInput if a classifier cannot be trained on the data."""
    if data.contents is not None and not data.contents.num_classes:
        name = data.name if isinstance(data, ImportedImages) else data.source
        raise BadInput(
            f"the features of a classifier need class labels, and the images of {name} have none: "
            "import them with --labels FILE, or from a sub-folder for each class"
        )


def _plan_image_setup(planner: Planner, data: ImageData) -> Setup:
    images = real = planner.add("prepare data", data_request(data))
    if (encoding := planner.experiment.encoding) is not None:
        planner.add("load autoencoder", IMPORT_AUTOENCODER.request(encoding.autoencoder))
        real = planner.add("encode data", encode_request(images, encoding))
    if planner.experiment.evaluation.features == "classifier":
        _check_labels(data)
    extractor = plan_extractor(planner, images)
    # As many as there are, in words that a comparison of two sets uses too: one artifact for both.
    config = FeaturesConfig(count=data.contents.count if data.contents else None)
    request = FEATURES.request(config, images=images, **extractor)
    return Setup(real, {"features": planner.add("real features", request)}, extractor)


def plan_extractor(planner: Planner, real: ArtifactRef) -> dict[str, ArtifactRef]:
    """The feature space, by the name that stage `features` wants it under.

    Raises:
        BadInput: it has weights that nobody has chosen.
    """
    evaluation = planner.experiment.evaluation
    if evaluation.features == "classifier":
        config = ClassifierStageConfig(
            classifier=evaluation.classifier, seed=planner.stage_seed("classifier")
        )
        request = CLASSIFIER.request(config, images=real)
        return {"classifier": planner.add("train classifier", request)}
    if evaluation.weights_sha256 is None:
        raise BadInput(
            "evaluation.weights_sha256 is not set: sims_core.evaluation.weights.pin_weights does"
        )
    weights = ExtractorConfig(
        features=evaluation.features,
        sha256=evaluation.weights_sha256,
        inception_score=evaluation.inception_score,
    )
    return {"extractor": planner.add("load extractor", EXTRACTOR.request(weights))}


def plan_auxiliary_data(
    planner: Planner, method: Sims, data: ArtifactRef, base: ArtifactRef
) -> ArtifactRef:
    """S, drawn from the base, and what the auxiliary is fine-tuned on.

    Where real data is kept too it is the base's own training set: a method never learns which of
    its images are pollution.
    """
    first_seed = planner.stage_seed("self-synthetic")
    synthetic = planner.generate("self-synthetic", method.n_s, first_seed, {"base": base}, omega=0)
    real_too = method.aux_data is AuxData.real_and_synthetic
    if real_too or not isinstance(planner.experiment.data, GaussianData):
        synthetic = planner.mix("auxiliary data", data if real_too else None, [(synthetic, None)])
    return synthetic


def _plan_point_evaluation(planner: Planner, setup: Setup, generated: ArtifactRef) -> None:
    evaluation = planner.experiment.point_evaluation
    config = EvaluatePointsConfig(
        num_points=evaluation.num_points,
        empirical_points=evaluation.empirical_points,
        bootstrap=evaluation.bootstrap,
        seed=derive_seed(planner.seed, "evaluate"),
    )
    request = EVALUATE_POINTS.request(config, generated=generated, **setup.references)
    planner.add("evaluate", request)


def plan_image_metrics(
    planner: Planner, setup: Setup, generated: ArtifactRef, sample_seed: int | None = None
) -> None:
    """Features of the first `num_images` of `generated`, or of a sample, and their metrics."""
    evaluation = planner.experiment.evaluation
    config = FeaturesConfig(count=evaluation.num_images, sample_seed=sample_seed)
    features = planner.add(
        "features", FEATURES.request(config, images=generated, **setup.extractor)
    )
    metrics = EvaluateConfig(
        kid_subsets=evaluation.kid_subsets,
        kid_subset_size=evaluation.kid_subset_size,
        prc_neighborhood=evaluation.prc_neighborhood,
        seed=derive_seed(planner.seed, "evaluate"),
    )
    real = setup.references["features"]
    planner.add("evaluate", EVALUATE.request(metrics, generated=features, real=real))
