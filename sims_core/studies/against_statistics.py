"""A set of images against a reference that is a mean and a covariance: FID alone."""

from __future__ import annotations

from dataclasses import dataclass

from sims_core.common import purposes, roles
from sims_core.common.errors import BadInput
from sims_core.common.seeding import derive_seed
from sims_core.engine.execution import DataFiles
from sims_core.evaluation.config import (
    EvaluationConfig,
    FeaturesConfig,
    ReferenceFileConfig,
    StatisticsFidConfig,
)
from sims_core.evaluation.stages import FEATURES, IMPORT_REFERENCE, STATISTICS_FID
from sims_core.evaluation.weights import pin_weights
from sims_core.studies.comparison import Features, ImageSource, check_enough, count_of
from sims_core.studies.experiment import Experiment
from sims_core.studies.kinds.images import plan_extractor
from sims_core.studies.plan import PlannedStage
from sims_core.studies.planner import Planner


@dataclass(frozen=True)
class Measured:
    """A random sample of `count` images of a set, or all of them, in a feature space."""

    images: ImageSource
    count: int
    evaluation: EvaluationConfig
    seed: int = 0
    """What the sample follows from."""

    @property
    def stages(self) -> tuple[PlannedStage, ...]:
        """What stores the images and makes their features; those are the last one's."""
        experiment = Experiment().model_copy(update={"evaluation": self.evaluation})
        planner = Planner(experiment, 0)
        extractor = plan_extractor(planner, self.images.ref)
        if self.images.request is not None:
            planner.add("prepare images", self.images.request)
        sample = None
        if self.count < self.images.contents.count:
            sample = derive_seed(self.seed, purposes.SAMPLE, purposes.IMAGES)
        config = FeaturesConfig(count=self.count, sample_seed=sample)
        request = FEATURES.request(config, images=self.images.ref, **extractor)
        planner.add("features", request)
        return tuple(planner.stages)

    def against(self, sha256: str) -> tuple[PlannedStage, ...]:
        """`stages`, the reference and its FID, which is the last one's."""
        features = self.stages
        planner = Planner(Experiment(), 0)
        config = ReferenceFileConfig(sha256=sha256)
        reference = planner.add(roles.IMPORT_REFERENCE, IMPORT_REFERENCE.request(config))
        measured = StatisticsFidConfig(count=self.count)
        inputs = {"generated": features[-1].ref, "real": reference}
        planner.add("evaluate", STATISTICS_FID.request(measured, **inputs))
        return (*planner.stages[:1], *features, *planner.stages[1:])


def plan_features(
    images: ImageSource,
    files: DataFiles,
    features: Features,
    count: int | None,
    allow_small_n: bool,
    seed: int = 0,
) -> Measured:
    """Checks what is asked for, before any work starts.

    Raises:
        BadInput: too few images, more than there are, or weights that are not there.
    """
    if features == "classifier":
        raise BadInput(
            "a classifier is trained on images, and there is no other set here: pass `features` "
            "inception, resnet20 or resnet56"
        )
    number = count_of("`count`", count, images)
    evaluation = EvaluationConfig(
        features=features,
        num_images=max(number, 2),
        allow_small_n=True,
        kid_subset_size=2,
        prc_neighborhood=1,
    )
    if not allow_small_n:
        strict = evaluation.model_copy(update={"allow_small_n": False})
        check_enough(strict, images, number)
    return Measured(images, number, pin_weights(evaluation, files), seed)
