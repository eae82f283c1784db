"""Points of a Gaussian, replicated: all is known, so that distances are exact."""

from __future__ import annotations

from typing import ClassVar, cast

from sims_core.common import purposes, roles
from sims_core.common.seeding import derive_seed
from sims_core.data.config import GaussianData, PointSourceConfig
from sims_core.data.stages import PREPARE_POINTS
from sims_core.evaluation.config import EvaluatePointsConfig, ReferenceConfig
from sims_core.evaluation.stages import EVALUATE_POINTS, REFERENCE
from sims_core.methods.base import Sampled
from sims_core.nets.config import ModelConfig, PointNet
from sims_core.sampling.config import GeneratePointsConfig
from sims_core.sampling.stages import GENERATE_POINTS
from sims_core.store.artifacts import ArtifactRef
from sims_core.studies.experiment import Experiment
from sims_core.studies.planner import Kind, Planner, Setup


class Points(Kind):
    """Replicates of points in d dimensions, drawn anew for each of them."""

    REPORT: ClassVar[str] = "sims_core.reports.points:POINTS"
    NO_SWEEP: ClassVar[str] = (
        "self-improvement is for images; for points see scan_omegas of sims-loop"
    )

    def check(self, experiment: Experiment) -> None:
        data, net = _data(experiment), experiment.model.net
        if not isinstance(net, PointNet):
            raise ValueError(f"a {net.kind} network cannot model {data.source} data")
        net.for_data(data.dim, data.replicates)
        if experiment.sampler.precision != "fp32":
            raise ValueError("sampler.precision must be fp32 for points")
        if experiment.sampler.class_guidance:
            raise ValueError(
                "points have no classes: set sampler.class_guidance=0; the sampling bias of an "
                "exact Gaussian is model.net.sampling_bias"
            )
        if experiment.training.augment:
            raise ValueError(
                f"training.augment {experiment.training.augment} needs a network that is told of "
                "it, and model.net is not: set training.augment=0"
            )
        for name, other in experiment.auxiliary_nets.items():
            if not isinstance(other, PointNet):
                raise ValueError(f"{name} is a {other.kind} network, model.net is {net.kind!r}")
            other.for_data(data.dim, data.replicates)

    def fitted(self, experiment: Experiment, model: ModelConfig) -> ModelConfig:
        data = _data(experiment)
        net = cast(PointNet, model.net).for_data(data.dim, data.replicates)
        return model.model_copy(update={"net": net})

    def setup(self, planner: Planner) -> Setup:
        data, evaluation = _data(planner.experiment), planner.experiment.point_evaluation
        source = _source(planner, data.num_points, purposes.DATA)
        real = planner.add(roles.PREPARE_DATA, PREPARE_POINTS.request(source))
        config = ReferenceConfig(
            source=_source(planner, evaluation.num_points, purposes.REFERENCE),
            empirical_points=evaluation.empirical_points,
        )
        return Setup(real, {"reference": planner.add(roles.REFERENCE, REFERENCE.request(config))})

    def real_part(self, planner: Planner, real: ArtifactRef, fresh: bool) -> ArtifactRef:
        if not fresh or planner.t == 1:
            return real
        data = _data(planner.experiment)
        count = data.fresh_points or data.num_points
        source = _source(planner, count, purposes.FRESH_DATA, planner.t)
        return planner.add(roles.FRESH_DATA, PREPARE_POINTS.request(source))

    def training_set(
        self, planner: Planner, role: str, real: ArtifactRef | None, synthetic: ArtifactRef
    ) -> ArtifactRef:
        """A training reads a set of points as it is: nothing is mixed where there is only one."""
        if real is None:
            return synthetic
        return super().training_set(planner, role, real, synthetic)

    def draw(
        self, planner: Planner, role: str, count: int, first_seed: int, sampled: Sampled
    ) -> ArtifactRef:
        config = GeneratePointsConfig(
            **dict(planner.guidance(sampled)),
            sampler=planner.experiment.sampler,
            sampling_bias=cast(PointNet, planner.experiment.model.net).covariance_factor,
            count=count,
            seed=first_seed,
        )
        return planner.add(role, GENERATE_POINTS.request(config, **sampled.inputs))

    def generation(
        self, planner: Planner, setup: Setup, sampled: Sampled, at_least: int
    ) -> ArtifactRef:
        evaluation = planner.experiment.point_evaluation
        count, seed = max(evaluation.num_points, at_least), planner.stage_seed(purposes.GENERATE)
        generated = self.draw(planner, roles.GENERATE, count, seed, sampled)
        config = EvaluatePointsConfig(
            num_points=evaluation.num_points,
            empirical_points=evaluation.empirical_points,
            bootstrap=evaluation.bootstrap,
            seed=derive_seed(planner.seed, purposes.EVALUATE),
        )
        request = EVALUATE_POINTS.request(config, generated=generated, **setup.references)
        planner.add(roles.EVALUATE, request)
        return generated


def _data(experiment: Experiment) -> GaussianData:
    return cast(GaussianData, experiment.data)


def _source(planner: Planner, count: int, *purpose: str | int) -> PointSourceConfig:
    """`count` points of the true Gaussian, with a seed of their own for each purpose."""
    data = _data(planner.experiment)
    return PointSourceConfig(
        mean=data.mean,
        covariance=data.covariance,
        replicates=data.replicates,
        count=count,
        seed=derive_seed(planner.seed, *purpose),
    )


POINTS = Points()
