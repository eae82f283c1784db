"""Plans the stages that every study is made of, for any kind of data and any method.

What depends on the kind of data (points, images, latents) is asked of its `Kind`, what depends on
the method of the method; nothing here knows one of them by name.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pkgutil import resolve_name
from typing import ClassVar

from sims_core.common import purposes, roles
from sims_core.common.errors import BadInput
from sims_core.common.seeding import derive_seed
from sims_core.data.config import Data, MixConfig, MixPart
from sims_core.data.stages import MIX
from sims_core.diffusion.config import SigmaInterval, is_within
from sims_core.engine.execution import Execution
from sims_core.methods.base import Sampled
from sims_core.nets.config import BaseConfig, Later, ModelConfig
from sims_core.nets.stages import IMPORT_MODEL
from sims_core.sampling.config import GuidanceConfig
from sims_core.store.artifacts import ArtifactRef, StageRequest
from sims_core.studies.experiment import Experiment
from sims_core.studies.plan import PlannedStage
from sims_core.training.config import TrainingConfig, TrainStageConfig, check_recipe, fine_tuning
from sims_core.training.stages import TRAIN

Pollution = tuple[ArtifactRef, int | None]
"""An earlier generation's data and how many of them, None for all."""


@dataclass(frozen=True)
class Setup:
    """What all arms share: real data, and what generated data are compared with."""

    real: ArtifactRef
    """What networks are trained on: points, images or their latents."""
    references: dict[str, ArtifactRef]
    """Inputs of the stages that measure generated data."""
    extractor: dict[str, ArtifactRef] = field(default_factory=dict)
    """What makes features of images; empty for other kinds of data."""


class Kind(ABC):
    """A kind of data: all that a plan needs to know of it. `Data.KIND` names the object."""

    REPORT: ClassVar[str]
    """`module:object` of what a report shows of it; a `sims_core.reports.base.KindReport`."""
    NO_SWEEP: ClassVar[str] = ""
    """Why self-improvement over omega and budget is not for such data; empty: it is."""
    SHIFT: ClassVar[str] = ""
    """`module:object` of how its mix of classes is shifted, a
    `sims_core.studies.shift_kind.ShiftKind`; empty: it has no classes."""

    @abstractmethod
    def check(self, experiment: Experiment) -> None:
        """Raises ValueError, naming the field, if parts of the experiment do not fit together."""

    def check_machine(  # noqa: B027
        self, experiment: Experiment, execution: Execution, stages: Iterable[PlannedStage]
    ) -> None:
        """Raises BadInput if some of the experiment's planned stages could not run as `execution`
        says; any machine will do where a kind does not say otherwise."""

    def fitted(self, experiment: Experiment, model: ModelConfig) -> ModelConfig:
        """A model as it is trained on such data."""
        return model

    def check_auxiliary(self, experiment: Experiment, model: ModelConfig) -> None:
        """Raises ValueError if an imported model cannot be the auxiliary of this experiment's."""
        raise ValueError(f"no model of {experiment.data.source} data can be imported")

    @abstractmethod
    def setup(self, planner: Planner) -> Setup:
        """Plans the real data and what generated data are compared with."""

    def real_part(self, planner: Planner, real: ArtifactRef, fresh: bool) -> ArtifactRef:
        """The real part of the training set of the planner's generation.

        Args:
            real: the real data of the setup.
            fresh: whether each generation has real data of its own (the fresh-data loop).

        Raises:
            BadInput: nothing new can be drawn, or nothing new is left.
        """
        if fresh:
            source = planner.experiment.data.source
            raise BadInput(f"loop fresh_data needs data to draw from, {source} is a fixed set")
        return real

    def training_inputs(self, experiment: Experiment) -> dict[str, ArtifactRef]:
        """Further inputs of a training that draws grids of samples on the way."""
        return {}

    def training_set(
        self, planner: Planner, role: str, real: ArtifactRef | None, synthetic: ArtifactRef
    ) -> ArtifactRef:
        """Plans the training set of all of `synthetic` and, if given, all of `real`."""
        return planner.mix(role, real, [(synthetic, None)])

    @abstractmethod
    def draw(
        self, planner: Planner, role: str, count: int, first_seed: int, sampled: Sampled
    ) -> ArtifactRef:
        """Plans `count` samples, as networks see them."""

    @abstractmethod
    def generation(
        self, planner: Planner, setup: Setup, sampled: Sampled, at_least: int
    ) -> ArtifactRef:
        """Plans what a generation's model samples (as many as are measured, and `at_least` so
        many), a preview and the metrics. Returns the samples as networks see them."""


def kind_of(data: Data) -> Kind:
    """The kind that a data set is of."""
    return _found(data.KIND)


@cache
def _found(entry: str) -> Kind:
    kind: Kind = resolve_name(entry)
    return kind


@dataclass
class Planner:
    """Collects the stages of one arm; it is the `Steps` that a method plans with.

    `add` returns the artifact that the stage will make. `t` is the generation, 0 for what all arms
    share; stages and seeds belong to the one that is set.
    """

    experiment: Experiment
    seed: int
    t: int = 0
    stages: list[PlannedStage] = field(default_factory=list)
    _weighted: set[ArtifactRef | None] = field(default_factory=set)
    """Mixes that are drawn with a real_fraction."""

    @property
    def kind(self) -> Kind:
        """The kind of the experiment's data."""
        return kind_of(self.experiment.data)

    @property
    def model(self) -> ModelConfig:
        """The base's model, as it is trained."""
        return self.kind.fitted(self.experiment, self.experiment.model)

    @property
    def training(self) -> TrainingConfig:
        """The base's recipe."""
        return self.experiment.training

    @property
    def base_kimg(self) -> float | None:
        """How long the base is trained; None: it is imported, and that is not known."""
        return self.training.kimg if self.experiment.base.imported is None else None

    def add(self, role: str, request: StageRequest) -> ArtifactRef:
        """Plans a stage."""
        self.stages.append(PlannedStage(self.t, role, request))
        return request.ref

    def stage_seed(self, purpose: str) -> int:
        """The seed for a purpose in this generation."""
        return derive_seed(self.seed, purpose, self.t)

    def mix(
        self,
        role: str,
        kept: ArtifactRef | None,
        synthetic: Sequence[Pollution],
        real_fraction: float | None = None,
    ) -> ArtifactRef:
        """All of `kept` (data or a mix), and the first so many (None: all) of each `synthetic`.

        Args:
            real_fraction: how often a training draws from `kept`; None: by counts.

        Raises:
            BadInput: `kept` is a mix that has a real_fraction itself.
        """
        if kept in self._weighted:
            raise BadInput(
                "aux_data real+synthetic is not defined where the loop draws by real_fraction: set "
                "aux_data=synthetic, or leave real_fraction out"
            )
        parts, inputs = [], {}
        if kept is not None:
            parts.append(MixPart(input="kept", synthetic=False))
            inputs["kept"] = kept
        for number, (artifact, count) in enumerate(synthetic, start=1):
            name = "synthetic" if len(synthetic) == 1 else f"synthetic_{number}"
            parts.append(MixPart(input=name, synthetic=True, count=count))
            inputs[name] = artifact
        config = MixConfig(parts=tuple(parts), real_fraction=real_fraction)
        mixed = self.add(role, MIX.request(config, **inputs))
        if real_fraction is not None:
            self._weighted.add(mixed)
        return mixed

    def real_mix(self, real: ArtifactRef) -> ArtifactRef:
        """The training set of the setup's real data alone.

        Raises:
            BadInput: the data are to be drawn anew in each generation, and this is no such loop.
        """
        return self.mix(roles.MIX, self.kind.real_part(self, real, fresh=False), [])

    def training_set(
        self, role: str, real: ArtifactRef | None, synthetic: ArtifactRef
    ) -> ArtifactRef:
        """All of `synthetic`, and all of `real` (a training set) where that is given."""
        return self.kind.training_set(self, role, real, synthetic)

    def train(
        self,
        role: str,
        purpose: str,
        training: TrainingConfig,
        inputs: Mapping[str, ArtifactRef],
        *,
        model: ModelConfig | None = None,
        snapshots_kimg: tuple[float, ...] = (),
    ) -> ArtifactRef:
        """Trains the experiment's model, or another `model`, on the input `data`."""
        further = self.kind.training_inputs(self.experiment) if training.grid_kimg else {}
        config = TrainStageConfig(
            model=self.model if model is None else self.kind.fitted(self.experiment, model),
            training=training,
            seed=self.stage_seed(purpose),
            snapshots_kimg=snapshots_kimg,
        )
        return self.add(role, TRAIN.request(config, **inputs, **further))

    def base(self, data: ArtifactRef) -> ArtifactRef:
        """The base: trained on `data`, or brought along for the first generation.

        Raises:
            BadInput: a later generation cannot be trained as `base.later` says.
        """
        base, inputs = self.experiment.base, {"data": data}
        if base.imported is None:
            return self.train(roles.TRAIN_BASE, purposes.TRAIN_BASE, self.training, inputs)
        imported = self._imported(base)
        if self.t <= 1:
            return self.add(roles.IMPORTED_BASE, imported)
        # Every loop that there is follows the MAD paper, which trains each generation from scratch.
        if (base.later or Later.recipe) == Later.recipe:
            check_recipe(self.training, self.model.net, base.imported)
            return self.train(roles.TRAIN_BASE, purposes.TRAIN_BASE, self.training, inputs)
        sims = self.experiment.sims
        recipe = fine_tuning(
            self.training,
            self.model.net,
            kimg=1000 * (base.later_mimg or sims.budget_mimg),
            batch_size=sims.batch_size,
            learning_rate=sims.learning_rate,
        )
        inputs["initial"] = imported.ref
        return self.train(roles.FINE_TUNE_BASE, purposes.TRAIN_BASE, recipe, inputs)

    def _imported(self, source: BaseConfig) -> StageRequest:
        if source.model is None:
            raise BadInput(
                f"model {source.imported!r} was not looked up: see sims_core.studies.resolve"
            )
        return IMPORT_MODEL.request(source.model)

    def bring_auxiliary(self, source: BaseConfig, interval: SigmaInterval | None) -> ArtifactRef:
        """An imported model as the auxiliary that is evaluated in `interval`.

        Raises:
            BadInput: it does not fit the base, or the generation is not the first.
        """
        if self.t > 1:
            raise BadInput(
                f"auxiliary.imported {source.imported} is trained on the data of generation 1, "
                f"this is generation {self.t}: leave it out, so that one is trained"
            )
        ref = self.add(roles.IMPORTED_AUXILIARY, self._imported(source))
        if (imported := source.model) is not None:
            try:
                self.kind.check_auxiliary(self.experiment, imported.model)
                _check_levels(self.experiment, imported.model, interval)
            except ValueError as error:
                raise BadInput(f"auxiliary.imported {source.imported}: {error}") from None
        return ref

    def guidance(self, sampled: Sampled) -> GuidanceConfig:
        """How the models are sampled, as the stages that sample take it.

        Raises:
            BadInput: none of the sampler's noise levels is guided.
        """
        interval = sampled.interval
        if interval is not None and sampled.omega:
            levels = self.experiment.sampler.levels
            if not any(is_within(level, interval) for level in levels):
                low, high = interval
                near = [level for level in levels if level < low][:1]
                near += [level for level in levels if level > high][-1:]
                raise BadInput(
                    f"interval [{low:g}, {high:g}] has none of the sampler's noise levels "
                    f"({len(levels)} from {levels[0]:g} to {levels[-1]:g}): the nearest are "
                    + " and ".join(f"{level:.4g}" for level in near)
                )
        return GuidanceConfig(omega=sampled.omega, interval=interval if sampled.omega else None)

    def draw(self, role: str, purpose: str, count: int, base: ArtifactRef) -> ArtifactRef:
        """`count` samples of the unguided `base`, as networks see them."""
        return self.kind.draw(self, role, count, self.stage_seed(purpose), Sampled(base))


def _check_levels(
    experiment: Experiment, auxiliary: ModelConfig, interval: SigmaInterval | None
) -> None:
    """Raises ValueError if the auxiliary would be asked for noise levels that it does not know."""
    levels = experiment.sampler.levels
    asked = [level for level in levels if interval is None or is_within(level, interval)]
    known = auxiliary.known_levels
    if not all(is_within(level, known) for level in asked):
        raise ValueError(
            f"it knows the noise levels {known[0]:g} to {known[1]:g}, and would be asked for "
            f"{asked[-1]:g} to {asked[0]:g}: set its interval, or sampler.sigma_min and sigma_max"
        )


def plan_setup(experiment: Experiment, seed: int) -> tuple[Setup, tuple[PlannedStage, ...]]:
    """What all arms of an experiment share, and the stages that make it."""
    planner = Planner(experiment, seed)
    setup = planner.kind.setup(planner)
    return setup, tuple(planner.stages)
