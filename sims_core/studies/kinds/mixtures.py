"""Points of a mixture of Gaussians, replicated: its components are classes that are known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar, cast

from sims_core.common import purposes, roles
from sims_core.common.errors import BadInput
from sims_core.common.seeding import derive_seed
from sims_core.data.config import MixtureData, MixtureSourceConfig
from sims_core.data.groups import GroupMix, RejectConfig, ReweighConfig
from sims_core.data.stages import PREPARE_MIXTURE, REJECT_POINTS, REWEIGH_POINTS
from sims_core.engine.stage import Stage
from sims_core.evaluation.config import EvaluateAgainstPointsConfig, LabelPointsConfig
from sims_core.evaluation.stages import EVALUATE_AGAINST_POINTS, LABEL_POINTS
from sims_core.methods.base import Sampled
from sims_core.nets.config import ExactGaussianConfig
from sims_core.store.artifacts import ArtifactRef
from sims_core.studies.experiment import Experiment
from sims_core.studies.kinds.points import Points
from sims_core.studies.planner import Planner, Setup
from sims_core.studies.shift_kind import Labeller, Purpose, ShiftKind, ShiftSetup


class Mixtures(Points):
    """Replicates of points of one mixture."""

    REPORT: ClassVar[str] = "sims_core.reports.mixtures:MIXTURES"
    SHIFT: ClassVar[str] = "sims_core.studies.kinds.mixtures:SHIFT_MIXTURES"

    def check(self, experiment: Experiment) -> None:
        super().check(experiment)
        if isinstance(experiment.model.net, ExactGaussianConfig):
            raise ValueError("model.net exact_gaussian has one component, a mixture has several")

    def setup(self, planner: Planner) -> Setup:
        data = _data(planner.experiment)
        source = _source(planner, data.num_points, purposes.DATA)
        real = planner.add(roles.PREPARE_DATA, PREPARE_MIXTURE.request(source))
        return Setup(real, {})

    def generation(
        self, planner: Planner, setup: Setup, sampled: Sampled, at_least: int
    ) -> ArtifactRef:
        raise BadInput("gaussian_mixture data are for distribution-shift only")


class ShiftMixtures(ShiftKind):
    """Components are told by Bayes' rule, which needs no classifier: the judge is the truth."""

    SAMPLES: ClassVar[str] = "points"
    REJECT: ClassVar[Stage[RejectConfig]] = REJECT_POINTS

    def num_classes(self, experiment: Experiment) -> int:
        return len(_data(experiment).mixture.means)

    def setup(self, planner: Planner) -> ShiftSetup:
        data = _data(planner.experiment)
        real = planner.kind.setup(planner).real
        return ShiftSetup(
            real=real,
            num_real=data.num_points,
            labeller={},
            judge={},
            references=_references(planner, data.mixture.weights),
            extractor={},
        )

    def target_references(
        self, planner: Planner, setup: ShiftSetup, target: GroupMix, seed: int
    ) -> dict[str, ArtifactRef]:
        """New points of the mixture whose groups have the target's shares."""
        weights = list(_data(planner.experiment).mixture.weights)
        for classes, share in zip(target.groups, target.shares, strict=True):
            whole = sum(weights[number] for number in classes)
            for number in classes:
                weights[number] *= share / whole
        return _references(planner, weights)

    def draw(
        self,
        planner: Planner,
        role: str,
        count: int,
        purpose: Purpose,
        sampled: Sampled,
        part: int = 0,
    ) -> ArtifactRef:
        """A preview of points is the points themselves."""
        purpose = "final" if purpose == "preview" else purpose
        path = {"selection": purposes.SELECT, "final": purposes.GENERATE}[purpose]
        seed = derive_seed(planner.seed, path, planner.t, part)
        return planner.kind.draw(planner, role, count, seed, sampled)

    def label(self, planner: Planner, role: str, samples: ArtifactRef, by: Labeller) -> ArtifactRef:
        config = LabelPointsConfig(mixture=_data(planner.experiment).mixture)
        return planner.add(role, LABEL_POINTS.request(config, points=samples))

    def reweigh(
        self,
        planner: Planner,
        role: str,
        samples: ArtifactRef,
        config: ReweighConfig,
        labels: ArtifactRef | None,
    ) -> ArtifactRef:
        if labels is None:
            labels = self.label(planner, f"{roles.LABEL} real", samples, {})
        return planner.add(role, REWEIGH_POINTS.request(config, points=samples, labels=labels))

    def measure(
        self,
        planner: Planner,
        setup: ShiftSetup,
        samples: ArtifactRef,
        references: Mapping[str, ArtifactRef],
    ) -> None:
        evaluation = planner.experiment.point_evaluation
        config = EvaluateAgainstPointsConfig(
            empirical_points=evaluation.empirical_points,
            bootstrap=evaluation.bootstrap,
            seed=derive_seed(planner.seed, purposes.EVALUATE),
        )
        request = EVALUATE_AGAINST_POINTS.request(config, generated=samples, **references)
        planner.add(roles.EVALUATE, request)

    def check_count(self, experiment: Experiment, name: str, count: int) -> Experiment:
        fewest = experiment.point_evaluation.empirical_points
        if count < fewest:
            raise BadInput(f"{name} {count} is below point_evaluation.empirical_points, {fewest}")
        return experiment


def _data(experiment: Experiment) -> MixtureData:
    return cast(MixtureData, experiment.data)


def _source(planner: Planner, count: int, *purpose: str | int) -> MixtureSourceConfig:
    """`count` points of the true mixture, with a seed of their own for each purpose."""
    data = _data(planner.experiment)
    return MixtureSourceConfig(
        mixture=data.mixture,
        replicates=data.replicates,
        count=count,
        seed=derive_seed(planner.seed, *purpose),
    )


def _references(planner: Planner, weights: Sequence[float]) -> dict[str, ArtifactRef]:
    """Points of the mixture with other weights, and as many again: their distance is the floor."""
    count = planner.experiment.point_evaluation.empirical_points
    found = {}
    for name, purpose in (("reference", purposes.REFERENCE), ("fresh", purposes.FLOOR)):
        source = _source(planner, count, purpose)
        mixture = source.mixture.model_copy(update={"weights": tuple(weights)})
        request = PREPARE_MIXTURE.request(source.model_copy(update={"mixture": mixture}))
        found[name] = planner.add(f"{roles.REFERENCE} {name}", request)
    return found


MIXTURES = Mixtures()
SHIFT_MIXTURES = ShiftMixtures()
