"""One Prefect task per stage of sims_core: look in the store, else compute; return a reference."""

from __future__ import annotations

import logging
import time
from contextlib import nullcontext
from functools import cache

from prefect import State, Task, task
from prefect.runtime import task_run

from sims_core.catalog import STAGES, run_stage
from sims_core.reports.summary import Outcome
from sims_core.settings import Settings, open_store
from sims_core.store.artifacts import ArtifactRef, StageRequest
from sims_core.store.store import Store
from sims_core.studies.plan import PlannedStage
from tasks.accelerator import accelerator_slot
from tasks.caching import BY_DIGEST, results_folder
from tasks.live import live_progress
from tasks.progress import observer
from tasks.retries import DELAYS_S, worth_another_attempt

# What stages say (resumed at ..., waiting for ...) belongs into the run's log; see
# PREFECT_LOGGING_EXTRA_LOGGERS. Prefect leaves the level at warnings.
logging.getLogger("sims_core").setLevel(logging.INFO)


def _compute(label: str, request: StageRequest, upstream: list[ArtifactRef]) -> ArtifactRef:
    """Computes the artifact of `request` unless the store holds it.

    `upstream` is not used: Prefect draws the graph's edges from it.
    """

    store, settings = open_store(), Settings.read()
    execution = settings.execution()
    slot = accelerator_slot(settings) if STAGES[request.stage].accelerated else nullcontext()
    with slot, live_progress(label) as show:

        def progress(done: int, total: int, unit: str, **figures: float) -> None:
            observer().advanced(label, done, total, unit, **figures)
            show(done, total, unit, **figures)

        return run_stage(store, request, execution, computed_by=str(task_run.id), progress=progress)


@cache
def stage_task(stage: str) -> Task[[str, StageRequest, list[ArtifactRef]], ArtifactRef]:
    """The Prefect task of a stage, named after it."""
    return task(
        name=stage,
        description=f"Stage {stage} v{STAGES[stage].version} of sims_core",
        task_run_name="{label}",
        cache_policy=BY_DIGEST,
        persist_result=True,
        result_serializer="json",
        retries=len(DELAYS_S),
        retry_delay_seconds=DELAYS_S,
        retry_condition_fn=worth_another_attempt,
    )(_compute)


def run_task(
    store: Store,
    stage: PlannedStage,
    upstream: list[State[ArtifactRef]],
    arm: str,
    tagged: bool = True,
) -> tuple[State[ArtifactRef], Outcome]:
    """Runs one planned stage as a task of the current flow run and waits for it.

    Args:
        upstream: states of the tasks that made its inputs: the graph's edges.
        arm: name of the arm that it belongs to, empty for the setup.
        tagged: whether to tag it with its generation. Prefect asks for the concurrency limit of
            each tag, which takes up to 2 s for a new one.
    """
    observer().started(arm, stage.label)
    started = time.monotonic()
    run = stage_task(stage.request.stage).with_options(
        result_storage=results_folder(store),
        refresh_cache=not store.is_whole(stage.ref),
        tags=[f"generation:{stage.t}"] if tagged and stage.t else [],
    )
    state = run(stage.label, stage.request, upstream, return_state=True)
    state.result()  # raises what the task raised
    record = store.record(stage.ref)
    cached = record is None or record.computed_by != str(state.state_details.task_run_id)
    observer().finished(arm, stage.label, cached, time.monotonic() - started)
    return state, Outcome(arm, stage, cached, record.seconds if record else 0.0)
