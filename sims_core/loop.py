"""Self-consuming loops as data: every stage of every generation, planned before any work starts.

An artifact's digest depends on configuration and on other digests only, so the whole graph is known
up front: what a run would compute, what it would find in the store, and which stages arms share.

Two synthetic sets exist and never share a name or a seed: `self_synthetic` S, drawn from the base
inside the method, and the loop's `pollution` D_s^t, the first images of G^(t-1) as it is used.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from pydantic import Field

from sims_core.config import (
    Accumulation,
    AuxData,
    DigitsData,
    Encoding,
    ExactGaussianConfig,
    Experiment,
    Frozen,
    GaussianData,
    ImageData,
    ImportedImages,
    KnownImages,
    LoopKind,
    Method,
    ModelConfig,
    Sims,
    TrainingConfig,
    encoding_of,
)
from sims_core.errors import BadInput
from sims_core.seeding import derive_seed
from sims_core.stages import (
    CLASSIFIER,
    DECODE,
    ENCODE,
    EVALUATE,
    EVALUATE_POINTS,
    EXTRACTOR,
    FEATURES,
    GENERATE,
    GENERATE_LATENTS,
    GENERATE_POINTS,
    IMPORT,
    IMPORT_AUTOENCODER,
    IMPORT_MODEL,
    MIX,
    PREPARE,
    PREPARE_KNOWN,
    PREPARE_POINTS,
    REFERENCE,
    TRAIN,
    ClassifierStageConfig,
    DecodeConfig,
    EvaluateConfig,
    EvaluatePointsConfig,
    ExtractorConfig,
    FeaturesConfig,
    GenerateConfig,
    GeneratePointsConfig,
    MixConfig,
    MixPart,
    PointSourceConfig,
    ReferenceConfig,
    TrainStageConfig,
)
from sims_core.store import ArtifactRef, StageRequest, Store


class Arm(Frozen):
    """One method with its settings in one loop: a curve in the figure."""

    method: Method
    loop: LoopKind
    pollution_size: int = Field(ge=1)
    """|D_s^t|: how many images of G^(t-1) enter D^t."""
    accumulation: Accumulation = Accumulation.replace_

    @property
    def name(self) -> str:
        return f"{self.method.label} |D_s|={self.pollution_size}"

    @property
    def slug(self) -> str:
        """The name as a folder's name."""
        return self.name.replace(" ", "_").replace("|", "").replace("=", "")


@dataclass(frozen=True)
class PlannedStage:
    """One node of the graph. `t` is the generation, 0 for what all arms share."""

    t: int
    role: str
    request: StageRequest
    model: str = ""
    """Of a study over models: which one it measures."""

    @property
    def label(self) -> str:
        if self.model:
            return f"{self.model}: {self.role}"
        return f"t={self.t:02d} {self.role}" if self.t else self.role

    @property
    def ref(self) -> ArtifactRef:
        return self.request.ref


@dataclass(frozen=True)
class ArmPlan:
    """An arm's stages in an order in which they can run."""

    arm: Arm
    stages: tuple[PlannedStage, ...]

    def artifacts(self, t: int) -> dict[str, ArtifactRef]:
        """Role to artifact of generation t."""
        return {stage.role: stage.ref for stage in self.stages if stage.t == t}


@dataclass(frozen=True)
class LoopPlan:
    """`setup` (data, classifier, reference features), then the arms."""

    experiment: Experiment
    generations: int
    seed: int
    setup: tuple[PlannedStage, ...]
    arms: tuple[ArmPlan, ...]
    scan: tuple[ArmPlan, ...] = ()
    """Arms of one generation: self-improvement over omega and budget."""

    @property
    def scan_stages(self) -> tuple[PlannedStage, ...]:
        """The scan's stages, each once, though its arms share most of them."""
        stages = {stage.ref: stage for arm in self.scan for stage in arm.stages}
        return tuple(stages.values())

    @property
    def groups(self) -> list[tuple[str, tuple[PlannedStage, ...]]]:
        """The stages in the order in which a run does them, each group with its arm's name."""
        arms = [(arm.arm.name, arm.stages) for arm in self.arms]
        return [("", self.setup), *arms, ("first generation", self.scan_stages)]

    def __iter__(self) -> Iterator[PlannedStage]:
        for _, stages in self.groups:
            yield from stages

    @property
    def links(self) -> list[tuple[str, ArtifactRef]]:
        """What a run's folder shows of the store, by path."""
        return [
            (f"arms/{arm.arm.slug}/t={stage.t:02d}/{stage.role.replace(' ', '_')}", stage.ref)
            for arm in self.arms
            for stage in arm.stages
        ]

    @property
    def undecided(self) -> int:
        """How many stages depend on what others find: none."""
        return 0

    def completed(self, store: Store) -> LoopPlan:
        """The plan with the stages that depend on what earlier ones found: itself."""
        return self


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
            raise BadInput(f"model {base.imported!r} was not looked up: see sims_core.models")
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


def encode_request(images: ArtifactRef, encoding: Encoding) -> StageRequest:
    """What turns the images into latents."""
    autoencoder = IMPORT_AUTOENCODER.request(encoding.autoencoder).ref
    return ENCODE.request(encoding.encode, images=images, autoencoder=autoencoder)


def decoder_of(data: ImageData) -> dict[str, ArtifactRef]:
    """What decodes latents of the data, as inputs of a stage; nothing for images."""
    if (encoding := encoding_of(data)) is None:
        return {}
    autoencoder = IMPORT_AUTOENCODER.request(encoding.autoencoder).ref
    return {
        "autoencoder": autoencoder,
        "encoded": encode_request(data_request(data).ref, encoding).ref,
    }


def data_request(data: ImageData) -> StageRequest:
    """What brings the real images into the store."""
    if isinstance(data, DigitsData):
        return PREPARE.request(data)
    if isinstance(data, KnownImages):
        return PREPARE_KNOWN.request(data)
    if data.imported is None:
        raise BadInput(f"data set {data.name!r} was not looked up: see sims_core.datasets")
    return IMPORT.request(data.imported.config)


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
        raise BadInput("evaluation.weights_sha256 is not set: sims_core.weights.pin_weights does")
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


def _plan_auxiliary(
    planner: Planner, method: Sims, data: ArtifactRef, base: ArtifactRef
) -> ArtifactRef:
    """The bracket of SIMS: draw S from the base, fine-tune the auxiliary on it."""
    synthetic = plan_auxiliary_data(planner, method, data, base)
    training = planner.experiment.model_copy(update={"sims": method}).auxiliary_training
    if (other := planner.experiment.auxiliary_model) is not None:
        return planner.train("train auxiliary", training, other, data=synthetic)
    return planner.train("fine-tune auxiliary", training, data=synthetic, initial=base)


def _pollution(arm: Arm, earlier: Sequence[ArtifactRef]) -> list[Pollution]:
    """D^t's synthetic part out of what G^1 .. G^(t-1) generated, by the arm's accumulation."""
    size = arm.pollution_size
    if arm.accumulation is Accumulation.replace_:
        return [(earlier[-1], size)]
    if arm.accumulation is Accumulation.accumulate:
        return [(images, size) for images in earlier]
    # The remainder goes to the latest generations; one whose share is none is left out.
    share, remainder = divmod(size, len(earlier))
    counts = [share + (age < remainder) for age in reversed(range(len(earlier)))]
    return [(images, count) for images, count in zip(earlier, counts, strict=True) if count]


def _training_data(
    planner: Planner, arm: Arm, real: ArtifactRef, earlier: Sequence[ArtifactRef]
) -> ArtifactRef:
    """D^t. G^1 sees real data only; what a loop kind adds from then on is decided here alone."""
    if not earlier:
        return planner.mix("mix", real, [])
    kept = {
        LoopKind.fully_synthetic: lambda: None,
        LoopKind.synthetic_augmentation: lambda: real,
        LoopKind.fresh_data: planner.fresh_real,
    }[arm.loop]()
    return planner.mix("mix", kept, _pollution(arm, earlier))


def _plan_generation(
    planner: Planner, arm: Arm, setup: Setup, earlier: Sequence[ArtifactRef]
) -> ArtifactRef:
    """One generation: mix, train, [auxiliary], generate, evaluate. Returns what G^t generated.

    Latents are not encoded anew from their images: the next generation trains on what was sampled.
    """
    experiment = planner.experiment
    data = _training_data(planner, arm, setup.real, earlier)
    base = planner.base(data)
    models, omega = {"base": base}, 0.0
    if isinstance(arm.method, Sims):
        models["auxiliary"] = _plan_auxiliary(planner, arm.method, data, base)
        omega = arm.method.omega
    points = isinstance(experiment.data, GaussianData)
    wanted = experiment.point_evaluation.num_points if points else experiment.evaluation.num_images
    count, first_seed = max(wanted, arm.pollution_size), planner.stage_seed("generate")
    if points:
        generated = planner.generate("generate", count, first_seed, models, omega)
        _plan_point_evaluation(planner, setup, generated)
        return generated
    generated, images = planner.generate_images("generate", count, first_seed, models, omega)
    # The same seeds in every generation and arm: the grid shows one noise through all models.
    preview_seed = derive_seed(planner.seed, "preview")
    planner.generate_images(
        "preview", experiment.evaluation.num_preview, preview_seed, models, omega
    )
    plan_image_metrics(planner, setup, images)
    return generated


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


def plan_image_metrics(planner: Planner, setup: Setup, generated: ArtifactRef) -> None:
    """Features of the first `num_images` of `generated`, and their metrics."""
    evaluation = planner.experiment.evaluation
    config = FeaturesConfig(count=evaluation.num_images)
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


def plan_arm(experiment: Experiment, arm: Arm, generations: int, seed: int) -> ArmPlan:
    """Every stage of one arm, without the setup that it shares with the others."""
    setup = plan_setup(Planner(experiment, seed))
    planner = Planner(experiment, seed)
    generated: list[ArtifactRef] = []
    for t in range(1, generations + 1):
        planner.t = t
        generated.append(_plan_generation(planner, arm, setup, generated))
    return ArmPlan(arm, tuple(planner.stages))


def plan_loop(
    experiment: Experiment,
    arms: tuple[Arm, ...],
    generations: int,
    seed: int,
    scan: tuple[Arm, ...] = (),
) -> LoopPlan:
    """Every stage of `generations` generations of each arm, and of the first of each scan arm.

    Raises:
        BadInput: no arm, the same arm twice, or no generation.
    """
    if generations < 1:
        raise BadInput(f"generations is {generations}; it must be at least 1")
    names = [arm.name for arm in arms]
    if not arms or len(set(names)) < len(names):
        raise BadInput(f"arms must be at least one and all different, got {names}")
    planner = Planner(experiment, seed)
    plan_setup(planner)
    plans = tuple(plan_arm(experiment, arm, generations, seed) for arm in arms)
    scanned = tuple(plan_arm(experiment, arm, 1, seed) for arm in scan)
    return LoopPlan(experiment, generations, seed, tuple(planner.stages), plans, scanned)
