"""Every stage by its name, and the one way to run any of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sims_core.common.errors import BadInput
from sims_core.data import stages as data
from sims_core.engine import run
from sims_core.engine.execution import Execution
from sims_core.engine.stage import Progress, Stage, no_progress
from sims_core.evaluation import stages as evaluation
from sims_core.latents import stages as latents
from sims_core.nets import stages as nets
from sims_core.sampling import stages as sampling
from sims_core.store.artifacts import ArtifactRef, StageRequest
from sims_core.store.store import Store
from sims_core.training import stages as training

STAGES: dict[str, Stage[Any]] = {
    stage.name: stage
    for package in (data, nets, sampling, latents, evaluation, training)
    for stage in package.STAGES
}


def add_stage(stage: Stage[Any]) -> None:
    """Makes a stage known that lies outside of this package.

    Raises:
        ValueError: there is another one of that name.
    """
    if STAGES.setdefault(stage.name, stage) is not stage:
        raise ValueError(f"there is a stage {stage.name} already")


def find_stage(request: StageRequest) -> Stage[Any]:
    """The stage that a request is for.

    Raises:
        BadInput: there is no such stage, or only another version of it.
    """
    stage = STAGES.get(request.stage)
    if stage is None or (stage.version, stage.kind) != (request.version, request.kind):
        raise BadInput(
            f"no stage {request.stage} version {request.version} here; stages: "
            + ", ".join(f"{s.name} v{s.version}" for s in STAGES.values())
        )
    return stage


def run_stage(
    store: Store,
    request: StageRequest,
    execution: Execution,
    *,
    computed_by: str | None = None,
    progress: Progress = no_progress,
    anew: Callable[[], bool] = lambda: False,
) -> ArtifactRef:
    """The artifact of `request`, read or computed; see `sims_core.engine.run.run_stage`."""
    return run.run_stage(
        store,
        find_stage(request),
        request,
        execution,
        computed_by=computed_by,
        progress=progress,
        anew=anew,
    )
