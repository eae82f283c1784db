"""What methods share that fine-tune the base on its own samples: the set S and the auxiliary.

Methods with the same recipe share both artifacts, so that comparing them costs sampling only.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Self

from pydantic import Field

from sims_core.common import purposes, roles
from sims_core.common.seeding import MOST_IMAGES
from sims_core.methods.base import Method, Sampled, Steps
from sims_core.nets.config import Net
from sims_core.store.artifacts import ArtifactRef
from sims_core.training.config import MOST_KIMG, TrainingConfig, fine_tuning


class AuxData(StrEnum):
    """What the auxiliary is fine-tuned on. One caption of the paper says the second, three other
    sources the first, hence the default."""

    synthetic = "synthetic"
    real_and_synthetic = "real+synthetic"


class SelfSynthetic(Method):
    """A method that draws a set S from the base and fine-tunes an auxiliary on it."""

    n_s: Annotated[int, Field(ge=1, le=MOST_IMAGES)] = 4000
    """Size of the self-synthetic set S."""
    budget_mimg: Annotated[float, Field(gt=0, le=MOST_KIMG / 1000)] = 0.0128
    """B, the auxiliary's training length in million images seen."""
    batch_size: Annotated[int, Field(ge=1, le=10**6)] = 128
    learning_rate: Annotated[float, Field(gt=0, le=100)] = 1e-4
    aux_data: AuxData = AuxData.synthetic

    @property
    def extra_mimg(self) -> float | None:
        return self.budget_mimg

    def with_recipe_of(self, other: SelfSynthetic) -> Self:
        """The method with the other's S and auxiliary, but for what was given explicitly."""
        recipe = {name: getattr(other, name) for name in SelfSynthetic.model_fields}
        given = {name: getattr(self, name) for name in self.model_fields_set}
        return self.model_copy(update={**recipe, **given, "kind": self.kind})

    def with_budget(self, mimg: float) -> Self:
        return self.model_copy(update={"budget_mimg": mimg})

    def shares_auxiliary_with(self, other: SelfSynthetic) -> bool:
        """Whether both fine-tune on the same S in the same way, whatever their budgets."""
        names = [name for name in SelfSynthetic.model_fields if name not in ("kind", "budget_mimg")]
        return all(getattr(self, name) == getattr(other, name) for name in names)

    def models(self, steps: Steps, data: ArtifactRef, base: ArtifactRef) -> Sampled:
        return self.from_auxiliary(steps, base, self.fine_tuned(steps, data, base))

    def from_auxiliary(self, steps: Steps, base: ArtifactRef, auxiliary: ArtifactRef) -> Sampled:
        """What is sampled, given the base and the auxiliary fine-tuned from it."""
        raise NotImplementedError

    def auxiliary_data(self, steps: Steps, data: ArtifactRef, base: ArtifactRef) -> ArtifactRef:
        """S, drawn from the base, and with it the real data where `aux_data` says so.

        These are the base's own training set: a method never learns which of its images are
        pollution.
        """
        drawn = steps.draw(roles.SELF_SYNTHETIC, purposes.SELF_SYNTHETIC, self.n_s, base)
        real = data if self.aux_data is AuxData.real_and_synthetic else None
        return steps.training_set(roles.AUXILIARY_DATA, real, drawn)

    def fine_tuned(self, steps: Steps, data: ArtifactRef, base: ArtifactRef) -> ArtifactRef:
        """The auxiliary: the base fine-tuned on S."""
        synthetic = self.auxiliary_data(steps, data, base)
        return steps.train(
            roles.FINE_TUNE_AUXILIARY,
            purposes.FINE_TUNE_AUXILIARY,
            self.auxiliary_training(steps.training, steps.model.net),
            {"data": synthetic, "initial": base},
        )

    def auxiliary_training(self, base: TrainingConfig, net: Net) -> TrainingConfig:
        """The base's recipe with the auxiliary's length, batch and rate: see `fine_tuning`.

        Args:
            base: the base's recipe.
            net: the network that is trained.
        """
        return fine_tuning(
            base,
            net,
            kimg=self.budget_mimg * 1000,
            batch_size=self.batch_size,
            learning_rate=self.learning_rate,
        )

    def swept_training(self, base: TrainingConfig, net: Net) -> TrainingConfig:
        """`auxiliary_training` so that a training of every smaller budget is its beginning.

        Its average's half-life is a tenth of the images seen so far, whatever the budget.
        """
        training = self.auxiliary_training(base, net)
        return training.model_copy(update={"ema_rampup_ratio": 0.1})
