"""What a self-improvement study tries and measures: methods at strengths and budgets."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from pydantic import Field

from sims_core.common import roles
from sims_core.common.frozen import Frozen
from sims_core.common.seeding import MOST_IMAGES
from sims_core.methods.catalog import Method, MethodConfig
from sims_core.methods.fine_tuned import FineTuned
from sims_core.methods.self_synthetic import SelfSynthetic
from sims_core.store.artifacts import ArtifactRef
from sims_core.studies.plan import ByRole, PlannedStage

RANGE = MOST_IMAGES
"""S, selection, final and preview images have seeds in four ranges of this length."""


class Sweep(Frozen):
    """What is tried, and on how many images."""

    methods: tuple[MethodConfig, ...]
    """Each at each strength; their own budgets do not count."""
    budgets_mimg: tuple[float, ...]
    n_s: int = Field(ge=1, le=RANGE)
    select_images: int = Field(ge=2, le=RANGE)
    final_images: int = Field(ge=2, le=RANGE)
    finalists: int = Field(ge=1)
    """Of each method."""
    final_repeats: int = Field(default=1, ge=1)
    """On how many disjoint sets of images each final is measured."""


class Candidate(Frozen):
    """A model to measure."""

    method: MethodConfig | None = None
    """None: the base as it is."""

    @property
    def kind(self) -> str:
        """Which method it is of; `base` is none."""
        return self.method.kind.replace("_", "-") if self.method else "base"

    @property
    def strength(self) -> float:
        """How strongly the method is applied; 0 for the base."""
        return self.method.strength if self.method else 0.0

    @property
    def strength_name(self) -> str:
        """What the strength is called: `omega`, `w`; empty where the method has none."""
        listed = self.method.STRENGTHS if self.method else None
        return (listed or "").removesuffix("s")

    @property
    def budget_mimg(self) -> float | None:
        """Million images that the method trains on beyond the base; None: it trains nothing."""
        return self.method.extra_mimg if self.method else None

    @property
    def label(self) -> str:
        """Its method at its strength."""
        if self.method is None or self.method.STRENGTHS is None:
            return self.kind
        return self.method.label

    @property
    def name(self) -> str:
        """Its name among all of a study."""
        if self.budget_mimg is None:
            return self.label
        return f"{self.label} B={1000 * self.budget_mimg:g}k"


BASE = Candidate()


@dataclass(frozen=True)
class Measurement(ByRole):
    """The stages that sample and evaluate one candidate of one seed."""

    candidate: Candidate
    seed: int
    repeat: int
    """Which of the sets of images of a final, from 1 on."""
    name: str
    """The candidate's, with its seed and repeat where there are several."""
    stages: tuple[PlannedStage, ...]

    @property
    def artifacts(self) -> list[ArtifactRef]:
        """All that its stages make."""
        return [stage.ref for stage in self.stages]

    @property
    def first_seed(self) -> int:
        """The seed of its first image."""
        sampled = next(stage for stage in self.stages if stage.role.startswith(roles.GENERATE))
        seed: int = sampled.request.config["first_seed"]
        return seed


def compared(sweep: Sweep) -> list[Method]:
    """The methods that are compared with the base, which is standard training's."""
    return [method for method in sweep.methods if not method.IS_BASELINE]


def has_contrast(sweep: Sweep) -> bool:
    """Whether the base fine-tuned on S is measured: where any method fine-tunes it."""
    return any(isinstance(method, SelfSynthetic) for method in compared(sweep))


def candidates(sweep: Sweep, contrast: FineTuned) -> tuple[Candidate, ...]:
    """The base, then for each budget the contrast and every method with that budget.

    A method that knows no budget is there once.
    """

    def all_of_them() -> Iterator[Candidate]:
        yield BASE
        for budget in sorted(set(sweep.budgets_mimg)):
            if has_contrast(sweep):
                yield Candidate(method=contrast.with_budget(budget))
            for method in compared(sweep):
                yield Candidate(method=method.with_budget(budget))

    found = {each.name: each for each in all_of_them()}
    return tuple(found.values())


def kinds(chosen: Sequence[Candidate], sweep: Sweep) -> dict[str, list[Candidate]]:
    """The candidates of each method that was asked for, in the order in which it was."""
    asked = [Candidate(method=method).kind for method in compared(sweep)]
    return {kind: [each for each in chosen if each.kind == kind] for kind in dict.fromkeys(asked)}
