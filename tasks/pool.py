"""Arms as runs of a deployment: started once, found again, put back when they are lost.

A flow run hands each arm to the work pool and waits. The arm's run is known by a key that is the
same in every attempt of the same run, so that a flow run whose process was killed finds what it
had started.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, cast
from uuid import UUID

from prefect import State
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterId,
    FlowRunFilterIdempotencyKey,
    FlowRunFilterState,
    FlowRunFilterStateType,
    FlowRunFilterTags,
)
from prefect.client.schemas.objects import FlowRun, StateType, WorkerStatus
from prefect.deployments import run_deployment
from prefect.exceptions import ObjectNotFound
from prefect.runtime import flow_run as this_run
from prefect.settings import PREFECT_API_URL
from prefect.states import Cancelled, Cancelling

from sims_core.common.errors import BadInput, SimsError
from tasks.names import ARM_DEPLOYMENT, ARM_TAG, ARMS_POOL
from tasks.retries import may_pass
from tasks.watched import STARTS_CONTAINER_S, STARTS_S, Watched, heartbeats

logger = logging.getLogger("sims_core.pool")

POLL_S = 2.0
HEARTBEATS_S = 10.0
"""How often it is asked which arms have given a sign of life."""
PAGE = 200
"""The server answers with at most so many runs at once."""


@dataclass(frozen=True)
class Job:
    """An arm to be computed by a worker."""

    name: str
    title: str
    """What its flow run is called."""
    key: str
    """The same in every attempt of the same run, and of no other arm or run."""
    parameters: dict[str, Any]
    """Of flow `arm`."""


def require_pool() -> None:
    """Makes sure that somebody computes what is put into the pool of arms.

    Raises:
        BadInput: no server is named, it was not set up, or no worker listens.
    """
    if not (url := PREFECT_API_URL.value()):
        raise BadInput(
            "arms=pool wants a Prefect server, and PREFECT_API_URL names none: see docs/scale.md, "
            "or leave out arms"
        )
    with get_client(sync_client=True) as client:
        try:
            client.read_deployment_by_name(f"{ARM_DEPLOYMENT}/{ARM_DEPLOYMENT}")
            workers = client.read_workers_for_work_pool(ARMS_POOL)
        except ObjectNotFound:
            raise BadInput(
                f"arms=pool: the Prefect server at {url} has no work pool {ARMS_POOL!r} or no "
                f"deployment {ARM_DEPLOYMENT!r}: `sims setup`, then "
                "`prefect --no-prompt deploy --all` in the checkout"
            ) from None
    if not any(worker.status is WorkerStatus.ONLINE for worker in workers):
        raise BadInput(
            f"arms=pool: no worker listens at the pool {ARMS_POOL!r} of {url}: start some with "
            "`sims workers`"
        )


def compute_in_pool(
    jobs: Sequence[Job], ended: Callable[[Job], None], meanwhile: Callable[[], None]
) -> None:
    """Has the arms computed, and waits until the last has ended.

    Args:
        ended: told of each that was computed.
        meanwhile: called again and again while there is one to wait for.

    Raises:
        SimsError: arms failed, which are named, each with its reason; or this run was cancelled.
    """
    with get_client(sync_client=True) as client:
        own = UUID(this_run.id)
        runs = {_find_or_start(client, job, own).id: job for job in jobs}
        pool = client.read_work_pool(ARMS_POOL).type
        starts_s = STARTS_S.get(pool, STARTS_CONTAINER_S)
        watched = {run: Watched(job.name, starts_s) for run, job in runs.items()}
        failed = _wait(client, own, runs, watched, ended, meanwhile)
    if failed:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in failed.items())
        raise SimsError(f"{len(failed)} of {len(jobs)} arms failed, the others are kept: {reasons}")


def _of_run(own: UUID) -> str:
    """The tag of all arms that a flow run waits for."""
    return f"arm-of:{own}"


def _find_or_start(client: SyncPrefectClient, job: Job, own: UUID) -> FlowRun:
    """The run that computes the arm: one that has not ended, else a new one."""
    number = 0
    while True:
        key = f"{job.key}-{number}"
        wanted = FlowRunFilterIdempotencyKey(any_=[key])
        found = client.read_flow_runs(flow_run_filter=FlowRunFilter(idempotency_key=wanted))
        if not found:
            started = _start(job, key, own)
            logger.info("%s: handed to the workers (flow run %s)", job.name, started.id)
            return started
        run = found[0]
        if run.state is not None and not run.state.is_final() and not run.state.is_cancelling():
            client.update_flow_run(run.id, tags={*run.tags, _of_run(own)})
            logger.info("%s: %s already (flow run %s)", job.name, run.state.name, run.id)
            return run
        number += 1


def _start(job: Job, key: str, own: UUID) -> FlowRun:
    """A new run of the arm, as a sub-flow of this one."""
    started = run_deployment(
        f"{ARM_DEPLOYMENT}/{ARM_DEPLOYMENT}",
        parameters=job.parameters,
        flow_run_name=job.title,
        tags=[ARM_TAG, _of_run(own)],
        idempotency_key=key,
        timeout=0,
    )
    return cast(FlowRun, started)  # a coroutine where this is called from one


def _read(client: SyncPrefectClient, ids: Sequence[UUID]) -> Iterator[FlowRun]:
    for first in range(0, len(ids), PAGE):
        wanted = FlowRunFilter(id=FlowRunFilterId(any_=list(ids[first : first + PAGE])))
        yield from client.read_flow_runs(flow_run_filter=wanted, limit=PAGE)


def _wait(
    client: SyncPrefectClient,
    own: UUID,
    jobs: Mapping[UUID, Job],
    watched: dict[UUID, Watched],
    ended: Callable[[Job], None],
    meanwhile: Callable[[], None],
) -> dict[str, str]:
    """Waits for runs to end, and says how they are doing.

    Returns:
        Why arms failed, by name.
    """
    failed: dict[str, str] = {}
    computed: list[Job] = []
    heard: dict[UUID, datetime] = {}
    asked_at = -math.inf
    lost = False
    while watched:
        time.sleep(POLL_S)
        meanwhile()
        try:
            _obey_cancelling(client, own)
            if time.monotonic() - asked_at >= HEARTBEATS_S:
                heard.update(heartbeats(client, list(watched)))
                asked_at = time.monotonic()
            for run in list(_read(client, list(watched))):
                if (reason := watched[run.id].look(client, run, heard.get(run.id))) is not None:
                    del watched[run.id]
                    if reason:
                        failed[jobs[run.id].name] = reason
                    else:
                        computed.append(jobs[run.id])
            lost = False
        except Exception as error:
            if not may_pass(error):
                raise
            if not lost:
                logger.warning("waits for the Prefect server: %s", error)
            lost = True
            for each in watched.values():  # whose signs of life do not reach it either
                each.hear()
        while computed:  # what it raises is not the server's
            ended(computed.pop(0))
    return failed


def _obey_cancelling(client: SyncPrefectClient, own: UUID) -> None:
    """Under a worker a run that is to be cancelled is killed; one that waits in the process of
    `sims run` has to look.

    Raises:
        SimsError: this run was cancelled; so are its arms now.
    """
    run = client.read_flow_run(own)
    if run.state is not None and (run.state.is_cancelling() or run.state.is_cancelled()):
        cancel_arms(None, run, None)
        cancelled: State[Any] = Cancelled(message="cancelled with its arms")
        client.set_flow_run_state(own, cancelled, force=True)
        raise SimsError("cancelled, and its arms with it; what they finished is kept")


def cancel_arms(flow: Any, flow_run: FlowRun, state: Any) -> None:
    """Cancels the arms that a flow run waits for, and that have not ended: a hook of flows."""
    live = FlowRunFilterState(
        type=FlowRunFilterStateType(
            any_=[StateType.SCHEDULED, StateType.PENDING, StateType.RUNNING, StateType.PAUSED]
        )
    )
    of_run = FlowRunFilter(tags=FlowRunFilterTags(all_=[_of_run(flow_run.id)]), state=live)
    with get_client(sync_client=True) as client:
        while found := client.read_flow_runs(flow_run_filter=of_run, limit=PAGE):
            for run in found:
                cancelling: State[Any] = Cancelling(message=f"{flow_run.name} was cancelled")
                client.set_flow_run_state(run.id, cancelling, force=True)
