"""What deployments need of a Prefect server: made by `sims setup`, once or any number of times."""

from __future__ import annotations

from contextlib import suppress
from datetime import timedelta
from pathlib import Path

from prefect.automations import AutomationCore, ChangeFlowRunState, EventTrigger, Posture
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import (
    GlobalConcurrencyLimitCreate,
    GlobalConcurrencyLimitUpdate,
    WorkPoolCreate,
    WorkPoolUpdate,
)
from prefect.client.schemas.objects import StateType
from prefect.events.schemas.events import ResourceSpecification
from prefect.exceptions import ObjectAlreadyExists, ObjectNotFound
from prefect.settings import PREFECT_API_URL
from prefect.workers.process import ProcessWorker

from infra.server.deployments import WORK_POOL
from infra.server.pools import read_pool
from infra.server.prefect_api import check_prefect_api
from sims_core.common.errors import BadInput
from sims_core.settings import writable_store
from tasks.accelerator import GPU_LIMIT
from tasks.names import ARMS_POOL, HEARTBEAT, SILENT

DEAD_AFTER = timedelta(seconds=120)
"""Four heartbeats (PREFECT_FLOWS_HEARTBEAT_FREQUENCY)."""
AUTOMATION = AutomationCore(
    name="sims: a run without a heartbeat has crashed",
    description=(
        "A run that was killed together with whatever started it would stay Running for ever. "
        "Made by `sims setup`."
    ),
    trigger=EventTrigger(
        after={HEARTBEAT},
        expect={"prefect.flow-run.*"},
        match=ResourceSpecification({"prefect.resource.id": "prefect.flow-run.*"}),
        for_each={"prefect.resource.id"},
        posture=Posture.Proactive,
        threshold=1,
        within=DEAD_AFTER,
    ),
    # Crashed is a state that the server refuses to a run that has ended.
    actions=[
        ChangeFlowRunState(
            state=StateType.CRASHED,
            message=f"{SILENT} for {DEAD_AFTER.seconds} s; retry the run and it goes on",
        )
    ],
)


def set_up(gpus: int | None, arms_pool: Path | None = None) -> dict[str, str]:
    """Makes the store, work pool, GPU limit and automation that are not there yet.

    Args:
        gpus: How many stages may use an accelerator at once; None leaves the limit as it is, 1 if
            there is none.
        arms_pool: File of the pool in which arms run in containers; None leaves the pool as it is,
            one of processes if there is none.

    Returns:
        What there is now, by name.

    Raises:
        BadInput: no server is named or none answers, the store cannot be written, or the file of
            the pool is not right or of another type than the pool that is there.
    """
    if not (url := PREFECT_API_URL.value()):
        raise BadInput(
            "no Prefect server is named: start one with `prefect server start`, then "
            "`export PREFECT_API_URL=http://127.0.0.1:4200/api`"
        )
    check_prefect_api()
    pool = read_pool(arms_pool, ARMS_POOL) if arms_pool else None
    store = writable_store()
    with get_client(sync_client=True) as client:
        return {
            "server": url,
            "store": str(store.root),
            "work pool": _make_work_pool(client, _of_processes(WORK_POOL)),
            "work pool of arms": _make_arms_pool(client, pool),
            "concurrency limit": _make_gpu_limit(client, gpus),
            "automation": _make_automation(client),
        }


def _of_processes(name: str) -> WorkPoolCreate:
    return WorkPoolCreate(
        name=name,
        type=ProcessWorker.type,
        base_job_template=ProcessWorker.get_default_base_job_template(),
    )


def _make_work_pool(client: SyncPrefectClient, pool: WorkPoolCreate) -> str:
    """Makes the pool if it is not there.

    Raises:
        BadInput: it is there, and of another type.
    """
    try:
        client.create_work_pool(pool)
    except ObjectAlreadyExists:
        found = client.read_work_pool(pool.name).type
        if found != pool.type:
            raise BadInput(
                f"work pool {pool.name!r} is of type {found}, it must be {pool.type}: "
                f"`prefect work-pool delete {pool.name}`, then run this again"
            ) from None
    return f"{pool.name} ({pool.type})"


def _make_arms_pool(client: SyncPrefectClient, pool: WorkPoolCreate | None) -> str:
    """The pool of arms as it is wanted; without a wish the one that is there, of whatever type."""
    if pool is None:
        with suppress(ObjectNotFound):
            return f"{ARMS_POOL} ({client.read_work_pool(ARMS_POOL).type})"
        return _make_work_pool(client, _of_processes(ARMS_POOL))
    made = _make_work_pool(client, pool)
    client.update_work_pool(
        ARMS_POOL, WorkPoolUpdate(base_job_template=dict(pool.base_job_template))
    )
    return made


def _make_gpu_limit(client: SyncPrefectClient, gpus: int | None) -> str:
    try:
        limit = client.read_global_concurrency_limit_by_name(GPU_LIMIT).limit
    except ObjectNotFound:
        limit = gpus or 1
        client.create_global_concurrency_limit(
            GlobalConcurrencyLimitCreate(name=GPU_LIMIT, limit=limit)
        )
    if gpus is not None and gpus != limit:
        limit = gpus
        client.update_global_concurrency_limit(GPU_LIMIT, GlobalConcurrencyLimitUpdate(limit=limit))
    return f"{GPU_LIMIT} ({limit} at once)"


def _make_automation(client: SyncPrefectClient) -> str:
    found = client.read_automations_by_name(AUTOMATION.name)
    fields = set(AutomationCore.model_fields)
    if not found:
        client.create_automation(AUTOMATION)
    # An update forgets which runs have gone silent: they would stay Running for ever.
    elif found[0].model_dump(include=fields) != AUTOMATION.model_dump():
        client.update_automation(found[0].id, AUTOMATION)
    return f"runs without a sign of life for {DEAD_AFTER.seconds} s become Crashed"
