"""Pollution (SIMS, Fig. 5) as data: second-generation models on real images and polluting ones.

A first-generation model is trained on the real data D_r by standard training, and sampled once.
Second-generation models are then trained on D_r alone ("ideal") and on D_r with the first |D_p| of
those samples ("polluted"), by every method. Nobody knows which images are which: a training set is
one list of images, and a method sees no more of it.

How D_p is made in the paper is not public. Here [O] it is drawn from the standard first-generation
model as it is, and smaller sets are the beginnings of larger ones, so that figures over |D_p|
differ by what is added only.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from pydantic import Field

from sims_core.common import roles
from sims_core.common.errors import BadInput
from sims_core.common.frozen import Frozen
from sims_core.common.seeding import MOST_IMAGES
from sims_core.methods.base import Sampled
from sims_core.methods.catalog import MethodConfig
from sims_core.store.artifacts import ArtifactRef
from sims_core.studies.experiment import Experiment
from sims_core.studies.plan import ByRole, Foreseen, Group, PlannedStage, each_once, slug
from sims_core.studies.planner import Planner, Setup, plan_setup


class Scenario(Frozen):
    """A second-generation model: a method on real data with so many polluting ones."""

    method: MethodConfig
    pollution: int = Field(ge=0, le=MOST_IMAGES)
    """|D_p|; 0 is the ideal scenario, real data only."""
    seed: int
    """That of the models; real data and what measures them are those of the first seed."""

    @property
    def curve(self) -> str:
        """The method as curves are called, whatever |D_p| and the seed are."""
        return self.method.label

    @property
    def name(self) -> str:
        """Its name among all of a run."""
        where = f"|D_p|={self.pollution}" if self.pollution else "ideal"
        return f"{self.method.label} {where} seed={self.seed}"


@dataclass(frozen=True)
class Measured(ByRole):
    """A model of this study and the stages that make and measure it."""

    name: str
    seed: int
    stages: tuple[PlannedStage, ...]
    scenario: Scenario | None = None
    """None: a first-generation model."""


@dataclass(frozen=True)
class PollutionPlan(Foreseen):
    """`setup`, a first-generation model for each seed, then the scenarios."""

    REPORT: ClassVar[str] = "sims_core.reports.pollution:POLLUTION"

    experiment: Experiment
    seeds: tuple[int, ...]
    setup: tuple[PlannedStage, ...]
    first: tuple[Measured, ...]
    """The first-generation models, by seed."""
    second: tuple[Measured, ...]

    @property
    def seed(self) -> int:
        """The first seed: that of data and evaluation."""
        return self.seeds[0]

    @property
    def groups(self) -> list[Group]:
        """The stages in the order in which a run does them, each of them once."""
        models = ((each.name, each.stages) for each in (*self.first, *self.second))
        return each_once([("", self.setup), *models])

    @property
    def parts(self) -> list[Group]:
        """The models."""
        return self.groups[1:]

    @property
    def links(self) -> list[tuple[str, ArtifactRef]]:
        """What a run's folder shows of the store, by path."""
        return [
            (f"models/{slug(each.name)}/{slug(stage.role)}", stage.ref)
            for each in (*self.first, *self.second)
            for stage in each.stages
        ]


def _named(name: str, planner: Planner) -> tuple[PlannedStage, ...]:
    """The stages with the model that they are of, which tells their labels apart."""
    return tuple(replace(stage, model=name) for stage in planner.stages)


def _first_generation(
    experiment: Experiment, seed: int, setup: Setup, at_least: int
) -> tuple[Measured, ArtifactRef]:
    """Standard training on the real data, and at least so many samples of the model."""
    planner = Planner(experiment, seed, t=1)
    base = planner.base(planner.real_mix(setup.real))
    generated = planner.kind.generation(planner, setup, Sampled(base), at_least)
    name = f"first generation seed={seed}"
    return Measured(name, seed, _named(name, planner)), generated


def _second_generation(
    experiment: Experiment, scenario: Scenario, setup: Setup, polluting: ArtifactRef
) -> Measured:
    """The method on real data and the first |D_p| polluting ones."""
    planner = Planner(experiment, scenario.seed, t=2)
    pollution = [(polluting, scenario.pollution)] if scenario.pollution else []
    data = planner.mix(roles.MIX, setup.real, pollution)
    base = planner.base(data)
    sampled = scenario.method.models(planner, data, base)
    planner.kind.generation(planner, setup, sampled, at_least=0)
    return Measured(scenario.name, scenario.seed, _named(scenario.name, planner), scenario)


def plan_pollution(
    experiment: Experiment,
    methods: tuple[MethodConfig, ...],
    sizes: tuple[int, ...],
    seeds: tuple[int, ...],
) -> PollutionPlan:
    """Every stage for each method, each |D_p| (0 is added: the ideal scenario) and each seed.

    Raises:
        BadInput: no method, one twice, no seed or one twice, or a |D_p| below 0.
    """
    labels = [method.label for method in methods]
    if not methods or len(set(labels)) < len(labels):
        raise BadInput(f"methods must be at least one and all different, got {labels}")
    if not seeds or len(set(seeds)) < len(seeds):
        raise BadInput(f"seeds must be at least one and all different, got {list(seeds)}")
    if bad := [size for size in sizes if not 0 <= size <= MOST_IMAGES]:
        raise BadInput(f"pollution_sizes must be from 0 to {MOST_IMAGES}, got {bad[0]}")
    setup, shared = plan_setup(experiment, seeds[0])
    wanted = sorted({0, *sizes})
    first, second = [], []
    for seed in seeds:
        model, generated = _first_generation(experiment, seed, setup, wanted[-1])
        first.append(model)
        for size in wanted:
            for method in methods:
                scenario = Scenario(method=method, pollution=size, seed=seed)
                second.append(_second_generation(experiment, scenario, setup, generated))
    return PollutionPlan(experiment, seeds, shared, tuple(first), tuple(second))
