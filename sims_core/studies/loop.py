"""Self-consuming loops as data: every stage of every generation, planned before any work starts.

An artifact's digest depends on configuration and on other digests only, so the whole graph is known
up front: what a run would compute, what it would find in the store, and which stages arms share.

Two synthetic sets exist and never share a name or a seed: `self_synthetic` S, drawn from the base
inside the method, and the loop's `pollution` D_s^t, the first images of G^(t-1) as it is used.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import cached_property
from typing import ClassVar

from pydantic import Field, ValidationError

from sims_core.common import roles
from sims_core.common.errors import BadInput
from sims_core.common.frozen import Frozen, one_line
from sims_core.methods.catalog import MethodConfig
from sims_core.store.artifacts import ArtifactRef
from sims_core.studies.experiment import Experiment
from sims_core.studies.plan import Foreseen, Group, PlannedStage, slug
from sims_core.studies.planner import Planner, Pollution, Setup, plan_setup

logger = logging.getLogger("sims_core.studies")

MOST_ARMS = 1000
"""Of one run, with all its seeds: each is a folder, a curve and rows of a table."""


class LoopKind(StrEnum):
    """What D^t is made of for t >= 2 (MAD paper, arXiv 2307.01850)."""

    fully_synthetic = "fully_synthetic"
    """Images of G^(t-1) only."""
    synthetic_augmentation = "synthetic_augmentation"
    """The fixed real data and images of G^(t-1)."""
    fresh_data = "fresh_data"
    """A new draw of real data in each generation, and images of G^(t-1)."""


class Accumulation(StrEnum):
    """Which earlier generations D^t's synthetic part comes from."""

    replace_ = "replace"
    """|D_s| images of G^(t-1)."""
    accumulate = "accumulate"
    """|D_s| images of each of G^1 .. G^(t-1): the synthetic part grows."""
    fixed_budget = "fixed_budget"
    """|D_s| images in all, split as evenly as can be over G^1 .. G^(t-1)."""


class Arm(Frozen):
    """One method with its settings in one loop: a curve in the figure."""

    method: MethodConfig
    loop: LoopKind
    pollution_size: int = Field(ge=1)
    """|D_s^t|: how many images of G^(t-1) enter D^t."""
    accumulation: Accumulation = Accumulation.replace_
    real_fraction: float | None = Field(default=None, ge=0, le=1)
    """How often a training draws from the real part of D^t, t >= 2; None: as often as each image
    of all, by counts. 0 is the fully synthetic loop, 1 a model of real data in each generation."""
    class_guidance: float | None = Field(default=None, ge=0)
    """w of the sampler's classifier-free guidance; None: the experiment's."""

    @property
    def name(self) -> str:
        name = f"{self.method.label} |D_s|={self.pollution_size}"
        if self.real_fraction is not None:
            name += f" real_fraction={self.real_fraction:g}"
        return f"{name} lambda={1 / (1 + w):.6g}" if (w := self.class_guidance) else name

    @property
    def is_baseline(self) -> bool:
        """Whether other methods in the same loop are compared with it."""
        return self.method.IS_BASELINE

    @property
    def slug(self) -> str:
        """The name as a folder's name."""
        return slug(self.name)


@dataclass(frozen=True)
class ArmPlan:
    """An arm's stages in an order in which they can run."""

    arm: Arm
    stages: tuple[PlannedStage, ...]
    seed: int
    """Of its models; data and what measures them are those of the run's first seed."""
    one_of_several: bool = False
    """Whether the run has the arm for other seeds too, so that names tell which this is."""

    @property
    def name(self) -> str:
        """Its name among all of a run."""
        return f"{self.arm.name} seed={self.seed}" if self.one_of_several else self.arm.name

    @property
    def slug(self) -> str:
        """The name as a folder's name."""
        return f"{self.arm.slug}_seed{self.seed}" if self.one_of_several else self.arm.slug

    @property
    def generations(self) -> int:
        """How many it has; in a run that goes on, fewer than others may have."""
        return max(self._by_generation, default=0)

    def artifacts(self, t: int) -> dict[str, ArtifactRef]:
        """Role to artifact of generation t."""
        return self._by_generation.get(t, {})

    @cached_property
    def _by_generation(self) -> dict[int, dict[str, ArtifactRef]]:
        found: dict[int, dict[str, ArtifactRef]] = {}
        for stage in self.stages:
            found.setdefault(stage.t, {})[stage.role] = stage.ref
        return found


@dataclass(frozen=True)
class LoopPlan(Foreseen):
    """`setup` (data, classifier, reference features), then the arms, for one seed after another."""

    REPORT: ClassVar[str] = "sims_core.reports.loop:LOOP"

    experiment: Experiment
    generations: int
    seed: int
    """The first seed: that of data and evaluation."""
    setup: tuple[PlannedStage, ...]
    arms: tuple[ArmPlan, ...]
    scan: tuple[ArmPlan, ...] = ()
    """Arms of one generation: self-improvement over omega and budget."""
    further_seeds: tuple[int, ...] = ()

    @property
    def seeds(self) -> tuple[int, ...]:
        """Each arm is made once for each of them."""
        return (self.seed, *self.further_seeds)

    def of_seed(self, seed: int) -> LoopPlan:
        """The same run with the arms of one of its seeds only."""
        arms, scan = (
            tuple(arm for arm in group if arm.seed == seed) for group in (self.arms, self.scan)
        )
        return replace(self, arms=arms, scan=scan, further_seeds=())

    @property
    def scan_stages(self) -> tuple[PlannedStage, ...]:
        """The scan's stages, each once, though its arms share most of them."""
        stages = {stage.ref: stage for arm in self.scan for stage in arm.stages}
        return tuple(stages.values())

    @property
    def groups(self) -> list[Group]:
        """The stages in the order in which a run does them, each group with its arm's name."""
        arms = [(arm.name, arm.stages) for arm in self.arms]
        return [("", self.setup), *arms, ("first generation", self.scan_stages)]

    @property
    def parts(self) -> list[Group]:
        """The arms, and those of the scan."""
        arms = [(arm.name, arm.stages) for arm in self.arms]
        return [*arms, *((f"first generation, {arm.name}", arm.stages) for arm in self.scan)]

    @property
    def links(self) -> list[tuple[str, ArtifactRef]]:
        """What a run's folder shows of the store, by path."""
        return [
            (f"arms/{arm.slug}/t={stage.t:02d}/{stage.role.replace(' ', '_')}", stage.ref)
            for arm in self.arms
            for stage in arm.stages
        ]

    @property
    def baselines(self) -> list[int]:
        """For each arm the number of the baseline's in the same loop, of the same seed; its own if
        there is none."""
        found = {_loop_of(arm): n for n, arm in enumerate(self.arms) if arm.arm.is_baseline}
        return [found.get(_loop_of(arm), n) for n, arm in enumerate(self.arms)]


def _loop_of(plan: ArmPlan) -> tuple[object, ...]:
    """What arms have in common that are compared with each other."""
    arm = plan.arm
    mixed = (arm.pollution_size, arm.loop, arm.accumulation, arm.real_fraction)
    return plan.seed, *mixed, arm.class_guidance


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
    pollution, share = _pollution(arm, earlier) if earlier else [], arm.real_fraction
    if earlier and (arm.loop is LoopKind.fully_synthetic or share == 0):
        return planner.mix(roles.MIX, None, pollution)
    kept = planner.kind.real_part(planner, real, fresh=arm.loop is LoopKind.fresh_data)
    if not pollution or share == 1:
        return planner.mix(roles.MIX, kept, [])
    return planner.mix(roles.MIX, kept, pollution, share)


def _plan_generation(
    planner: Planner, arm: Arm, setup: Setup, earlier: Sequence[ArtifactRef]
) -> ArtifactRef:
    """One generation: mix, train, what the method adds, sample, measure.

    Returns:
        What G^t generated, as networks see it.
    """
    data = _training_data(planner, arm, setup.real, earlier)
    base = planner.base(data)
    sampled = arm.method.models(planner, data, base)
    return planner.kind.generation(planner, setup, sampled, at_least=arm.pollution_size)


def _experiment_of(arm: Arm, experiment: Experiment) -> Experiment:
    """The experiment with the arm's own sampling.

    Raises:
        BadInput: the networks are not made for it.
    """
    if arm.class_guidance in (None, experiment.sampler.class_guidance):
        return experiment
    sampler = experiment.sampler.model_copy(update={"class_guidance": arm.class_guidance})
    try:
        return Experiment.model_validate({**dict(experiment), "sampler": sampler})
    except ValidationError as error:
        raise BadInput(f"arm {arm.name}: {one_line(error).removeprefix('value: ')}") from None


def plan_arm(
    experiment: Experiment, arm: Arm, generations: int, seed: int, setup: Setup
) -> ArmPlan:
    """Every stage of one arm, without the setup that it shares with the others."""
    experiment = _experiment_of(arm, experiment)
    planner = Planner(experiment, seed)
    generated: list[ArtifactRef] = []
    for t in range(1, generations + 1):
        planner.t = t
        generated.append(_plan_generation(planner, arm, setup, generated))
    return ArmPlan(arm, tuple(planner.stages), seed)


def plan_loop(
    experiment: Experiment,
    arms: tuple[Arm, ...],
    generations: int,
    seed: int,
    scan: tuple[Arm, ...] = (),
    further_seeds: tuple[int, ...] = (),
) -> LoopPlan:
    """Every stage of `generations` generations of each arm, and of the first of each scan arm.

    Args:
        seed: that of data and evaluation, and of a first model of every arm.
        further_seeds: every arm is made once more for each of them, on the same real data.

    Raises:
        BadInput: no arm or too many, the same arm or seed twice, no generation, or real data to be
            drawn in a loop that has none.
    """
    if generations < 1:
        raise BadInput(f"generations is {generations}; it must be at least 1")
    if (count := (len(arms) + len(scan)) * (1 + len(further_seeds))) > MOST_ARMS:
        raise BadInput(f"{count:,} arms are asked for, of at most {MOST_ARMS:,}: run them in parts")
    names = [arm.name for arm in arms]
    if not arms or len(set(names)) < len(names):
        raise BadInput(f"arms must be at least one and all different, got {names}")
    if any(a.loop is LoopKind.fully_synthetic and a.real_fraction is not None for a in arms):
        raise BadInput(
            "loop fully_synthetic has no real part whose real_fraction could be set: leave it out, "
            f"or choose loop={LoopKind.synthetic_augmentation}"
        )
    if generations > 1 and experiment.base.imported and experiment.base.later is None:
        logger.warning(
            "generation 1 is the imported %s; later ones are trained from scratch by the recipe of "
            "this experiment, as the MAD paper's are, so that the step from 1 to 2 shows the "
            "change of recipe as well (base.later=fine_tune: fine-tuned from it)",
            experiment.base.imported,
        )
    seeds = (seed, *further_seeds)
    if len(set(seeds)) < len(seeds):
        raise BadInput(f"seeds must be all different, got {list(seeds)}")
    setup, shared = plan_setup(experiment, seed)

    def planned(chosen: tuple[Arm, ...], through: int) -> tuple[ArmPlan, ...]:
        return tuple(
            replace(plan_arm(experiment, arm, through, each, setup), one_of_several=len(seeds) > 1)
            for each in seeds
            for arm in chosen
        )

    return LoopPlan(
        *(experiment, generations, seed, shared),
        arms=planned(arms, generations),
        scan=planned(scan, 1),
        further_seeds=further_seeds,
    )
