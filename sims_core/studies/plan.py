"""One node of a plan."""

from __future__ import annotations

from dataclasses import dataclass

from sims_core.store.artifacts import ArtifactRef, StageRequest


@dataclass(frozen=True)
class PlannedStage:
    """One node of the graph. `t` is the generation, 0 for what all arms share."""

    t: int
    role: str
    request: StageRequest
    model: str = ""
    """Of a study over models: which one it measures."""

    @property
    def label(self) -> str:
        if self.model:
            return f"{self.model}: {self.role}"
        return f"t={self.t:02d} {self.role}" if self.t else self.role

    @property
    def ref(self) -> ArtifactRef:
        return self.request.ref
