"""Stages: pure functions from (configuration, input artifacts, version) to one artifact.

`run_stage` is the whole life of an artifact: lock, look, resume, compute, commit. It needs no
Prefect. A stage's code is imported when it first computes, so that a cached run stays light.
"""

from __future__ import annotations

import logging
import os
import platform
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version as library_version
from pathlib import Path
from typing import Any, Generic, Literal, Protocol, TypeVar

from pydantic import Field, ValidationError, model_validator

from sims_core.config import (
    IMAGE_NETS,
    AutoencoderConfig,
    ClassifierConfig,
    DigitsData,
    EncodeConfig,
    Execution,
    Frozen,
    ImportConfig,
    ImportedModel,
    KnownImages,
    ModelConfig,
    SamplerConfig,
    TrainingConfig,
)
from sims_core.errors import BadInput, OutOfMemory
from sims_core.store import (
    ArtifactRef,
    Name,
    Record,
    StageRequest,
    Store,
    explain_disk_errors,
    write_atomically,
)

logger = logging.getLogger("sims_core.stages")

GRID_FILE = "grid.png"
"""In every artifact with images: the first of them."""
HOW_TO_COMPUTE = {"num_processes", "micro_batch_size", "compile", "channels_last"}
"""Named in a manifest where they are not as usual: the last digits of floats depend on them."""
LIBRARIES = ("torch", "torchvision", "diffusers", "torch-fidelity", "webdataset", "numpy", "pillow")


class Progress(Protocol):
    """Called now and then by a long stage."""

    def __call__(self, done: int, total: int, unit: str, **figures: float) -> None: ...


def no_progress(done: int, total: int, unit: str, **figures: float) -> None:
    """Says nothing."""


class MixPart(Frozen):
    """`count` first images of the input artifact named `input`; None is all of them."""

    input: Name
    synthetic: bool
    count: int | None = Field(default=None, ge=1)


class MixConfig(Frozen):
    parts: tuple[MixPart, ...] = Field(min_length=1)


class TrainStageConfig(Frozen):
    model: ModelConfig
    training: TrainingConfig
    seed: int
    snapshots_kimg: tuple[float, ...] = ()
    """Also keep the model at these lengths: each is what a training of that length ends in."""

    @model_validator(mode="after")
    def _snapshots_on_the_way(self) -> TrainStageConfig:
        steps = [self.training.steps_of(kimg) for kimg in self.snapshots_kimg]
        if steps != sorted(set(steps)) or (steps and steps[-1] >= self.training.num_steps):
            raise ValueError(
                f"snapshots_kimg {self.snapshots_kimg} must be growing, a batch apart or more, and "
                f"below kimg {self.training.kimg}"
            )
        if steps and self.training.decay != "constant":
            raise ValueError(
                "snapshots_kimg need decay=constant: a rate that knows the end differs"
            )
        return self


class SnapshotConfig(Frozen):
    """Which of a training's snapshots, by the images that it had seen."""

    nimg: int = Field(ge=1)


class GenerateConfig(Frozen):
    sampler: SamplerConfig
    omega: float = Field(default=0.0, ge=0)
    count: int = Field(ge=1)
    first_seed: int
    """Image i is a function of (models, sampler, omega, first_seed + i) alone."""
    images_per_shard: int = Field(default=1024, ge=1)


class DecodeConfig(Frozen):
    """The first `count` latents; None is all of them."""

    count: int | None = Field(default=None, ge=1)


class PointSourceConfig(Frozen):
    """`count` points of one Gaussian for each of `replicates`."""

    mean: tuple[float, ...]
    covariance: tuple[tuple[float, ...], ...] | None
    replicates: int
    count: int
    seed: int


class GeneratePointsConfig(Frozen):
    sampler: SamplerConfig
    omega: float = Field(default=0.0, ge=0)
    sampling_bias: float = Field(default=1.0, ge=0, le=1)
    count: int = Field(ge=1)
    """Of each replicate."""
    seed: int
    """Point i of replicate r is a function of (its models, sampler, omega, seed, r, i) alone."""


class ReferenceConfig(Frozen):
    """`source.count` points for moments, `empirical_points` for the empirical distance."""

    source: PointSourceConfig
    empirical_points: int


class EvaluatePointsConfig(Frozen):
    num_points: int
    empirical_points: int
    bootstrap: int
    seed: int
    """Of the bootstrap."""


class ClassifierStageConfig(Frozen):
    classifier: ClassifierConfig
    seed: int


class ExtractorConfig(Frozen):
    """A network that was trained elsewhere, named by the content of its file."""

    features: Literal["inception", "resnet20", "resnet56"]
    sha256: str = Field(pattern=r"^[0-9a-f]{8,64}$")
    """Of the file with the weights; the first digits do."""
    inception_score: bool = False
    """Its features come with the logits that the Inception Score is made from."""


class FeaturesConfig(Frozen):
    count: int | None = Field(default=None, ge=1)
    """First so many images; None is all."""


class EvaluateConfig(Frozen):
    kid_subsets: int
    kid_subset_size: int
    prc_neighborhood: int
    seed: int


C = TypeVar("C", bound=Frozen)


class ShareDone(Exception):
    """This process has made its part of a shared stage; the one that started it does the rest."""


@dataclass(frozen=True)
class StageContext(Generic[C]):
    """What a stage's function is given."""

    stage: str
    config: C
    inputs: Mapping[str, ArtifactRef]
    store: Store
    directory: Path
    """The artifact in the making, empty at first: whatever is here at the end is the artifact."""
    state: Path
    """The stage's own progress, which survives a kill and goes when the artifact is committed."""
    execution: Execution
    progress: Progress
    rank: int | None = None
    """Which one of the processes that share the stage this is; None: it is not shared (yet)."""

    def open(self, name: str) -> Path:
        """Verified folder of the input artifact `name`."""
        return self.store.open_artifact(self.inputs[name])


@dataclass(frozen=True)
class Stage(Generic[C]):
    """A kind of work. `version` goes up whenever its result changes for the same configuration."""

    name: str
    version: int
    kind: str
    config: type[C]
    compute: Callable[[StageContext[C]], dict[str, Any]] = field(repr=False)
    """Fills `context.directory`; returns the manifest's details."""
    one_thread: Callable[[C], bool] = field(default=lambda config: False, repr=False)
    """Whether its matrices are so small that a second thread costs more than it brings."""
    accelerated: bool = False
    """Whether it computes on `execution.device`; those that do not may overlap with those that do.
    """

    def request(self, config: C, **inputs: ArtifactRef) -> StageRequest:
        return StageRequest(
            stage=self.name,
            version=self.version,
            kind=self.kind,
            config=config.model_dump(mode="json"),
            inputs=inputs,
        )


def _prepare(context: StageContext[DigitsData]) -> dict[str, Any]:
    from sims_core.data import prepare

    return prepare(context)


def _prepare_known(context: StageContext[KnownImages]) -> dict[str, Any]:
    from sims_core.known_data import prepare_known

    return prepare_known(context)


def _import(context: StageContext[ImportConfig]) -> dict[str, Any]:
    from sims_core.image_import import import_images

    return import_images(context)


def _mix(context: StageContext[MixConfig]) -> dict[str, Any]:
    from sims_core.mixing import mix

    return mix(context)


def _train(context: StageContext[TrainStageConfig]) -> dict[str, Any]:
    from sims_core.training import train_model

    return train_model(context)


def _snapshot(context: StageContext[SnapshotConfig]) -> dict[str, Any]:
    from sims_core.training import take_snapshot

    return take_snapshot(context)


def _import_model(context: StageContext[ImportedModel]) -> dict[str, Any]:
    from sims_core.model_import import import_model

    return import_model(context)


def _generate(context: StageContext[GenerateConfig]) -> dict[str, Any]:
    from sims_core.generation import generate

    return generate(context)


def _generate_latents(context: StageContext[GenerateConfig]) -> dict[str, Any]:
    from sims_core.generation import generate_latents

    return generate_latents(context)


def _import_autoencoder(context: StageContext[AutoencoderConfig]) -> dict[str, Any]:
    from sims_core.autoencoder import import_autoencoder

    return import_autoencoder(context)


def _encode(context: StageContext[EncodeConfig]) -> dict[str, Any]:
    from sims_core.latents import encode

    return encode(context)


def _decode(context: StageContext[DecodeConfig]) -> dict[str, Any]:
    from sims_core.latents import decode

    return decode(context)


def _classifier(context: StageContext[ClassifierStageConfig]) -> dict[str, Any]:
    from sims_core.classifier import train_classifier

    return train_classifier(context)


def _extractor(context: StageContext[ExtractorConfig]) -> dict[str, Any]:
    from sims_core.extractors import prepare_extractor

    return prepare_extractor(context)


def _features(context: StageContext[FeaturesConfig]) -> dict[str, Any]:
    from sims_core.evaluation import extract_features

    return extract_features(context)


def _evaluate(context: StageContext[EvaluateConfig]) -> dict[str, Any]:
    from sims_core.evaluation import evaluate

    return evaluate(context)


def _prepare_points(context: StageContext[PointSourceConfig]) -> dict[str, Any]:
    from sims_core.points import prepare_points

    return prepare_points(context)


def _generate_points(context: StageContext[GeneratePointsConfig]) -> dict[str, Any]:
    from sims_core.point_generation import generate_points

    return generate_points(context)


def _reference(context: StageContext[ReferenceConfig]) -> dict[str, Any]:
    from sims_core.point_evaluation import make_reference

    return make_reference(context)


def _evaluate_points(context: StageContext[EvaluatePointsConfig]) -> dict[str, Any]:
    from sims_core.point_evaluation import evaluate_points

    return evaluate_points(context)


PREPARE = Stage("prepare", 1, "images", DigitsData, _prepare)
PREPARE_KNOWN = Stage("prepare_known", 1, "images", KnownImages, _prepare_known)
IMPORT = Stage("import", 1, "images", ImportConfig, _import)
MIX = Stage("mix", 1, "mix", MixConfig, _mix)
TRAIN = Stage(
    "train",
    1,
    "model",
    TrainStageConfig,
    _train,
    one_thread=lambda config: not isinstance(config.model.net, IMAGE_NETS),
    accelerated=True,
)
SNAPSHOT = Stage("snapshot", 1, "model", SnapshotConfig, _snapshot)
IMPORT_MODEL = Stage("import_model", 1, "model", ImportedModel, _import_model)
GENERATE = Stage("generate", 1, "images", GenerateConfig, _generate, accelerated=True)
IMPORT_AUTOENCODER = Stage(
    "import_autoencoder", 1, "autoencoder", AutoencoderConfig, _import_autoencoder
)
ENCODE = Stage("encode", 1, "latents", EncodeConfig, _encode, accelerated=True)
GENERATE_LATENTS = Stage(
    "generate_latents", 1, "latents", GenerateConfig, _generate_latents, accelerated=True
)
DECODE = Stage("decode", 1, "images", DecodeConfig, _decode, accelerated=True)
CLASSIFIER = Stage(
    "classifier", 1, "classifier", ClassifierStageConfig, _classifier, accelerated=True
)
EXTRACTOR = Stage("extractor", 1, "extractor", ExtractorConfig, _extractor)
FEATURES = Stage("features", 3, "features", FeaturesConfig, _features, accelerated=True)
EVALUATE = Stage("evaluate", 2, "metrics", EvaluateConfig, _evaluate)
PREPARE_POINTS = Stage("prepare_points", 1, "points", PointSourceConfig, _prepare_points)
GENERATE_POINTS = Stage(
    "generate_points",
    1,
    "points",
    GeneratePointsConfig,
    _generate_points,
    one_thread=lambda config: True,
    accelerated=True,
)
REFERENCE = Stage("reference", 1, "reference", ReferenceConfig, _reference)
EVALUATE_POINTS = Stage("evaluate_points", 1, "metrics", EvaluatePointsConfig, _evaluate_points)

STAGES: dict[str, Stage[Any]] = {
    stage.name: stage
    for stage in (
        *(PREPARE, PREPARE_KNOWN, IMPORT, MIX, TRAIN, SNAPSHOT, IMPORT_MODEL, GENERATE),
        *(IMPORT_AUTOENCODER, ENCODE, GENERATE_LATENTS, DECODE),
        *(CLASSIFIER, EXTRACTOR, FEATURES, EVALUATE),
        *(PREPARE_POINTS, GENERATE_POINTS, REFERENCE, EVALUATE_POINTS),
    )
}


OUT_OF_MEMORY = "out-of-memory"


def _execution_kept(progress_path: Path, wanted: Execution) -> Execution:
    """The execution that an interrupted stage began with; `wanted` if there is none to go on with.

    Progress from another kind of device is discarded: its bytes could not be matched here. What ran
    out of memory goes on as it is told to now, or it would run out of memory again.
    """
    path, marker = progress_path / "execution.json", progress_path / OUT_OF_MEMORY
    try:
        kept = Execution.model_validate_json(path.read_bytes())
    except (FileNotFoundError, ValidationError):
        kept = None
    if kept and kept.device.split(":")[0] == wanted.device.split(":")[0]:
        if marker.exists():
            write_atomically(path, wanted.model_dump_json())
            marker.unlink()
            return wanted
        here_and_now = wanted.model_dump(include={"device", "num_processes"})
        return kept.model_copy(update={**here_and_now, "files": wanted.files})
    if progress_path.exists():
        shutil.rmtree(progress_path)
    progress_path.mkdir(parents=True)
    write_atomically(path, wanted.model_dump_json())
    return wanted


def _known_stage(request: StageRequest) -> Stage[Any]:
    stage = STAGES.get(request.stage)
    if stage is None or (stage.version, stage.kind) != (request.version, request.kind):
        raise BadInput(
            f"no stage {request.stage} version {request.version} here; stages: "
            + ", ".join(f"{s.name} v{s.version}" for s in STAGES.values())
        )
    return stage


def run_stage(
    store: Store,
    request: StageRequest,
    execution: Execution,
    *,
    computed_by: str | None = None,
    progress: Progress = no_progress,
) -> ArtifactRef:
    """The artifact of `request`: read from the store if whole, else computed (and resumed).

    Two callers at once: one computes, the other waits and reads.

    Args:
        computed_by: written into the record if this call computes, so that the caller can tell.

    Raises:
        SimsError: bad input, a full disk, divergence; progress made so far is kept.
    """
    stage = _known_stage(request)
    ref = request.ref
    with explain_disk_errors(store.root), store.lock(ref):
        if store.is_whole(ref):
            return ref
        if store.path(ref).exists():
            logger.warning("damaged, computing it again: %s", store.damage(ref)[0])
        _compute(store, stage, request, execution, computed_by or f"pid-{os.getpid()}", progress)
    return ref


def _compute(
    store: Store,
    stage: Stage[Any],
    request: StageRequest,
    execution: Execution,
    computed_by: str,
    progress: Progress,
) -> None:
    import torch

    ref = request.ref
    started = time.monotonic()
    progress_path = store.progress_path(ref)
    config = stage.config.model_validate(request.config)
    if stage.one_thread(config):
        execution = execution.model_copy(update={"threads": 1})
    execution = _execution_kept(progress_path, execution)
    directory, state = progress_path / "artifact", progress_path / "state"
    if directory.exists():  # killed while it was being filled: only `state` is worth keeping
        shutil.rmtree(directory)
    directory.mkdir()
    state.mkdir(exist_ok=True)
    torch.set_num_threads(execution.threads)
    context = StageContext(
        stage=stage.name,
        config=config,
        inputs=request.inputs,
        store=store,
        directory=directory,
        state=state,
        execution=execution,
        progress=progress,
    )
    try:
        details = stage.compute(context)
    except OutOfMemory:
        (progress_path / OUT_OF_MEMORY).touch()
        raise
    except BadInput:  # refused: nothing of it is worth keeping, unless a part was made before
        if not any(state.iterdir()):
            shutil.rmtree(progress_path)
        raise
    _commit(store, request, directory, execution, details)
    record = Record(
        computed_by=computed_by,
        finished=datetime.now(UTC).isoformat(timespec="seconds"),
        seconds=round(time.monotonic() - started, 3),
    )
    store.write_record(ref, record)
    shutil.rmtree(progress_path)


def _commit(
    store: Store,
    request: StageRequest,
    directory: Path,
    execution: Execution,
    details: Mapping[str, Any],
) -> None:
    """Turns the filled folder into the artifact, and says in its manifest how it was computed."""
    store.commit(
        request,
        directory,
        execution={
            **execution.model_dump(include={"device", "threads", "sampling_batch_size"}),
            **execution.model_dump(include=HOW_TO_COMPUTE, exclude_defaults=True),
        },
        libraries={
            "python": platform.python_version(),
            **{name: library_version(name) for name in LIBRARIES},
        },
        details=details,
    )
