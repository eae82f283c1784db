"""Self-improvement (Algorithm 1) as data: which method improves a model, how strongly applied, and
at which budget?

Base, S and auxiliary are made once for each seed; the auxiliary is trained through the largest
budget and keeps a snapshot at every smaller one, from which every method that fine-tunes the base
on its own samples is made. Two phases: every method at every strength and budget is measured on few
images of the *selection* seeds; each method's best few then on many of the *final* seeds, which no
choice has seen. Beside them stands the contrast: the base fine-tuned on S, which is the auxiliary
taken as a model.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from statistics import fmean
from typing import ClassVar, Literal

from pydantic import ValidationError

from sims_core.common import purposes, roles
from sims_core.common.errors import BadInput
from sims_core.common.frozen import one_line
from sims_core.common.seeding import SEED_SPACE, derive_seed
from sims_core.evaluation.figures import read_metrics
from sims_core.methods.base import Sampled
from sims_core.methods.fine_tuned import FineTuned
from sims_core.methods.self_synthetic import SelfSynthetic
from sims_core.store.artifacts import ArtifactRef
from sims_core.store.store import Store
from sims_core.studies.candidates import (
    BASE,
    RANGE,
    Candidate,
    Measurement,
    Sweep,
    candidates,
    compared,
    has_contrast,
    kinds,
)
from sims_core.studies.experiment import Experiment
from sims_core.studies.image_counts import evaluation_of
from sims_core.studies.kinds.images import plan_image_metrics, plan_images
from sims_core.studies.plan import Group, Grouped, PlannedStage, slug
from sims_core.studies.planner import Planner, Setup, kind_of, plan_setup
from sims_core.training.config import SnapshotConfig
from sims_core.training.stages import SNAPSHOT


@dataclass(frozen=True)
class Trained:
    """The models of one seed, and the stages that make them."""

    seed: int
    stages: tuple[PlannedStage, ...]
    models: Mapping[float, ArtifactRef]
    """The auxiliary of each budget; the base is that of budget 0."""
    sampled: Mapping[str, Sampled]
    """What each candidate's images are drawn from, by its name."""
    own: Mapping[str, tuple[PlannedStage, ...]]
    """What a candidate needs beside base and auxiliaries, whether or not others need it too."""


@dataclass(frozen=True)
class StudyPlan(Grouped):
    """`setup`, `training` and `selection`; `finals` once the selection was measured."""

    REPORT: ClassVar[str] = "sims_core.reports.study:STUDY"

    experiment: Experiment
    sweep: Sweep
    seeds: tuple[int, ...]
    setup: tuple[PlannedStage, ...]
    trained: tuple[Trained, ...]
    """By seed."""
    selection: tuple[Measurement, ...]
    finals: tuple[Measurement, ...] = ()

    @property
    def seed(self) -> int:
        """The first seed: that of data and evaluation."""
        return self.seeds[0]

    @property
    def training(self) -> tuple[PlannedStage, ...]:
        """The stages that make the models of all seeds."""
        return tuple(stage for each in self.trained for stage in each.stages)

    @property
    def models(self) -> Mapping[float, ArtifactRef]:
        """The first seed's auxiliary of each budget; the base is that of budget 0."""
        return self.trained[0].models

    @property
    def groups(self) -> list[Group]:
        """The stages in the order in which a run does them, each group with its name."""
        selection = tuple(stage for each in self.selection for stage in each.stages)
        finals = tuple(stage for each in self.finals for stage in each.stages)
        groups = [("", self.setup), ("training", self.training), ("selection", selection)]
        return [*groups, ("final", finals)] if finals else groups

    @property
    def parts(self) -> list[Group]:
        """What is measured: each candidate of each seed, in the selection and in the finals."""
        phases = (("selection", self.selection), ("final", self.finals))
        return [(f"{phase}, {each.name}", each.stages) for phase, of in phases for each in of]

    @property
    def links(self) -> list[tuple[str, ArtifactRef]]:
        """What a run's folder shows of the store, by path."""
        training = [(f"training/{slug(stage.label)}", stage.ref) for stage in self.training]
        phases = (("selection", self.selection), ("final", self.finals))
        return training + [
            (f"{phase}/{slug(each.name)}/{slug(stage.role)}", stage.ref)
            for phase, measured in phases
            for each in measured
            for stage in each.stages
        ]

    @property
    def candidates(self) -> list[Candidate]:
        """What the selection tries."""
        return [each.candidate for each in self.selection if each.seed == self.seed]

    @property
    def has_extra_contrast(self) -> bool:
        """Whether a fine-tuned base joins the finals that is none of the finalists."""
        return has_contrast(self.sweep) and "fine-tuned" not in kinds([], self.sweep)

    @property
    def num_finalists(self) -> int:
        """How many candidates the selection sends to the finals."""
        of_each = kinds(self.candidates, self.sweep).values()
        return sum(min(self.sweep.finalists, len(each)) for each in of_each)

    @property
    def undecided(self) -> int:
        """How many stages the selection will decide on: those of base, contrast and finalists."""
        if self.finals:
            return 0
        stages = self.selection[0].stages
        # The first of the repeats shows a preview as well, and latents are decoded.
        previews = sum(stage.role.startswith(roles.GENERATE) for stage in stages)
        models = 1 + self.has_extra_contrast + self.num_finalists
        return (len(stages) * self.sweep.final_repeats + previews) * models * len(self.seeds)

    def with_finals(self, fid: Mapping[str, float]) -> StudyPlan:
        """The whole plan, given the mean FID over seeds of each candidate of the selection by name.

        The base, each method's finalists from the best on, and the base fine-tuned with the best
        one's budget. Of equal FIDs the smaller budget, then the smaller strength comes first.
        """

        def rank(each: Candidate) -> tuple[float, float, float]:
            return fid[each.name], each.budget_mimg or 0, each.strength

        chosen = [
            each
            for of_kind in kinds(self.candidates, self.sweep).values()
            for each in sorted(of_kind, key=rank)[: self.sweep.finalists]
        ]
        tuned = [each for each in chosen if isinstance(each.method, SelfSynthetic)]
        first = [BASE]
        if self.has_extra_contrast:
            budget = min(tuned, key=rank).budget_mimg
            fine_tuned = [each for each in self.candidates if each.kind == "fine-tuned"]
            first += [each for each in fine_tuned if each.budget_mimg == budget]
        setup, _ = plan_setup(self.experiment, self.seed)
        finals = tuple(
            _measure(self, setup, candidate, trained, repeat)
            for trained in self.trained
            for candidate in (*first, *chosen)
            for repeat in range(1, self.sweep.final_repeats + 1)
        )
        return replace(self, finals=finals)

    def completed(self, store: Store) -> StudyPlan:
        """The plan with its finals, from the selection's metrics in the store.

        Raises:
            DamagedArtifact: one of them is not there.
        """
        found: dict[str, list[float]] = {}
        for each in self.selection:
            metrics = read_metrics(store, each[roles.EVALUATE])
            found.setdefault(each.candidate.name, []).append(metrics["fid"])
        return self.with_finals({name: fmean(values) for name, values in found.items()})


def _named(name: str, seed: int, of_several: bool, repeat: int | None = None) -> str:
    """The name with what tells models of the same name apart."""
    parts = [name] if name else []
    parts += [f"repeat={repeat}"] if repeat is not None else []
    return " ".join([*parts, f"seed={seed}"] if of_several else parts)


def _measure(
    plan: StudyPlan, setup: Setup, candidate: Candidate, trained: Trained, repeat: int = 0
) -> Measurement:
    """Samples on the phase's own seeds, their features and metrics.

    Args:
        repeat: 0 in the selection; in the finals the number of the set of images from 1 on, of
            which the first comes with a preview.
    """
    sweep, seed = plan.sweep, trained.seed
    count, name = (
        (sweep.final_images, "final_images") if repeat else (sweep.select_images, "select_images")
    )
    evaluation = evaluation_of(plan.experiment.evaluation, count, name)
    planner = Planner(plan.experiment.model_copy(update={"evaluation": evaluation}), seed, 1)
    sampled = trained.sampled[candidate.name]
    first = seed_range(seed, "final" if repeat else "selection") + max(repeat - 1, 0) * count
    _, images = plan_images(planner, roles.GENERATE, count, first % SEED_SPACE, sampled)
    if repeat == 1:
        preview = seed_range(seed, "preview")
        plan_images(planner, roles.PREVIEW, evaluation.num_preview, preview, sampled)
    plan_image_metrics(planner, setup, images)
    number = repeat if repeat and sweep.final_repeats > 1 else None
    name = _named(candidate.name, seed, len(plan.seeds) > 1, number)
    stages = tuple(replace(stage, t=0, model=name) for stage in planner.stages)
    return Measurement(candidate, seed, max(repeat, 1), name, stages)


Purpose = Literal["self-synthetic", "selection", "final", "preview"]


def seed_range(seed: int, purpose: Purpose) -> int:
    """First of `RANGE` image seeds (modulo 2^32) that no other purpose of this run uses.

    S has the seeds that it has in the first generation of a loop, so that both share it.
    """
    order = ("self-synthetic", "selection", "final", "preview")
    origin = derive_seed(seed, purposes.SELF_SYNTHETIC, 1)
    return (origin + order.index(purpose) * RANGE) % SEED_SPACE


def _plan_auxiliaries(
    planner: Planner, sweep: Sweep, data: ArtifactRef, base: ArtifactRef
) -> dict[float, ArtifactRef]:
    """S, the auxiliary of the largest budget and its snapshots: the auxiliary of each budget."""
    *smaller, largest = sorted(set(sweep.budgets_mimg))
    sims = planner.experiment.sims.with_budget(largest)
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
    found = {largest: auxiliary}
    for budget in smaller:
        nimg = training.steps_of(1000 * budget) * training.batch_size
        request = SNAPSHOT.request(SnapshotConfig(nimg=nimg), model=auxiliary)
        found[budget] = planner.add(f"snapshot B={1000 * budget:g}k", request)
    return found


def _plan_training(
    experiment: Experiment,
    sweep: Sweep,
    setup: Setup,
    tried: tuple[Candidate, ...],
    seed: int,
    of_several: bool,
) -> Trained:
    """Base, auxiliaries, and what each candidate makes of them."""
    planner = Planner(experiment, seed, 1)
    data = planner.real_mix(setup.real)
    models = {0.0: planner.base(data)}
    if has_contrast(sweep):
        models |= _plan_auxiliaries(planner, sweep, data, models[0.0])
    stages = [replace(s, t=0, model=_named("", seed, of_several)) for s in planner.stages]
    sampled, base = {BASE.name: Sampled(models[0.0])}, models[0.0]
    needed: dict[str, tuple[PlannedStage, ...]] = {}
    for candidate in tried:
        own = Planner(experiment, seed, 1)
        if isinstance(method := candidate.method, SelfSynthetic):
            auxiliary = models[method.budget_mimg]
            sampled[candidate.name] = method.from_auxiliary(own, base, auxiliary)
        elif method is not None:
            sampled[candidate.name] = method.models(own, data, base)
        needed[candidate.name] = tuple(replace(stage, t=0) for stage in own.stages)
        there, name = {stage.ref for stage in stages}, _named(candidate.name, seed, of_several)
        new = {stage.ref: stage for stage in own.stages if stage.ref not in there}
        stages += [replace(stage, t=0, model=name) for stage in new.values()]
    return Trained(seed, tuple(stages), models, sampled, needed)


def _check(experiment: Experiment, sweep: Sweep, seeds: tuple[int, ...]) -> None:
    """Raises BadInput if the study cannot be made."""
    if not compared(sweep) or not sweep.budgets_mimg:
        raise BadInput(
            "want a method beside the base (SIMS: an omega above 0) and a budget, got methods "
            f"{[each.label for each in sweep.methods]}, budgets {list(sweep.budgets_mimg)}"
        )
    if len(set(seeds)) < len(seeds):
        raise BadInput(f"seeds must be all different, got {list(seeds)}")
    if reason := kind_of(experiment.data).NO_SWEEP:
        raise BadInput(reason)
    if experiment.sims.auxiliary_net is not None:
        raise BadInput(
            "self-improvement compares with the base fine-tuned on S: its auxiliary has the base's "
            "network; for another one see sims-loop"
        )
    for method in compared(sweep):
        if isinstance(method, SelfSynthetic) and not method.shares_auxiliary_with(experiment.sims):
            raise BadInput(
                f"self-improvement compares methods on one set S and one auxiliary: methods."
                f"{method.kind} must have n_s, batch_size, learning_rate and aux_data as sims has"
            )
    if sweep.final_images * sweep.final_repeats > RANGE:
        raise BadInput(
            f"final_repeats: {sweep.final_repeats} times {sweep.final_images} images are more than "
            f"the {RANGE} seeds that the finals have"
        )


def plan_study(
    experiment: Experiment, sweep: Sweep, seed: int, further_seeds: tuple[int, ...] = ()
) -> StudyPlan:
    """Everything up to the selection.

    Args:
        seed: that of data and evaluation, and of a first model of each candidate.
        further_seeds: every model is made once more for each of them, on the same real data.

    Raises:
        BadInput: no method beside the base, no budget, points instead of images, too few images, or
            the same seed twice.
    """
    seeds = (seed, *further_seeds)
    sims = experiment.sims.model_copy(update={"n_s": sweep.n_s})
    experiment = experiment.model_copy(update={"sims": sims})
    _check(experiment, sweep, seeds)
    evaluation_of(experiment.evaluation, sweep.final_images, "final_images")
    setup, shared = plan_setup(experiment, seed)
    tried = candidates(sweep, FineTuned().with_recipe_of(sims))
    trained, seen = [], set[ArtifactRef]()
    for each in seeds:
        made = _plan_training(experiment, sweep, setup, tried, each, len(seeds) > 1)
        new = tuple(stage for stage in made.stages if stage.ref not in seen)
        seen |= {stage.ref for stage in new}
        trained.append(replace(made, stages=new))
    plan = StudyPlan(experiment, sweep, seeds, shared, tuple(trained), ())
    selection = (_measure(plan, setup, each, made) for made in trained for each in tried)
    return replace(plan, selection=tuple(selection))
