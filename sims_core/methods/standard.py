"""Standard training: the base is the model."""

from __future__ import annotations

from typing import ClassVar, Literal

from sims_core.methods.base import METHODS, Method, Sampled, Steps
from sims_core.store.artifacts import ArtifactRef


@METHODS.add("standard")
class Standard(Method):
    """Standard training: nothing is done beyond training the base."""

    IS_BASELINE: ClassVar[bool] = True

    kind: Literal["standard"] = "standard"

    def models(self, steps: Steps, data: ArtifactRef, base: ArtifactRef) -> Sampled:
        return Sampled(base)
