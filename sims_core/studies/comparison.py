"""Metrics between two stored sets of images, without a run.

The stages are those of runs, so that what a set shares with a run (its features, their statistics,
a whole comparison) is computed once for both.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError

from sims_core.common import purposes
from sims_core.common.errors import BadInput, DamagedArtifact
from sims_core.common.frozen import one_line
from sims_core.common.seeding import derive_seed
from sims_core.data.config import (
    Contents,
    DigitsData,
    ImageData,
    ImportedImages,
    ImportedSet,
    KnownImages,
)
from sims_core.data.known_sets import KNOWN_SETS
from sims_core.data.names import DATASETS, images_of
from sims_core.data.stages import data_request
from sims_core.engine.execution import DataFiles
from sims_core.evaluation.config import EvaluationConfig, FeaturesConfig
from sims_core.evaluation.stages import FEATURES
from sims_core.evaluation.weights import INCEPTION_WITHOUT_LOGITS, pin_weights
from sims_core.latents.stages import decode_request
from sims_core.store.artifacts import ArtifactRef, StageRequest
from sims_core.store.store import Store
from sims_core.studies.experiment import Experiment
from sims_core.studies.kinds.images import plan_extractor, plan_image_metrics
from sims_core.studies.plan import PlannedStage
from sims_core.studies.planner import Planner, Setup

Features = Literal["inception", "resnet20", "resnet56", "classifier"]


KNOWN: dict[str, ImageData] = {
    "digits:train": DigitsData(),
    **{
        f"{source}:{split}": KnownImages.model_validate({"source": source, "split": split})
        for source, known in KNOWN_SETS.items()
        for split in known.counts
    },
}
"""Public sets by `<set>:<split>`; the split may be left out where it is `train`."""


FEWEST_DIGITS = 6
"""The fewest digits of a digest's beginning that stand for an artifact."""


FEWEST_IMAGES: int = EvaluationConfig.model_fields["prc_neighborhood"].default + 1
"""That precision and recall can be made from."""


KID_SUBSET_SIZE: int = EvaluationConfig.model_fields["kid_subset_size"].default


@dataclass(frozen=True)
class ImageSource:
    """A set of images that somebody named."""

    name: str
    ref: ArtifactRef
    contents: Contents
    request: StageRequest | None = None
    """What makes it in the store; None: it is there."""
    formats: Mapping[str, int] = field(default_factory=dict)
    """How many pictures of an imported set were encoded how; empty: not known."""
    original_sides: tuple[int, int] | None = None
    """Smallest and largest of the pictures' shorter sides before any resizing, where known."""

    @property
    def shape(self) -> str:
        return f"{self.contents.channels} x {self.contents.height} x {self.contents.width}"


def find_images(store: Store, name: str) -> ImageSource:
    """The set that `name` stands for in this store. Nothing is written.

    Args:
        name: `cifar10`, `cifar10:test`, ...; a name that `sims data import` gave, or `sims data
            encode` (the images decoded again); `images/<first digits>` of an artifact; or the path
            of an artifact's folder, also through a run's links, from here or from the store's root.

    Raises:
        BadInput: it stands for nothing or for more than one thing; says what would be valid.
        DamagedArtifact: it stands for an artifact with a missing or changed file.
    """
    known = KNOWN.get(name) or KNOWN.get(f"{name}:train")
    imported = name in DATASETS.given(store)
    if known and imported:
        raise BadInput(
            f"{name!r} is a public set and a name given by `sims data import`: pass {name}:train "
            "for the public one, or import the other under another name"
        )
    if known:
        return _of_data(name if ":" in name else f"{name}:train", known)
    if imported:
        return of_imported(store, name, DATASETS.find(store, name))
    return _of_artifact(store, name, _by_digest(store, name) or _by_path(store, name))


def of_imported(store: Store, name: str, dataset: ImportedSet) -> ImageSource:
    """An imported set as one that somebody named."""
    source = _of_data(name, ImportedImages(name=name, imported=dataset))
    return replace(source, **_originals(store, dataset))


def _of_data(name: str, data: ImageData) -> ImageSource:
    request = data_request(data)
    if data.encoding is not None:  # what the autoencoder makes of the images
        request = decode_request(data)
    if data.contents is None:
        raise BadInput(f"data set {name!r} was not looked up: see sims_core.studies.resolve")
    return ImageSource(name, request.ref, data.contents, request)


def _originals(store: Store, dataset: ImportedSet) -> dict[str, Any]:
    """What an import noted of its pictures' encoding and size; nothing where it did not."""
    try:
        details = store.manifest(images_of(dataset)).details
    except DamagedArtifact:  # told where the images are read
        return {}
    sides = details.get("original_sides")
    return {
        "formats": details.get("formats", {}),
        "original_sides": (sides[0], sides[1]) if sides else None,
    }


def _of_artifact(store: Store, name: str, ref: ArtifactRef) -> ImageSource:
    from sims_core.data.image_set import read_index

    if not store.is_whole(ref):
        problem = (store.damage(ref) or ["vanished"])[0]
        raise DamagedArtifact(f"{problem}; run the command again that made these images")
    return ImageSource(name, ref, read_index(store.path(ref)).contents)


def _by_digest(store: Store, name: str) -> ArtifactRef | None:
    """The images artifact that `images/<first digits>` stands for; None if `name` is not that."""
    match = re.fullmatch(r"(?:artifacts/)?images/([0-9a-f]{1,64})", name)
    if match is None:
        return None
    digits = match[1]
    if len(digits) < FEWEST_DIGITS:
        raise BadInput(f"{name}: at least {FEWEST_DIGITS} digits of the digest are wanted")
    found = [
        ref for ref in store.artifacts() if ref.kind == "images" and ref.digest.startswith(digits)
    ]
    if not found:
        raise BadInput(
            f"no artifact {name} in the store {store.root}: `sims store ls` lists what there is"
        )
    if len(found) > 1:
        both = " and ".join(ref.short for ref in found[:2])
        raise BadInput(f"{name} is the beginning of {both}: give more digits")
    return found[0]


def _by_path(store: Store, name: str) -> ArtifactRef:
    """The images artifact that lies at a path, from here or from the store's root.

    Raises:
        BadInput: there is no folder, or it is no images artifact of this store.
    """
    path, places = Path(name).expanduser(), []
    with suppress(OSError):  # a name that is too long for a path, or a folder that is not ours
        places = [place for place in (path, store.root / path) if name and place.is_dir()]
    if not places:
        raise BadInput(f"no images {name!r}: {_valid_names(store)}")
    for folder in map(Path.resolve, places):
        kind = folder.parent.name
        if folder.parent.parent != (store.root / "artifacts").resolve():
            continue
        if kind != "images":
            raise BadInput(f"{name} is an artifact of kind {kind}, not images")
        with suppress(ValidationError):
            return ArtifactRef(kind=kind, digest=folder.name)
    raise BadInput(
        f"{name} is no images artifact of the store {store.root} (a run's are its "
        "arms/<arm>/t=01/generate): pass the `store` that it is of, or give a folder of pictures "
        "in by `sims data import`"
    )


def _valid_names(store: Store) -> str:
    public = ", ".join(name.removesuffix(":train") for name in KNOWN)
    imported = ", ".join(DATASETS.given(store)) or "none yet"
    return (
        f"want {public}; a name that `sims data import` gave ({imported}); images/<digits> as "
        f"`sims store ls` prints it; the path of an images artifact's folder in {store.root}; or "
        "of pictures"
    )


def _lossy_share(formats: Mapping[str, int]) -> float:
    """The share of pictures that were JPEG."""
    jpeg = formats.get("JPEG", 0) + formats.get("MPO", 0)
    return jpeg / max(sum(formats.values()), 1)


@dataclass(frozen=True)
class Comparison:
    """`evaluation.num_images` of a set against `reference_count` of another.

    Where that is not all of a set, it is a random sample: a set may be sorted by class.
    """

    images: ImageSource
    reference: ImageSource
    reference_count: int
    evaluation: EvaluationConfig
    seed: int = 0

    def sample_seed(self, role: Literal["images", "reference"]) -> int | None:
        """Seed of the sample that is drawn from a set; None: all of it is taken."""
        reference = role == "reference"
        source = self.reference if reference else self.images
        count = self.reference_count if reference else self.evaluation.num_images
        return (
            derive_seed(self.seed, purposes.SAMPLE, role) if count < source.contents.count else None
        )

    @property
    def warnings(self) -> list[str]:
        """What makes figures of two imported sets mislead: other encodings, other sizes."""
        one, other = self.images, self.reference
        if not one.formats or not other.formats:
            return []
        warnings = []
        lossy = [_lossy_share(each.formats) for each in (one, other)]
        if abs(lossy[0] - lossy[1]) > 0.5:
            jpeg, rest = (one, other) if lossy[0] > lossy[1] else (other, one)
            warnings.append(
                f"most images of {jpeg.name} were JPEG and most of {rest.name} were not: metrics "
                "see the encoding too"
            )
        if one.original_sides and other.original_sides and one.original_sides[1] > 0:
            (low, high), (least, most) = one.original_sides, other.original_sides
            if high < least or most < low:
                warnings.append(
                    f"the images of {one.name} had sides of {low} to {high} pixels before they "
                    f"were imported, those of {other.name} {least} to {most}: metrics see the "
                    "resizing too"
                )
        return warnings

    @property
    def stages(self) -> tuple[PlannedStage, ...]:
        """Every stage once, in an order in which they can run: the metrics' are the last."""
        experiment = Experiment().model_copy(update={"evaluation": self.evaluation})
        planner = Planner(experiment, self.seed)
        reference = self.reference.ref
        trained = self.evaluation.features == "classifier"
        # Missing weights are noticed before anything else is done.
        extractor = {} if trained else plan_extractor(planner, reference)
        for role, source in (("reference", self.reference), ("images", self.images)):
            if source.request is not None:
                planner.add(f"prepare {role}", source.request)
        extractor = extractor or plan_extractor(planner, reference)
        sample = self.sample_seed("reference")
        config = FeaturesConfig(count=self.reference_count, sample_seed=sample)
        request = FEATURES.request(config, images=reference, **extractor)
        features = planner.add("reference features", request)
        setup = Setup(reference, {"features": features}, extractor)
        plan_image_metrics(planner, setup, self.images.ref, self.sample_seed("images"))
        return tuple({stage.ref: stage for stage in planner.stages}.values())


def plan_comparison(
    images: ImageSource,
    reference: ImageSource,
    files: DataFiles,
    *,
    features: Features = "inception",
    count: int | None = None,
    reference_count: int | None = None,
    allow_small_n: bool = False,
    inception_score: bool = False,
    kid_subset_size: int | None = None,
    metrics: Sequence[str] = (),
    seed: int = 0,
) -> Comparison:
    """Checks what is asked for, before any work starts.

    Args:
        files: where the weights of the features are looked for.
        count, reference_count: a random sample of so many images; None is all.
        kid_subset_size: None is 500, or as many as the smaller set has if those are fewer.
        metrics: names of further ones.
        seed: of samples, KID's subsets and a classifier; a run with the same one shares them.

    Raises:
        BadInput: too few images, more than there are, features that do not fit them, or a metric
            that is not known.
    """
    counts = (
        count_of("`count`", count, images),
        count_of("`reference_count`", reference_count, reference),
    )
    _check_features_fit(features, inception_score, images, reference)
    fewest = min(counts)
    if fewest < FEWEST_IMAGES:
        raise BadInput(f"{fewest} images are too few: want at least {FEWEST_IMAGES} of each set")
    subset = _kid_subset(kid_subset_size, fewest)
    try:
        evaluation = EvaluationConfig(
            features=features,
            num_images=counts[0],
            allow_small_n=True,
            inception_score=inception_score,
            kid_subset_size=subset,
            metrics=tuple(metrics),
        )
    except ValidationError as error:
        raise BadInput(one_line(error).removeprefix("value: ")) from None
    if not allow_small_n:
        evaluation = evaluation.model_copy(update={"allow_small_n": False})
        for source, n in zip((images, reference), counts, strict=True):
            check_enough(evaluation, source, n)
    evaluation = pin_weights(evaluation, files)
    _check_logits(evaluation)
    return Comparison(images, reference, counts[1], evaluation, seed)


def _kid_subset(wanted: int | None, fewest: int) -> int:
    subset = min(KID_SUBSET_SIZE, fewest) if wanted is None else wanted
    if not 2 <= subset <= fewest:
        raise BadInput(
            f"`kid_subset_size` {subset} must be from 2 to {fewest}, the images of the smaller set"
        )
    return subset


def _check_logits(evaluation: EvaluationConfig) -> None:
    """Raises BadInput if the Inception Score is wanted of weights that it cannot be made from."""
    if evaluation.inception_score and evaluation.weights_sha256 == INCEPTION_WITHOUT_LOGITS:
        raise BadInput(
            "these Inception weights have no logits layer, which the Inception Score is made from: "
            "leave `inception_score` out, or set SIMS_INCEPTION_WEIGHTS to weights with that layer"
        )


def count_of(option: str, wanted: int | None, source: ImageSource) -> int:
    """How many images are meant. Raises BadInput if there are not so many."""
    available = source.contents.count
    if wanted is not None and not 1 <= wanted <= available:
        raise BadInput(
            f"{option} {wanted} must be from 1 to {available}, the images of {source.name}"
        )
    return wanted or available


def check_enough(evaluation: EvaluationConfig, source: ImageSource, count: int) -> None:
    """Raises BadInput if an FID of so few images would be mostly its bias."""
    fewest, features = evaluation.fewest_images, evaluation.features
    if count >= fewest:
        return
    others = evaluation.model_copy(update={"features": "resnet20"}).fewest_images
    cheaper = f", or other `features` (at least {others})" if others <= count else ""
    raise BadInput(
        f"{count} images of {source.name} are too few for an FID in {features} features: want at "
        f"least {fewest}{cheaper}, or `allow_small_n` to measure all the same"
    )


def _check_features_fit(
    features: Features, inception_score: bool, images: ImageSource, reference: ImageSource
) -> None:
    """Raises BadInput if the features cannot be those of both sets."""
    if inception_score and features != "inception":
        raise BadInput(f"`inception_score` needs `features` inception, not {features}")
    if features == "classifier" and not reference.contents.num_classes:
        raise BadInput(
            f"a classifier is trained on the reference, and the images of {reference.name} have no "
            "class labels: pass other `features`"
        )
    if features != "inception" and images.shape != reference.shape:
        raise BadInput(
            f"the images of {images.name} are {images.shape} (channels x height x width), those of "
            f"{reference.name} {reference.shape}: only `features` inception compares such sets"
        )
