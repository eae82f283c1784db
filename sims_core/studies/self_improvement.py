"""Self-improvement (Algorithm 1) as data: at which omega and budget does SIMS improve a model?

Base, S and auxiliary are made once; the auxiliary is trained through the largest budget and keeps
a snapshot at every smaller one. Two phases: every (budget, omega) is measured on few images of the
*selection* seeds; the best few then on many of the *final* seeds, which no choice has seen. Beside
them stands the contrast: the base fine-tuned on S, which is the auxiliary taken as a model.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

from pydantic import Field, ValidationError

from sims_core.common import purposes, roles
from sims_core.common.errors import BadInput
from sims_core.common.frozen import Frozen, one_line
from sims_core.common.seeding import MOST_IMAGES, SEED_SPACE, derive_seed
from sims_core.evaluation.config import EvaluationConfig
from sims_core.evaluation.figures import read_metrics
from sims_core.methods.base import Sampled
from sims_core.store.artifacts import ArtifactRef
from sims_core.store.store import Store
from sims_core.studies.experiment import Experiment
from sims_core.studies.kinds.images import plan_image_metrics, plan_images
from sims_core.studies.plan import Group, PlannedStage
from sims_core.studies.planner import Planner, Setup, kind_of, plan_setup
from sims_core.training.config import SnapshotConfig
from sims_core.training.stages import SNAPSHOT

RANGE = MOST_IMAGES
"""S, selection, final and preview images have seeds in four ranges of this length."""


class Sweep(Frozen):
    """What is tried, and on how many images."""

    omegas: tuple[float, ...]
    budgets_mimg: tuple[float, ...]
    n_s: int = Field(ge=1, le=RANGE)
    select_images: int = Field(ge=2, le=RANGE)
    final_images: int = Field(ge=2, le=RANGE)
    finalists: int = Field(ge=1)


class Candidate(Frozen):
    """A model to measure."""

    kind: Literal["base", "fine-tuned", "sims"]
    omega: float = 0.0
    budget_mimg: float | None = None
    """None: the base."""

    @property
    def name(self) -> str:
        if self.budget_mimg is None:
            return "base"
        budget = f"B={1000 * self.budget_mimg:g}k"
        if self.kind == "fine-tuned":
            return f"fine-tuned {budget}"
        return f"sims omega={self.omega:g} {budget}"


@dataclass(frozen=True)
class Measurement:
    """The stages that sample and evaluate one candidate."""

    candidate: Candidate
    stages: tuple[PlannedStage, ...]

    def __getitem__(self, role: str) -> ArtifactRef:
        return next(stage.ref for stage in self.stages if stage.role == role)

    @property
    def artifacts(self) -> list[ArtifactRef]:
        return [stage.ref for stage in self.stages]

    @property
    def first_seed(self) -> int:
        sampled = next(stage for stage in self.stages if stage.role.startswith(roles.GENERATE))
        seed: int = sampled.request.config["first_seed"]
        return seed


@dataclass(frozen=True)
class StudyPlan:
    """`setup`, `training` and `selection`; `finals` once the selection was measured."""

    REPORT: ClassVar[str] = "sims_core.reports.study:STUDY"

    experiment: Experiment
    sweep: Sweep
    seed: int
    setup: tuple[PlannedStage, ...]
    training: tuple[PlannedStage, ...]
    models: Mapping[float, ArtifactRef]
    """The auxiliary of each budget; the base is that of budget 0."""
    selection: tuple[Measurement, ...]
    finals: tuple[Measurement, ...] = ()

    @property
    def groups(self) -> list[Group]:
        """The stages in the order in which a run does them, each group with its name."""
        selection = tuple(stage for each in self.selection for stage in each.stages)
        finals = tuple(stage for each in self.finals for stage in each.stages)
        groups = [("", self.setup), ("training", self.training), ("selection", selection)]
        return [*groups, ("final", finals)] if finals else groups

    def __iter__(self) -> Iterator[PlannedStage]:
        for _, stages in self.groups:
            yield from stages

    @property
    def links(self) -> list[tuple[str, ArtifactRef]]:
        """What a run's folder shows of the store, by path."""
        training = [(f"training/{_slug(stage.label)}", stage.ref) for stage in self.training]
        phases = (("selection", self.selection), ("final", self.finals))
        return training + [
            (f"{phase}/{_slug(each.candidate.name)}/{_slug(stage.role)}", stage.ref)
            for phase, measured in phases
            for each in measured
            for stage in each.stages
        ]

    @property
    def num_finalists(self) -> int:
        guided = sum(each.candidate.kind == "sims" for each in self.selection)
        return min(self.sweep.finalists, guided)

    @property
    def undecided(self) -> int:
        """How many stages the selection will decide on: those of base, contrast and finalists."""
        if self.finals:
            return 0
        # One that samples shows a preview as well, and latents are decoded.
        sampling = sum(stage.role.startswith(roles.GENERATE) for stage in self.selection[0].stages)
        return (len(self.selection[0].stages) + sampling) * (2 + self.num_finalists)

    def with_finals(self, fid: Mapping[str, float]) -> StudyPlan:
        """The whole plan, given the FID of each candidate of the selection by its name.

        The base, the finalists from the best on, and the base fine-tuned with the best one's
        budget. Of equal FIDs the smaller budget, then the smaller omega comes first.
        """
        ranked = sorted(
            (each.candidate for each in self.selection if each.candidate.kind == "sims"),
            key=lambda c: (fid[c.name], c.budget_mimg or 0, c.omega),
        )[: self.num_finalists]
        contrast = Candidate(kind="fine-tuned", budget_mimg=ranked[0].budget_mimg)
        chosen = [Candidate(kind="base"), contrast, *ranked]
        finals = tuple(_measure(self, candidate, final=True) for candidate in chosen)
        return replace(self, finals=finals)

    def completed(self, store: Store) -> StudyPlan:
        """The plan with its finals, from the selection's metrics in the store.

        Raises:
            DamagedArtifact: one of them is not there.
        """
        fid = {}
        for each in self.selection:
            fid[each.candidate.name] = read_metrics(store, each[roles.EVALUATE])["fid"]
        return self.with_finals(fid)


def _slug(name: str) -> str:
    return name.replace(": ", "/").replace(" ", "_").replace("=", "")


def _evaluation(evaluation: EvaluationConfig, count: int, parameter: str) -> EvaluationConfig:
    """The configuration for `count` images.

    Raises:
        BadInput: they are too few, naming the flow's parameter.
    """
    try:
        return EvaluationConfig.model_validate({**evaluation.model_dump(), "num_images": count})
    except ValidationError as error:
        raise BadInput(f"{parameter}: {one_line(error).removeprefix('value: ')}") from None


def _measure(plan: StudyPlan, candidate: Candidate, final: bool) -> Measurement:
    """Samples on the phase's own seeds, their features and metrics; a preview of a final."""
    sweep = plan.sweep
    count, name = (
        (sweep.final_images, "final_images") if final else (sweep.select_images, "select_images")
    )
    evaluation = _evaluation(plan.experiment.evaluation, count, name)
    planner = Planner(plan.experiment.model_copy(update={"evaluation": evaluation}), plan.seed, 1)
    auxiliary = plan.models[candidate.budget_mimg or 0.0]
    sampled = {
        "base": Sampled(plan.models[0.0]),
        "fine-tuned": Sampled(auxiliary),
        "sims": Sampled(
            plan.models[0.0], auxiliary, candidate.omega, plan.experiment.sims.interval
        ),
    }[candidate.kind]
    first = seed_range(plan.seed, "final" if final else "selection")
    _, images = plan_images(planner, roles.GENERATE, count, first, sampled)
    if final:
        preview = seed_range(plan.seed, "preview")
        plan_images(planner, roles.PREVIEW, evaluation.num_preview, preview, sampled)
    setup, _ = plan_setup(plan.experiment, plan.seed)
    plan_image_metrics(planner, setup, images)
    stages = (replace(stage, t=0, model=candidate.name) for stage in planner.stages)
    return Measurement(candidate, tuple(stages))


Purpose = Literal["self-synthetic", "selection", "final", "preview"]


def seed_range(seed: int, purpose: Purpose) -> int:
    """First of `RANGE` image seeds (modulo 2^32) that no other purpose of this run uses.

    S has the seeds that it has in the first generation of a loop, so that both share it.
    """
    order = ("self-synthetic", "selection", "final", "preview")
    origin = derive_seed(seed, purposes.SELF_SYNTHETIC, 1)
    return (origin + order.index(purpose) * RANGE) % SEED_SPACE


def _plan_training(planner: Planner, setup: Setup, sweep: Sweep) -> dict[float, ArtifactRef]:
    """Base, S, the auxiliary of the largest budget and its snapshots: the model of each budget."""
    experiment = planner.experiment
    data = planner.mix(roles.MIX, setup.real, [])
    base = planner.base(data)
    *smaller, largest = sorted(set(sweep.budgets_mimg))
    sims = experiment.sims.model_copy(update={"budget_mimg": largest})
    synthetic = sims.auxiliary_data(planner, data, base)
    training = sims.swept_training(planner.training, planner.model.net)
    kimg = tuple(1000 * budget for budget in smaller)
    try:
        auxiliary = planner.train(
            roles.FINE_TUNE_AUXILIARY,
            purposes.FINE_TUNE_AUXILIARY,
            training,
            {"data": synthetic, "initial": base},
            snapshots_kimg=kimg,
        )
    except ValidationError as error:
        raise BadInput(f"budgets: {one_line(error)}") from None
    models = {0.0: base, largest: auxiliary}
    for budget in smaller:
        nimg = training.steps_of(1000 * budget) * training.batch_size
        request = SNAPSHOT.request(SnapshotConfig(nimg=nimg), model=auxiliary)
        models[budget] = planner.add(f"snapshot B={1000 * budget:g}k", request)
    return models


def plan_study(experiment: Experiment, sweep: Sweep, seed: int) -> StudyPlan:
    """Everything up to the selection.

    Raises:
        BadInput: no omega above 0, no budget, points instead of images, or too few images.
    """
    omegas = sorted({omega for omega in sweep.omegas if omega > 0})
    budgets = sorted(set(sweep.budgets_mimg))
    if not omegas or not budgets:
        raise BadInput(f"want an omega above 0 and a budget, got {sweep.omegas}, {budgets}")
    if reason := kind_of(experiment.data).NO_SWEEP:
        raise BadInput(reason)
    if experiment.sims.auxiliary_net is not None:
        raise BadInput(
            "self-improvement compares with the base fine-tuned on S: its auxiliary has the base's "
            "network; for another one see sims-loop"
        )
    sims = experiment.sims.model_copy(update={"n_s": sweep.n_s})
    experiment = experiment.model_copy(update={"sims": sims})
    _evaluation(experiment.evaluation, sweep.final_images, "final_images")
    setup, shared = plan_setup(experiment, seed)
    planner = Planner(experiment, seed, 1)
    models = _plan_training(planner, setup, sweep)
    training = tuple(replace(stage, t=0) for stage in planner.stages)
    plan = StudyPlan(experiment, sweep, seed, shared, training, models, ())
    tried = [Candidate(kind="base")]
    for budget in budgets:
        tried.append(Candidate(kind="fine-tuned", budget_mimg=budget))
        tried += [Candidate(kind="sims", omega=omega, budget_mimg=budget) for omega in omegas]
    return replace(plan, selection=tuple(_measure(plan, each, final=False) for each in tried))
