"""The contrast to SIMS and Neon: the base fine-tuned on its own samples, taken as the model."""

from __future__ import annotations

from typing import Literal

from sims_core.methods.base import METHODS, Sampled, Steps
from sims_core.methods.self_synthetic import SelfSynthetic
from sims_core.store.artifacts import ArtifactRef


@METHODS.add("fine_tuned")
class FineTuned(SelfSynthetic):
    """The auxiliary of SIMS by itself: what training on self-synthetic data does to a model."""

    kind: Literal["fine_tuned"] = "fine_tuned"

    @property
    def label(self) -> str:
        return "fine-tuned on S"

    def from_auxiliary(self, steps: Steps, base: ArtifactRef, auxiliary: ArtifactRef) -> Sampled:
        return Sampled(auxiliary)
