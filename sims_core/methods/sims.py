"""SIMS: self-improvement with synthetic data (arXiv 2408.16333, Algorithm 1)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field

from sims_core.common import purposes, roles
from sims_core.methods.base import METHODS, Sampled, Steps
from sims_core.methods.self_synthetic import SelfSynthetic
from sims_core.nets.config import ModelConfig, NetOrUNet
from sims_core.store.artifacts import ArtifactRef


@METHODS.add("sims")
class Sims(SelfSynthetic):
    """Samples away from the base fine-tuned on its own samples:
    s = (1 + omega) s_base - omega s_auxiliary (arXiv 2408.16333, Algorithm 1)."""

    STRENGTHS: ClassVar[str | None] = "omegas"
    NETWORKS: ClassVar[int] = 2

    kind: Literal["sims"] = "sims"
    omega: Annotated[float, Field(gt=0)] = 1.0
    """Guidance strength; omega = 0 is standard training."""
    auxiliary_net: NetOrUNet | None = None
    """Another architecture for the auxiliary, which is then trained from scratch on S; None
    fine-tunes the base."""

    @property
    def label(self) -> str:
        return f"sims omega={self.omega:g}"

    @property
    def strength(self) -> float:
        return self.omega

    @classmethod
    def arms(cls, template: Self, strengths: Sequence[float]) -> list[Self]:
        guided = sorted({omega for omega in strengths if omega > 0})
        return [template.model_copy(update={"omega": omega}) for omega in guided]

    def models(self, steps: Steps, data: ArtifactRef, base: ArtifactRef) -> Sampled:
        if self.auxiliary_net is None:
            return Sampled(base, self.fine_tuned(steps, data, base), self.omega)
        auxiliary = steps.train(
            roles.TRAIN_AUXILIARY,
            purposes.TRAIN_AUXILIARY,
            self.auxiliary_training(steps.training, self.auxiliary_net),
            {"data": self.auxiliary_data(steps, data, base)},
            model=ModelConfig(net=self.auxiliary_net, sigma_data=steps.model.sigma_data),
        )
        return Sampled(base, auxiliary, self.omega)
