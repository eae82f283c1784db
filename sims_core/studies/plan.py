"""What a plan is: every stage of a study, known before any work starts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import ClassVar, Protocol, Self

from sims_core.store.artifacts import ArtifactRef, StageRequest
from sims_core.store.store import Store
from sims_core.studies.experiment import Experiment


@dataclass(frozen=True)
class PlannedStage:
    """One node of the graph. `t` is the generation, 0 for what all arms share."""

    t: int
    role: str
    request: StageRequest
    model: str = ""
    """Which model it measures, in a study over models."""

    @property
    def label(self) -> str:
        """What the terminal and Prefect's pages call it."""
        if self.model:
            return f"{self.model}: {self.role}"
        return f"t={self.t:02d} {self.role}" if self.t else self.role

    @property
    def ref(self) -> ArtifactRef:
        """The artifact that it makes."""
        return self.request.ref


Group = tuple[str, tuple[PlannedStage, ...]]
"""Stages that belong together, and the name of their arm or phase (empty: all share them)."""


class ByRole:
    """What is made of stages, of which each is found by its role."""

    stages: tuple[PlannedStage, ...]

    def __getitem__(self, role: str) -> ArtifactRef:
        return next(stage.ref for stage in self.stages if stage.role == role)


def each_once(groups: Iterable[Group]) -> list[Group]:
    """The groups, each stage only in the first of them that has it."""
    seen: set[ArtifactRef] = set()

    def new(stages: Iterable[PlannedStage]) -> Iterator[PlannedStage]:
        for stage in stages:
            if stage.ref not in seen:
                seen.add(stage.ref)
                yield stage

    return [(name, tuple(new(stages))) for name, stages in groups]


def slug(name: str) -> str:
    """A model's or stage's name as (part of) a path in a run's folder."""
    name = name.replace(": ", "/").replace(" ", "_").replace(",", "_")
    return name.replace("|", "").replace("=", "")


class Plan(Protocol):
    """A kind of study. Whoever runs it or reports on it needs to know no more than this."""

    REPORT: ClassVar[str]
    """`module:object` of its `sims_core.reports.base.Report`."""

    @property
    def experiment(self) -> Experiment: ...

    @property
    def seed(self) -> int:
        """Every random number of the run derives from it."""

    @property
    def setup(self) -> tuple[PlannedStage, ...]:
        """The stages that all others share."""

    @property
    def groups(self) -> list[Group]:
        """The stages in the order in which a run does them."""

    @property
    def parts(self) -> list[Group]:
        """What can be computed side by side, by name: an arm, a model. They may need, and share,
        stages that belong to none of them."""

    @property
    def links(self) -> list[tuple[str, ArtifactRef]]:
        """What a run's folder shows of the store, by path."""

    @property
    def undecided(self) -> int:
        """How many stages depend on what others find, and are not planned yet."""

    def completed(self, store: Store) -> Self:
        """The plan with the stages that depend on what earlier ones found.

        Its groups begin with those of this plan.

        Raises:
            DamagedArtifact: what decides on them is not in the store.
        """

    def __iter__(self) -> Iterator[PlannedStage]: ...


class Grouped:
    """A plan goes through the stages of its groups, one after the other."""

    @property
    def groups(self) -> list[Group]:
        raise NotImplementedError

    def __iter__(self) -> Iterator[PlannedStage]:
        for _, stages in self.groups:
            yield from stages


class Foreseen(Grouped):
    """A plan of which no stage depends on what others find."""

    @property
    def undecided(self) -> int:
        """None: how many stages depend on what others find."""
        return 0

    def completed(self, store: Store) -> Self:
        """The plan with the stages that depend on what earlier ones found: itself."""
        return self
