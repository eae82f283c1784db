"""What tells runs of a flow apart on Prefect's pages, and which one a run goes on with."""

from __future__ import annotations

import logging
from typing import Any
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import (
    FlowFilter,
    FlowFilterId,
    FlowRunFilter,
    FlowRunFilterParentFlowRunId,
)
from prefect.client.schemas.objects import FlowRun
from prefect.client.schemas.sorting import FlowRunSort
from prefect.states import Cancelled

logger = logging.getLogger("sims_core.attempts")

INTERRUPTED = "interrupted at the terminal; run it again and it goes on where it was"
MOST_TAGS = 8
"""Of one sort."""
LOOKED_AT = 50
"""Latest runs of the flow among which the one before is looked for."""


def tell_apart(flow: Any, flow_run: FlowRun, state: Any) -> None:
    """Gives a run that begins tags for its seeds and methods, and for the run that it goes on with.

    A hook. What ails the pages does not end the run.
    """
    try:
        with get_client(sync_client=True) as client:
            tags = [*flow_run.tags, *_tags(flow_run.parameters)]
            if earlier := _stopped_before(client, flow_run):
                tags.append(f"goes-on-from:{str(earlier.id)[:8]}")
                logger.info("goes on with what %s (%s) has made", earlier.name, earlier.id)
            client.update_flow_run(flow_run.id, tags=list(dict.fromkeys(tags)))
    except Exception:
        logger.debug("the run has no tags", exc_info=True)


def _tags(parameters: dict[str, Any]) -> list[str]:
    """`seed:0`, `method:sims`, `training.kimg=50` of overrides; of a long list the first few."""
    seeds, overrides = parameters.get("seeds") or [], parameters.get("overrides") or {}
    seeds = seeds if isinstance(seeds, list) else [seeds]
    return [
        *(f"seed:{seed}" for seed in seeds[:MOST_TAGS]),
        *(f"method:{method}" for method in (parameters.get("methods") or [])[:MOST_TAGS]),
        *(f"{name}={value}"[:60] for name, value in list(overrides.items())[:MOST_TAGS]),
    ]


def _stopped_before(client: SyncPrefectClient, flow_run: FlowRun) -> FlowRun | None:
    """The run of the same parameters before this one, if it was stopped before its end."""
    for run in client.read_flow_runs(
        flow_filter=FlowFilter(id=FlowFilterId(any_=[flow_run.flow_id])),
        sort=FlowRunSort.EXPECTED_START_TIME_DESC,
        limit=LOOKED_AT,
    ):
        if run.id == flow_run.id or run.parameters != flow_run.parameters:
            continue
        stopped = run.state is not None and run.state.is_final() and not run.state.is_completed()
        return run if stopped else None
    return None


def mark_cancelled(flow_run_id: str) -> None:
    """Marks a flow run that was interrupted, and its arms; Prefect takes that for a crash."""
    run_id = UUID(flow_run_id)
    parent = FlowRunFilterParentFlowRunId(any_=[run_id])
    with get_client(sync_client=True) as client:
        arms = client.read_flow_runs(flow_run_filter=FlowRunFilter(parent_flow_run_id=parent))
        for run in (*arms, client.read_flow_run(run_id)):
            if run.state is None or not (run.state.is_completed() or run.state.is_cancelled()):
                client.set_flow_run_state(run.id, Cancelled(message=INTERRUPTED), force=True)
