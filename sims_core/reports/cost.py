"""What a method costs beside its figures, read off the stages of its plan and what they made."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from sims_core.common import roles
from sims_core.common.frozen import Frozen
from sims_core.nets.files import count_weights
from sims_core.store.artifacts import ArtifactRef
from sims_core.store.store import Store
from sims_core.studies.plan import PlannedStage
from sims_core.training.config import TrainStageConfig
from sims_core.training.stages import TRAIN


class Cost(Frozen):
    """The price of one generation's model: of a sample of it, and of making it from the base."""

    evaluations: int | float
    """Network evaluations for one sample, of the base and of the auxiliary together; where only
    some samples are kept, for one that is."""
    extra_training_percent: float | None
    """Training beyond the base's, in percent of that: images seen times the weights of the network
    that sees them. None: not known, since base or auxiliary is imported, or has no network."""
    extra_samples: int
    """Samples of the base that the method draws (the set S)."""
    weights: int
    """Numbers of all networks that are held while sampling."""

    @property
    def columns(self) -> dict[str, Any]:
        """As columns of a table."""
        return {
            "nfe": self.evaluations,
            "extra_training_percent": self.extra_training_percent,
            "extra_samples": self.extra_samples,
            "weights": self.weights,
        }

    def __str__(self) -> str:
        extra = self.extra_training_percent
        parts = [
            f"{self.evaluations:g} evaluations a sample",
            "extra training not known" if extra is None else f"{extra:.3g} % extra training",
        ]
        if self.extra_samples:
            parts.append(f"{self.extra_samples} extra samples")
        return ", ".join([*parts, f"{self.weights} weights held"])


def sampling_stage(stages: Iterable[PlannedStage]) -> PlannedStage | None:
    """The first stage that samples what is measured."""
    return next(
        (s for s in stages if s.role.startswith(roles.GENERATE) and "sampler" in s.request.config),
        None,
    )


def evaluations(store: Store, stages: Iterable[PlannedStage]) -> int | None:
    """Network evaluations for one sample, as the stage that sampled has counted them; None: it is
    of another package, and says nothing of them."""
    sampling = sampling_stage(stages)
    return None if sampling is None else store.manifest(sampling.ref).details.get("nfe")


def arm_cost(store: Store, stages: Iterable[PlannedStage]) -> Cost | None:
    """The cost of the first generation among stages that are all in the store.

    None: there is none that samples by a network, as kinds of data of other packages may have it.
    """
    stages = tuple(stages)
    sampling, counted = sampling_stage(stages), evaluations(store, stages)
    if sampling is None or counted is None:
        return None
    own = [stage for stage in stages if stage.t == sampling.t]
    models = sampling.request.inputs.values()
    return Cost(
        evaluations=counted,
        extra_training_percent=_extra_training(store, own),
        extra_samples=sum(
            stage.request.config["count"]
            for stage in own
            if "sampler" in stage.request.config
            and not stage.role.startswith((roles.GENERATE, roles.PREVIEW))
        ),
        weights=weights_of(store, models),
    )


def weights_of(store: Store, models: Iterable[ArtifactRef]) -> int:
    """Numbers of all the networks together."""
    return sum(count_weights(store.open_artifact(ref)) for ref in models)


def _extra_training(store: Store, stages: list[PlannedStage]) -> float | None:
    """All trainings of a generation but the base's, in percent of that."""
    if any(stage.role == roles.IMPORTED_AUXILIARY for stage in stages):
        return None
    work = {
        stage.ref: (stage.role, _work(store, stage))
        for stage in reversed(stages)  # an auxiliary that is the base counts as the base
        if stage.request.stage == TRAIN.name
    }
    base = sum(amount for role, amount in work.values() if role == roles.TRAIN_BASE)
    if not base:
        return None
    return 100 * (sum(amount for _, amount in work.values()) / base - 1)


def _work(store: Store, stage: PlannedStage) -> int:
    """Images seen times weights."""
    training = TrainStageConfig.model_validate(stage.request.config).training
    return training.num_steps * training.batch_size * weights_of(store, [stage.ref])
