"""SIMS: self-improvement with synthetic data (arXiv 2408.16333, Algorithm 1)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

from sims_core.common import purposes, roles
from sims_core.methods.base import METHODS, Sampled, Steps
from sims_core.methods.guided import Guided
from sims_core.methods.self_synthetic import SelfSynthetic
from sims_core.nets.config import ModelConfig, NetOrUNet
from sims_core.store.artifacts import ArtifactRef


@METHODS.add("sims")
class Sims(SelfSynthetic, Guided):
    """Samples away from the base fine-tuned on its own samples:
    s = (1 + omega) s_base - omega s_auxiliary (arXiv 2408.16333, Algorithm 1)."""

    NETS: ClassVar[Mapping[str, str | None]] = {"auxiliary_net": "unet"}

    kind: Literal["sims"] = "sims"
    auxiliary_net: NetOrUNet | None = None
    """Another architecture for the auxiliary, which is then trained from scratch on S; None
    fine-tunes the base."""

    def models(self, steps: Steps, data: ArtifactRef, base: ArtifactRef) -> Sampled:
        if self.auxiliary_net is None:
            return super().models(steps, data, base)
        auxiliary = steps.train(
            roles.TRAIN_AUXILIARY,
            purposes.TRAIN_AUXILIARY,
            self.auxiliary_training(steps.training, self.auxiliary_net),
            {"data": self.auxiliary_data(steps, data, base)},
            model=ModelConfig(net=self.auxiliary_net, sigma_data=steps.model.sigma_data),
        )
        return self.from_auxiliary(steps, base, auxiliary)

    def from_auxiliary(self, steps: Steps, base: ArtifactRef, auxiliary: ArtifactRef) -> Sampled:
        return Sampled(base, auxiliary, self.omega, self.interval)
