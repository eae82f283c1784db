"""Shifting the mix of a set of labelled images."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, cast

from sims_core.common import purposes, roles
from sims_core.common.errors import BadInput
from sims_core.common.seeding import derive_seed
from sims_core.data.config import ImageData
from sims_core.data.groups import GroupMix, RejectConfig, ReweighConfig
from sims_core.data.stages import REJECT, REWEIGH
from sims_core.engine.stage import Stage
from sims_core.evaluation.config import (
    ClassifierStageConfig,
    FeaturesConfig,
    Half,
    LabelConfig,
)
from sims_core.evaluation.stages import CLASSIFIER, FEATURES, LABEL
from sims_core.methods.base import Sampled
from sims_core.nets.config import ImageNet
from sims_core.store.artifacts import ArtifactRef
from sims_core.studies.candidates import RANGE
from sims_core.studies.experiment import Experiment
from sims_core.studies.image_counts import evaluation_of
from sims_core.studies.kinds.images import plan_image_metrics, plan_images
from sims_core.studies.planner import Planner, Setup
from sims_core.studies.self_improvement import seed_range
from sims_core.studies.shift_kind import Labeller, Purpose, ShiftKind, ShiftSetup


class ShiftImages(ShiftKind):
    """Two classifiers of the labelled real images: each is trained on one half of them."""

    SAMPLES: ClassVar[str] = "images"
    REJECT: ClassVar[Stage[RejectConfig]] = REJECT

    def num_classes(self, experiment: Experiment) -> int:
        data, net = cast(ImageData, experiment.data), cast(ImageNet, experiment.model.net)
        if data.encoding is not None:
            raise BadInput(
                f"distribution-shift is for images, {data.title} are latents: their classes could "
                "only be told of the decoded images"
            )
        if net.num_classes:
            raise BadInput(
                f"model.net.num_classes is {net.num_classes}: a class-conditional model makes the "
                "classes that it is asked for, set it to 0"
            )
        if data.contents is None or not data.contents.num_classes:
            raise BadInput(
                f"distribution-shift needs labelled images, and those of {data.title} have no "
                "labels: import them with `labels` FILE, or from a sub-folder for each class"
            )
        return data.contents.num_classes

    def setup(self, planner: Planner) -> ShiftSetup:
        setup = planner.kind.setup(planner)
        halves = derive_seed(planner.seed, purposes.HALVES)

        def classifier(number: int, role: str, purpose: str) -> dict[str, ArtifactRef]:
            config = ClassifierStageConfig(
                classifier=planner.experiment.evaluation.classifier,
                seed=planner.stage_seed(purpose),
                half=Half.model_validate({"number": number, "seed": halves}),
            )
            request = CLASSIFIER.request(config, images=setup.real)
            return {"classifier": planner.add(role, request)}

        contents = cast(ImageData, planner.experiment.data).contents
        return ShiftSetup(
            real=setup.real,
            num_real=contents.count if contents else 0,
            labeller=classifier(0, roles.TRAIN_LABELLER, purposes.LABELLER),
            judge=classifier(1, roles.TRAIN_JUDGE, purposes.JUDGE),
            references=setup.references,
            extractor=setup.extractor,
        )

    def target_references(
        self, planner: Planner, setup: ShiftSetup, target: GroupMix, seed: int
    ) -> dict[str, ArtifactRef]:
        """The largest set of real images of that mix in which none comes twice: nearest
        neighbours, of which precision and recall are made, are no copies."""
        evaluation = planner.experiment.evaluation
        fewest = max(evaluation.fewest_images, evaluation.kid_subset_size)
        config = ReweighConfig(target=target, at_least=fewest, seed=seed)
        images = self.reweigh(planner, roles.TARGET_REAL, setup.real, config, None)
        request = FEATURES.request(FeaturesConfig(), images=images, **setup.extractor)
        return {"features": planner.add(roles.REAL_FEATURES, request)}

    def draw(
        self,
        planner: Planner,
        role: str,
        count: int,
        purpose: Purpose,
        sampled: Sampled,
        part: int = 0,
    ) -> ArtifactRef:
        """A part begins where the one before it ends, so that parts are one long set."""
        if (part + 1) * count > RANGE:
            raise BadInput(f"{(part + 1) * count} images exceed the {RANGE} seeds of one purpose")
        if purpose == "preview":
            count = planner.experiment.evaluation.num_preview
        first = seed_range(planner.seed, purpose) + part * count
        return plan_images(planner, role, count, first, sampled)[1]

    def label(self, planner: Planner, role: str, samples: ArtifactRef, by: Labeller) -> ArtifactRef:
        return planner.add(role, LABEL.request(LabelConfig(), images=samples, **by))

    def reweigh(
        self,
        planner: Planner,
        role: str,
        samples: ArtifactRef,
        config: ReweighConfig,
        labels: ArtifactRef | None,
    ) -> ArtifactRef:
        given = {} if labels is None else {"labels": labels}
        return planner.add(role, REWEIGH.request(config, images=samples, **given))

    def measure(
        self,
        planner: Planner,
        setup: ShiftSetup,
        samples: ArtifactRef,
        references: Mapping[str, ArtifactRef],
    ) -> None:
        plan_image_metrics(
            planner, Setup(setup.real, dict(references), dict(setup.extractor)), samples
        )

    def check_count(self, experiment: Experiment, name: str, count: int) -> Experiment:
        evaluation = evaluation_of(experiment.evaluation, count, name)
        return experiment.model_copy(update={"evaluation": evaluation})


SHIFT_IMAGES = ShiftImages()
