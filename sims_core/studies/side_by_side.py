"""What several workers compute of one plan side by side, so that all of it is computed."""

from __future__ import annotations

from dataclasses import dataclass

from sims_core.common.digest import digest_of
from sims_core.store.artifacts import ArtifactRef
from sims_core.studies.plan import Plan, PlannedStage

REST = "what no arm needs"


@dataclass(frozen=True)
class Part:
    """Stages that one worker makes by itself, whatever others make of them meanwhile."""

    name: str
    own: tuple[PlannedStage, ...]
    needed: tuple[PlannedStage, ...]
    """What the own stages are made from, which other parts may need as well."""

    @property
    def stages(self) -> tuple[PlannedStage, ...]:
        """All of them, in an order in which they can run."""
        return (*self.needed, *self.own)

    @property
    def digest(self) -> str:
        """Names what is made: that of another plan with a part of this name differs."""
        return digest_of([stage.ref.location for stage in self.stages])


def parts_of(plan: Plan) -> list[Part]:
    """The parts of a plan, each with all that it needs, and together all of the plan's stages."""
    planned: dict[ArtifactRef, PlannedStage] = {}
    for stage in plan:
        planned.setdefault(stage.ref, stage)
    parts = [Part(name, own, _needed(planned, own)) for name, own in plan.parts]
    made = {stage.ref for part in parts for stage in part.stages}
    if rest := tuple(stage for ref, stage in planned.items() if ref not in made):
        parts.append(Part(REST, rest, _needed(planned, rest)))
    return parts


def _needed(
    planned: dict[ArtifactRef, PlannedStage], own: tuple[PlannedStage, ...]
) -> tuple[PlannedStage, ...]:
    """The other stages of a plan that these are made from, in the plan's order."""
    known, needed = {stage.ref for stage in own}, set[ArtifactRef]()
    found = list(own)
    while found:
        for ref in found.pop().request.inputs.values():
            if ref in planned and ref not in known:
                known.add(ref)
                needed.add(ref)
                found.append(planned[ref])
    return tuple(stage for ref, stage in planned.items() if ref in needed)
