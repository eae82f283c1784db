"""SIMS: self-improvement with synthetic data (arXiv 2408.16333, Algorithm 1)."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field

from sims_core.common import purposes, roles
from sims_core.common.seeding import MOST_IMAGES
from sims_core.methods.base import METHODS, Method, Sampled, Steps
from sims_core.nets.config import ModelConfig, Net, UNetConfig
from sims_core.store.artifacts import ArtifactRef
from sims_core.training.config import MOST_KIMG, TrainingConfig


class AuxData(StrEnum):
    """What the auxiliary is fine-tuned on. One caption of the paper says the second, three other
    sources the first, hence the default."""

    synthetic = "synthetic"
    real_and_synthetic = "real+synthetic"


@METHODS.add("sims")
class Sims(Method):
    """Draws a set S from the base, fine-tunes an auxiliary on it, samples away from that:
    s = (1 + omega) s_base - omega s_auxiliary (arXiv 2408.16333, Algorithm 1)."""

    STRENGTHS: ClassVar[str | None] = "omegas"
    NETWORKS: ClassVar[int] = 2

    kind: Literal["sims"] = "sims"
    omega: Annotated[float, Field(gt=0)] = 1.0
    """Guidance strength; omega = 0 is standard training."""
    n_s: Annotated[int, Field(ge=1, le=MOST_IMAGES)] = 4000
    """Size of the self-synthetic set S."""
    budget_mimg: Annotated[float, Field(gt=0, le=MOST_KIMG / 1000)] = 0.0128
    """B, the auxiliary's training length in million images seen."""
    batch_size: Annotated[int, Field(ge=1)] = 128
    learning_rate: Annotated[float, Field(gt=0)] = 1e-4
    aux_data: AuxData = AuxData.synthetic
    auxiliary_net: UNetConfig | None = None
    """Another architecture for the auxiliary, which is then trained from scratch on S; None
    fine-tunes the base."""

    @property
    def label(self) -> str:
        return f"sims omega={self.omega:g}"

    @property
    def strength(self) -> float:
        return self.omega

    @property
    def extra_mimg(self) -> float | None:
        return self.budget_mimg

    @classmethod
    def arms(cls, template: Self, strengths: Sequence[float]) -> list[Self]:
        guided = sorted({omega for omega in strengths if omega > 0})
        return [template.model_copy(update={"omega": omega}) for omega in guided]

    def models(self, steps: Steps, data: ArtifactRef, base: ArtifactRef) -> Sampled:
        synthetic = self.auxiliary_data(steps, data, base)
        training = self.auxiliary_training(steps.training, steps.model.net)
        if (other := self.auxiliary_model(steps.model)) is not None:
            role, purpose = roles.TRAIN_AUXILIARY, purposes.TRAIN_AUXILIARY
            inputs = {"data": synthetic}
            auxiliary = steps.train(role, purpose, training, inputs, model=other)
        else:
            role, purpose = roles.FINE_TUNE_AUXILIARY, purposes.FINE_TUNE_AUXILIARY
            inputs = {"data": synthetic, "initial": base}
            auxiliary = steps.train(role, purpose, training, inputs)
        return Sampled(base, auxiliary, self.omega)

    def auxiliary_data(self, steps: Steps, data: ArtifactRef, base: ArtifactRef) -> ArtifactRef:
        """S, drawn from the base, and with it the real data where `aux_data` says so.

        These are the base's own training set: a method never learns which of its images are
        pollution.
        """
        drawn = steps.draw(roles.SELF_SYNTHETIC, purposes.SELF_SYNTHETIC, self.n_s, base)
        real = data if self.aux_data is AuxData.real_and_synthetic else None
        return steps.training_set(roles.AUXILIARY_DATA, real, drawn)

    def auxiliary_model(self, base: ModelConfig) -> ModelConfig | None:
        """The auxiliary's own architecture; None where it is the base's."""
        if self.auxiliary_net is None:
            return None
        return ModelConfig(net=self.auxiliary_net, sigma_data=base.sigma_data)

    def auxiliary_training(self, base: TrainingConfig, net: Net) -> TrainingConfig:
        """The base's recipe with the fine-tune's length, batch and rate.

        Constant rate after no ramp: within a budget this short a ramp or decay would only shrink
        the budget. The EMA's half-life is a tenth of the budget, so that the base's weights have
        all but left it (2^-10) when the budget is spent. An imported network that cannot be told of
        augmentation is not augmented for.

        Args:
            base: the base's recipe.
            net: the base's network.
        """
        kimg = self.budget_mimg * 1000
        told = getattr(self.auxiliary_net or net, "is_told_of_augmentation", False)
        return base.model_copy(
            update={
                "kimg": kimg,
                "batch_size": self.batch_size,
                "learning_rate": self.learning_rate,
                "ramp_kimg": 0.0,
                "decay": "constant",
                "ema_halflife_kimg": kimg / 10,
                "augment": base.augment if told else 0.0,
            }
        )

    def swept_training(self, base: TrainingConfig, net: Net) -> TrainingConfig:
        """`auxiliary_training` so that a training of every smaller budget is its beginning.

        Its average's half-life is a tenth of the images seen so far, whatever the budget.
        """
        training = self.auxiliary_training(base, net)
        return training.model_copy(update={"ema_rampup_ratio": 0.1})
