"""An arm does not stay Running when the run that it belongs to was killed or has failed."""

from __future__ import annotations

from typing import Any

from prefect import State
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterParentFlowRunId
from prefect.client.schemas.objects import FlowRun
from prefect.states import Crashed

KILLED = (
    "the process of this run was killed, or lost Prefect's server for too long; run it again and "
    "it goes on where it was"
)


def crash_arms(flow: Any, flow_run: FlowRun, state: Any) -> None:
    """Marks the sub-flow runs that have not ended.

    A hook of a flow that has crashed (a worker calls it when the run's process is gone), of one
    that has failed (a server that was away for too long has not heard of its arms' end), and of one
    that begins: an earlier attempt may have died together with its worker.
    """
    parent = FlowRunFilterParentFlowRunId(any_=[flow_run.id])
    with get_client(sync_client=True) as client:
        for arm in client.read_flow_runs(flow_run_filter=FlowRunFilter(parent_flow_run_id=parent)):
            # One that a worker of the pool computes lives on by itself, and is found again.
            if arm.deployment_id is None and not (arm.state and arm.state.is_final()):
                crashed: State[Any] = Crashed(message=KILLED)
                client.set_flow_run_state(arm.id, crashed, force=True)
