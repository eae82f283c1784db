"""Distribution shift as data: guidance that moves the mix of classes to a chosen target.

S is drawn from the base and labelled by a classifier of real data; S' is S re-weighted so that the
groups to be reduced are over-represented; the auxiliary is the base fine-tuned on S', and guidance
away from it moves the mix. How strongly S' is skewed, and omega, are chosen for each target and
seed on images of the selection seeds, judged by the first classifier; what is reported is measured
on images of other seeds and judged by a second classifier, of another half of the real data.

The paper's own procedure (its Algorithm 2) is not public: this one is ours [O]. Beside it stand
the plain ways to the same mix, at equal n: the base as it is, rejection sampling by the first
classifier, and training on re-weighted real data.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar

from sims_core.common import purposes, roles
from sims_core.common.errors import BadInput
from sims_core.common.seeding import derive_seed
from sims_core.data.groups import Guided, RejectConfig, ReweighConfig
from sims_core.evaluation.config import SharesConfig
from sims_core.evaluation.figures import read_metrics
from sims_core.evaluation.stages import SHARES
from sims_core.methods.base import Sampled
from sims_core.methods.self_synthetic import AuxData
from sims_core.store.artifacts import ArtifactRef
from sims_core.store.store import Store
from sims_core.studies.experiment import Experiment
from sims_core.studies.plan import ByRole, Group, Grouped, PlannedStage, each_once, slug
from sims_core.studies.planner import Planner
from sims_core.studies.shift_kind import Labeller, Purpose, ShiftKind, ShiftSetup, shift_kind
from sims_core.studies.shift_targets import Target, pool_size

BASE, REJECTION, REWEIGHED, SHIFTED = "base", "rejection", "re-weighted real", "sims"
TRY = f"try {SHIFTED}"
METHODS = (BASE, REJECTION, REWEIGHED, SHIFTED)


@dataclass(frozen=True)
class Shift:
    """What is asked for."""

    targets: tuple[Target, ...]
    omegas: tuple[float, ...]
    exponents: tuple[float, ...]
    """How strongly S' may be skewed; 1 is the formula of well separated classes."""
    select_images: int
    final_images: int


@dataclass(frozen=True)
class Staged(ByRole):
    """What is planned for one seed."""

    seed: int
    stages: tuple[PlannedStage, ...]


@dataclass(frozen=True)
class ShiftBase(Staged):
    """A base, S and the mix in S as the labeller sees it."""

    model: ArtifactRef

    @property
    def name(self) -> str:
        return f"{BASE} seed={self.seed}"


@dataclass(frozen=True)
class ShiftModel(Staged):
    """A model, or a way to draw from one, and the stages that make and measure it."""

    method: str
    target: Target
    sampled: Sampled
    guided: Guided | None = None
    """The omega and exponent that are tried or were chosen; None: it is not guided."""

    @property
    def name(self) -> str:
        """Its name among all of a run."""
        tried = f" omega={self.guided.omega:g} e={self.guided.exponent:g}" if self.guided else ""
        return f"{self.method} {self.target.name}{tried} seed={self.seed}"

    @property
    def strength(self) -> tuple[float, float]:
        """Omega and exponent."""
        return (self.guided.omega, self.guided.exponent) if self.guided else (0.0, 0.0)


@dataclass(frozen=True)
class ShiftPlan(Grouped):
    """`setup`, a base for each seed, what is tried, baselines; `chosen` once that was measured."""

    REPORT: ClassVar[str] = "sims_core.reports.shift:SHIFT"

    experiment: Experiment
    shift: Shift
    seeds: tuple[int, ...]
    setup: tuple[PlannedStage, ...]
    shared: ShiftSetup
    references: tuple[Mapping[str, ArtifactRef], ...]
    """By target: the real data of its mix."""
    bases: tuple[ShiftBase, ...]
    tried: tuple[ShiftModel, ...]
    baselines: tuple[ShiftModel, ...]
    chosen: tuple[ShiftModel, ...] = field(default=())
    """Guided models and rejection, for each seed and target."""

    @property
    def seed(self) -> int:
        """The first seed: that of data, classifiers and evaluation."""
        return self.seeds[0]

    @property
    def models(self) -> tuple[ShiftModel, ...]:
        """Those that are reported."""
        return (*self.baselines, *self.chosen)

    @property
    def every(self) -> tuple[ShiftBase | ShiftModel, ...]:
        """All that is planned beyond the setup, in the order of a run."""
        return (*self.bases, *self.tried, *self.baselines, *self.chosen)

    @property
    def groups(self) -> list[Group]:
        """The stages in the order in which a run does them, each of them once."""
        models = ((each.name, each.stages) for each in self.every)
        return each_once([("", self.setup), *models])

    @property
    def parts(self) -> list[Group]:
        """The models."""
        return self.groups[1:]

    @property
    def links(self) -> list[tuple[str, ArtifactRef]]:
        """What a run's folder shows of the store, by path."""
        kinds = [*["bases"] * len(self.bases), *["selection"] * len(self.tried)]
        kinds += ["models"] * len(self.models)
        return [
            (f"{kind}/{slug(each.name)}/{slug(stage.role)}", stage.ref)
            for kind, each in zip(kinds, self.every, strict=True)
            for stage in each.stages
        ]

    @property
    def undecided(self) -> int:
        """How many stages wait for the selection, where rejection draws twice what it keeps."""
        if self.chosen:
            return 0
        known = {stage.ref for stage in self}
        first = {(each.seed, each.target): each for each in reversed(self.tried)}
        models = [_final(self, each) for each in first.values()]
        models += [_rejection(self, seed, target, 2) for seed, target in first]
        return len({stage.ref for each in models for stage in each.stages} - known)

    def completed(self, store: Store) -> ShiftPlan:
        """The plan with the chosen models, by what the selection found.

        Of equal distances to the target the smaller omega, then the smaller exponent is chosen.

        Raises:
            DamagedArtifact: a figure is not in the store.
        """
        chosen: list[ShiftModel] = []
        for base in self.bases:
            for target in self.shift.targets:
                tried = [
                    each for each in self.tried if (each.seed, each.target) == (base.seed, target)
                ]
                chosen.append(_final(self, min(tried, key=lambda each: _distance(store, each))))
                chosen.append(
                    _rejection(self, base.seed, target, _parts(self, store, base, target))
                )
        return replace(self, chosen=tuple(chosen))


def _parts(plan: ShiftPlan, store: Store, base: ShiftBase, target: Target) -> int:
    """How many times as many samples as it is to keep rejection examines."""
    known = read_metrics(store, base[f"{roles.SHARES} {target.name}"])
    rate, count = float(known["acceptance_least"]), plan.shift.final_images
    return -(-pool_size(rate, target.mix.shares, int(known["n_labelled"]), count) // count)


def _distance(store: Store, tried: ShiftModel) -> tuple[float, float, float]:
    """What the choice is by: the distance to the target, then omega and the exponent."""
    return float(read_metrics(store, tried[roles.SHARES])["tv"]), *tried.strength


@dataclass
class _Steps:
    """Plans one model's stages with what all models share."""

    plan: ShiftPlan
    seed: int
    planner: Planner = field(init=False)
    kind: ShiftKind = field(init=False)

    def __post_init__(self) -> None:
        self.planner = Planner(self.plan.experiment, self.seed, t=1)
        self.kind = shift_kind(self.plan.experiment)

    def model(
        self, method: str, target: Target, sampled: Sampled, guided: Guided | None = None
    ) -> ShiftModel:
        """The planned stages as a model; its name tells their labels apart."""
        model = ShiftModel(self.seed, (), method, target, sampled, guided)
        return replace(model, stages=self.named(model.name))

    def named(self, name: str) -> tuple[PlannedStage, ...]:
        return tuple(replace(stage, model=name) for stage in self.planner.stages)

    def seed_of(self, purpose: str) -> int:
        return derive_seed(self.seed, purpose)

    def draw(self, count: int, purpose: Purpose, sampled: Sampled, part: int = 0) -> ArtifactRef:
        role = f"{roles.GENERATE} {part}" if part else roles.GENERATE
        return self.kind.draw(self.planner, role, count, purpose, sampled, part)

    def shares(self, labels: ArtifactRef, target: Target, role: str = roles.SHARES) -> None:
        """Shares of the groups among labelled samples, and their distance to the target."""
        config = SharesConfig(names=target.names, target=target.mix)
        self.planner.add(role, SHARES.request(config, labels=labels))

    def label(self, samples: ArtifactRef, by: Labeller, role: str = roles.LABEL) -> ArtifactRef:
        return self.kind.label(self.planner, role, samples, by)

    def measure(self, samples: ArtifactRef, target: Target) -> None:
        """Shares by the judge; metrics against real data of the target mix, and against all."""
        shared = self.plan.shared
        self.shares(self.label(samples, shared.judge), target)
        own = self.plan.references[self.plan.shift.targets.index(target)]
        self.kind.measure(self.planner, shared, samples, own)
        whole = Planner(self.plan.experiment, self.seed, t=1)
        self.kind.measure(whole, shared, samples, shared.references)
        known = {stage.ref for stage in self.planner.stages}
        self.planner.stages += [
            replace(stage, role=f"{stage.role} {roles.AGAINST_REAL}")
            for stage in whole.stages
            if stage.ref not in known
        ]


def _base(plan: ShiftPlan, seed: int) -> ShiftBase:
    """The base, S, and the mix in S as the labeller sees it."""
    steps, n_s = _Steps(plan, seed), plan.experiment.sims.n_s
    base = steps.planner.base(steps.planner.real_mix(plan.shared.real))
    drawn = steps.planner.draw(roles.SELF_SYNTHETIC, purposes.SELF_SYNTHETIC, n_s, base)
    labels = steps.label(drawn, plan.shared.labeller)
    for target in plan.shift.targets:
        steps.shares(labels, target, f"{roles.SHARES} {target.name}")
    named = ShiftBase(seed, (), base)
    return replace(named, stages=steps.named(named.name))


def _try(plan: ShiftPlan, base: ShiftBase, target: Target, guided: Guided) -> ShiftModel:
    """The auxiliary of one S', and samples of the selection's seeds, labelled."""
    steps, sims = _Steps(plan, base.seed), plan.experiment.sims
    config = ReweighConfig(
        target=target.mix, count=sims.n_s, guided=guided, seed=steps.seed_of(purposes.REWEIGH)
    )
    drawn, labels = base[roles.SELF_SYNTHETIC], base[roles.LABEL]
    skewed = steps.kind.reweigh(steps.planner, roles.REWEIGH, drawn, config, labels)
    data = steps.planner.training_set(roles.AUXILIARY_DATA, None, skewed)
    auxiliary = steps.planner.train(
        roles.FINE_TUNE_AUXILIARY,
        purposes.FINE_TUNE_AUXILIARY,
        sims.auxiliary_training(steps.planner.training, steps.planner.model.net),
        {"data": data, "initial": base.model},
    )
    sampled = Sampled(base.model, auxiliary, guided.omega, sims.interval)
    drawn = steps.draw(plan.shift.select_images, "selection", sampled)
    steps.shares(steps.label(drawn, plan.shared.labeller), target)
    return steps.model(TRY, target, sampled, guided)


def _finish(
    steps: _Steps, method: str, target: Target, sampled: Sampled, guided: Guided | None = None
) -> ShiftModel:
    """Samples of the final seeds, a preview and every figure."""
    count = steps.plan.shift.final_images
    samples = steps.draw(count, "final", sampled)
    steps.kind.draw(steps.planner, roles.PREVIEW, count, "preview", sampled)
    steps.measure(samples, target)
    return steps.model(method, target, sampled, guided)


def _final(plan: ShiftPlan, tried: ShiftModel) -> ShiftModel:
    """The chosen model, on seeds that the choice has not seen."""
    steps = _Steps(plan, tried.seed)
    return _finish(steps, SHIFTED, tried.target, tried.sampled, tried.guided)


def _rejection(plan: ShiftPlan, seed: int, target: Target, parts: int) -> ShiftModel:
    """What rejection keeps of the base's samples; the first part is what the base itself shows."""
    base = next(each for each in plan.bases if each.seed == seed)
    steps, count, sampled = _Steps(plan, seed), plan.shift.final_images, Sampled(base.model)
    pool = []
    for part in range(parts):
        drawn = steps.draw(count, "final", sampled, part)
        role = f"{roles.LABEL} {roles.GENERATE} {part}"
        pool.append((drawn, steps.label(drawn, plan.shared.labeller, role)))
    config = RejectConfig(target=target.mix, count=count, seed=steps.seed_of(purposes.REJECT))
    kept = steps.kind.reject(steps.planner, roles.REJECT, config, pool, base[roles.LABEL])
    steps.measure(kept, target)
    return steps.model(REJECTION, target, sampled)


def _baselines(plan: ShiftPlan, base: ShiftBase, target: Target) -> list[ShiftModel]:
    """The base as it is, and one like it trained on real data of the target mix."""
    found = [_finish(_Steps(plan, base.seed), BASE, target, Sampled(base.model))]
    if plan.experiment.base.imported is not None:  # its recipe is not ours to repeat
        return found
    steps = _Steps(plan, base.seed)
    config = ReweighConfig(
        target=target.mix, count=plan.shared.num_real, seed=steps.seed_of(purposes.REWEIGH)
    )
    real = steps.kind.reweigh(steps.planner, roles.REWEIGH, plan.shared.real, config, None)
    trained = steps.planner.base(steps.planner.mix(roles.MIX, real, []))
    return [*found, _finish(steps, REWEIGHED, target, Sampled(trained))]


def plan_shift(experiment: Experiment, shift: Shift, seeds: tuple[int, ...]) -> ShiftPlan:
    """Everything up to the selection.

    Raises:
        BadInput: no seed or one twice, no omega above 0, targets that are alike, data without
            classes, or too few images.
    """
    if not seeds or len(set(seeds)) < len(seeds):
        raise BadInput(f"seeds must be at least one and all different, got {list(seeds)}")
    if len(set(shift.targets)) < len(shift.targets):
        raise BadInput(f"targets must differ, got {', '.join(t.name for t in shift.targets)}")
    if experiment.sims.auxiliary_net is not None:
        raise BadInput("distribution-shift fine-tunes the base: leave sims.auxiliary_net out")
    if experiment.sims.aux_data is not AuxData.synthetic:
        raise BadInput(
            f"sims.aux_data {experiment.sims.aux_data}: real data would undo the mix that the "
            "auxiliary is to learn: leave it out"
        )
    kind = shift_kind(experiment)
    experiment = kind.check_count(experiment, "final_images", shift.final_images)
    planner = Planner(experiment, seeds[0])
    shared = kind.setup(planner)
    seed = derive_seed(seeds[0], purposes.REFERENCE)
    references: list[Mapping[str, ArtifactRef]] = []
    for target in shift.targets:
        first = len(planner.stages)
        references.append(kind.target_references(planner, shared, target.mix, seed))
        planner.stages[first:] = [
            replace(stage, role=f"{stage.role} {target.name}") for stage in planner.stages[first:]
        ]
    plan = ShiftPlan(
        *(experiment, shift, seeds, tuple(planner.stages), shared, tuple(references)),
        *((), (), ()),
    )
    plan = replace(plan, bases=tuple(_base(plan, seed) for seed in seeds))
    grid = _grid(shift)
    tried = [_try(plan, b, t, each) for b in plan.bases for t in shift.targets for each in grid]
    baselines = [each for b in plan.bases for t in shift.targets for each in _baselines(plan, b, t)]
    return replace(plan, tried=tuple(tried), baselines=tuple(baselines))


def _grid(shift: Shift) -> Sequence[Guided]:
    """Every omega above 0 with every exponent.

    Raises:
        BadInput: there is none.
    """
    omegas = sorted({omega for omega in shift.omegas if omega > 0})
    exponents = sorted(set(shift.exponents))
    if not omegas or not exponents:
        raise BadInput(f"want an omega above 0 and an exponent, got {shift.omegas}, {exponents}")
    return [Guided(omega=omega, exponent=each) for omega in omegas for each in exponents]
