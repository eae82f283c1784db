"""Images, and latents, which are images behind an autoencoder."""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar, cast

from sims_core.common import purposes, roles
from sims_core.common.errors import BadInput
from sims_core.common.seeding import derive_seed
from sims_core.data.config import ImageData, PickConfig
from sims_core.data.stages import PICK, data_request
from sims_core.engine.execution import Execution, check_batch, check_precision
from sims_core.evaluation.config import (
    ClassifierStageConfig,
    EvaluateConfig,
    ExtractorConfig,
    FeaturesConfig,
    ReferenceFileConfig,
    StatisticsFidConfig,
)
from sims_core.evaluation.stages import (
    CLASSIFIER,
    EVALUATE,
    EXTRACTOR,
    FEATURES,
    IMPORT_REFERENCE,
    METRIC,
    STATISTICS_FID,
)
from sims_core.latents.config import DecodeConfig
from sims_core.latents.stages import (
    DECODE,
    IMPORT_AUTOENCODER,
    decode_request,
    decoder_of,
    encode_request,
    has_images,
)
from sims_core.methods.base import Sampled
from sims_core.nets.config import ModelConfig
from sims_core.sampling.config import GenerateConfig
from sims_core.sampling.stages import GENERATE, GENERATE_LATENTS
from sims_core.store.artifacts import ArtifactRef
from sims_core.studies.experiment import Experiment
from sims_core.studies.kinds.image_checks import check_auxiliary_net, check_images
from sims_core.studies.kinds.image_draws import check_no_fresh, fresh_range
from sims_core.studies.plan import PlannedStage
from sims_core.studies.planner import Kind, Planner, Setup
from sims_core.training.stages import TRAIN


class Images(Kind):
    """A fixed set of images; networks see them or their latents, metrics see images."""

    REPORT: ClassVar[str] = "sims_core.reports.images:IMAGES"
    SHIFT: ClassVar[str] = "sims_core.studies.kinds.shift_images:SHIFT_IMAGES"

    def check(self, experiment: Experiment) -> None:
        check_images(experiment, _data(experiment))

    def check_auxiliary(self, experiment: Experiment, model: ModelConfig) -> None:
        check_auxiliary_net("its network", experiment, model.net, may_lack_classes=True)

    def check_machine(
        self, experiment: Experiment, execution: Execution, stages: Iterable[PlannedStage]
    ) -> None:
        training, sampler = experiment.training, experiment.sampler
        check_precision("training.precision", training.precision, execution.device)
        check_precision("sampler.precision", sampler.precision, execution.device)
        trained = (stage.request.config for stage in stages if stage.request.stage == TRAIN.name)
        settings = experiment.batch_sizes
        for size in sorted({config["training"]["batch_size"] for config in trained}):
            names = [name for name, said in settings.items() if said == size]
            check_batch(" and ".join(names), size, execution.num_processes)

    def setup(self, planner: Planner) -> Setup:
        data = _data(planner.experiment)
        images = real = planner.add(roles.PREPARE_DATA, data_request(data))
        if (encoding := data.encoding) is not None:
            request = IMPORT_AUTOENCODER.request(encoding.autoencoder)
            planner.add(roles.LOAD_AUTOENCODER, request)
            real = planner.add(roles.ENCODE_DATA, encode_request(images, encoding))
            if not has_images(data):
                images = planner.add(roles.DECODE_DATA, decode_request(data))
        if planner.experiment.evaluation.features == "classifier":
            _check_labels(data)
        extractor = plan_extractor(planner, images)
        if (file := _reference(planner.experiment)) is not None:
            reference = planner.add(roles.IMPORT_REFERENCE, IMPORT_REFERENCE.request(file))
            return Setup(real, {"statistics": reference}, extractor)
        # As many as there are, in words that a comparison of two sets uses too: one artifact for
        # both.
        config = FeaturesConfig(count=data.contents.count if data.contents else None)
        request = FEATURES.request(config, images=images, **extractor)
        return Setup(real, {"features": planner.add(roles.REAL_FEATURES, request)}, extractor)

    def real_part(self, planner: Planner, real: ArtifactRef, fresh: bool) -> ArtifactRef:
        """A fresh part is drawn without replacement: no image is in two generations."""
        data = _data(planner.experiment)
        if not fresh:
            check_no_fresh(data)
            return real
        start, count = fresh_range(data, planner.t)
        seed = derive_seed(planner.seed, purposes.FRESH_DATA)
        config = PickConfig(seed=seed, start=start, count=count)
        role = roles.INITIAL_DATA if planner.t == 1 else roles.FRESH_DATA
        return planner.add(role, PICK.request(config, images=real))

    def training_inputs(self, experiment: Experiment) -> dict[str, ArtifactRef]:
        """Grids of latents are of their decoded images."""
        return decoder_of(_data(experiment))

    def draw(
        self, planner: Planner, role: str, count: int, first_seed: int, sampled: Sampled
    ) -> ArtifactRef:
        config = GenerateConfig(
            **dict(planner.guidance(sampled)),
            sampler=planner.experiment.sampler,
            count=count,
            first_seed=first_seed,
        )
        latent = _data(planner.experiment).encoding is not None
        stage = GENERATE_LATENTS if latent else GENERATE
        return planner.add(role, stage.request(config, **sampled.inputs))

    def generation(
        self, planner: Planner, setup: Setup, sampled: Sampled, at_least: int
    ) -> ArtifactRef:
        """Latents are not encoded anew from their images: the next generation trains on what was
        sampled."""
        evaluation = planner.experiment.evaluation
        count, seed = max(evaluation.num_images, at_least), planner.stage_seed(purposes.GENERATE)
        generated, images = plan_images(planner, roles.GENERATE, count, seed, sampled)
        # The same seeds in every generation and arm: the grid shows one noise through all models.
        preview = derive_seed(planner.seed, purposes.PREVIEW)
        plan_images(planner, roles.PREVIEW, evaluation.num_preview, preview, sampled)
        plan_image_metrics(planner, setup, images)
        return generated


IMAGES = Images()


def _reference(experiment: Experiment) -> ReferenceFileConfig | None:
    """The file that images are compared with; None: the real images.

    Raises:
        BadInput: nobody has looked at it.
    """
    evaluation = experiment.evaluation
    if evaluation.reference is None:
        return None
    if evaluation.reference_sha256 is None:
        raise BadInput(
            f"reference {evaluation.reference} was not looked up: see sims_core.studies.resolve"
        )
    return ReferenceFileConfig(sha256=evaluation.reference_sha256)


def _data(experiment: Experiment) -> ImageData:
    return cast(ImageData, experiment.data)


def _check_labels(data: ImageData) -> None:
    """Raises BadInput if a classifier cannot be trained on the data."""
    if data.contents is not None and not data.contents.num_classes:
        raise BadInput(
            f"the features of a classifier need class labels, and the images of {data.title} have "
            "none: import them with `labels` FILE, or from a sub-folder for each class"
        )


def plan_extractor(planner: Planner, real: ArtifactRef) -> dict[str, ArtifactRef]:
    """The feature space, by the name that stage `features` wants it under.

    Raises:
        BadInput: it has weights that nobody has chosen.
    """
    evaluation = planner.experiment.evaluation
    if evaluation.features == "classifier":
        config = ClassifierStageConfig(
            classifier=evaluation.classifier, seed=planner.stage_seed(purposes.CLASSIFIER)
        )
        request = CLASSIFIER.request(config, images=real)
        return {"classifier": planner.add(roles.TRAIN_CLASSIFIER, request)}
    if evaluation.weights_sha256 is None:
        raise BadInput(
            "evaluation.weights_sha256 is not set: sims_core.evaluation.weights.pin_weights does"
        )
    weights = ExtractorConfig(
        features=evaluation.features,
        sha256=evaluation.weights_sha256,
        inception_score=evaluation.inception_score,
    )
    return {"extractor": planner.add(roles.LOAD_EXTRACTOR, EXTRACTOR.request(weights))}


def plan_images(
    planner: Planner, role: str, count: int, first_seed: int, sampled: Sampled
) -> tuple[ArtifactRef, ArtifactRef]:
    """What the models sample, and the images that it is: of latents, the decoded ones."""
    decoder = decoder_of(_data(planner.experiment))
    if not decoder:
        images = IMAGES.draw(planner, role, count, first_seed, sampled)
        return images, images
    latents = IMAGES.draw(planner, roles.latents_of(role), count, first_seed, sampled)
    request = DECODE.request(DecodeConfig(), latents=latents, **decoder)
    return latents, planner.add(role, request)


def plan_image_metrics(
    planner: Planner, setup: Setup, generated: ArtifactRef, sample_seed: int | None = None
) -> None:
    """Features of the first `num_images` of `generated`, or of a random sample, and their metrics.

    Against a mean and covariance that is FID alone.

    The standard ones share a stage; each further one has its own, so that adding one computes
    nothing else again.
    """
    evaluation = planner.experiment.evaluation
    seed = derive_seed(planner.seed, purposes.EVALUATE)
    config = FeaturesConfig(count=evaluation.num_images, sample_seed=sample_seed)
    request = FEATURES.request(config, images=generated, **setup.extractor)
    features = planner.add(roles.FEATURES, request)
    if (statistics := setup.references.get("statistics")) is not None:
        fid = StatisticsFidConfig(count=evaluation.num_images)
        request = STATISTICS_FID.request(fid, generated=features, real=statistics)
        planner.add(roles.EVALUATE, request)
        return
    metrics = EvaluateConfig(
        kid_subsets=evaluation.kid_subsets,
        kid_subset_size=evaluation.kid_subset_size,
        prc_neighborhood=evaluation.prc_neighborhood,
        prc_real_images=evaluation.prc_real_images,
        seed=seed,
    )
    real = setup.references["features"]
    planner.add(roles.EVALUATE, EVALUATE.request(metrics, generated=features, real=real))
    for each in evaluation.metric_stages(seed):
        request = METRIC.request(each, generated=features, real=real)
        planner.add(roles.metric(each.name), request)
