"""Which arms are marked Crashed when their run has ended without them."""

from __future__ import annotations

import pytest
from prefect import flow, task
from prefect.client.orchestration import get_client
from prefect.states import Completed, Failed, Running

from flows.registry import load_flow
from tasks.crashes import KILLED, crash_arms


@flow(name="arm")
def arm():
    """Never run here."""


@flow(name="run")
def run():
    """Never run here."""


@task
def call():
    """What Prefect makes of the call of a sub-flow."""


@pytest.fixture
def client(prefect_url):
    with get_client(sync_client=True) as client:
        yield client


def test_a_run_that_has_failed_leaves_no_arm_running(client):
    """As when the server was away while both ended: it has heard of the run's end alone."""
    parent = client.create_flow_run(run, state=Running())
    arms = []
    for number, state in enumerate((Running(), Completed())):
        called = client.create_task_run(call, parent.id, str(number))
        arms.append(client.create_flow_run(arm, parent_task_run_id=called.id, state=state).id)
    client.set_flow_run_state(parent.id, Failed(), force=True)
    crash_arms(None, client.read_flow_run(parent.id), None)
    running, completed = (client.read_flow_run(each).state for each in arms)
    assert running.is_crashed()
    assert running.message == KILLED
    assert completed.is_completed()


def test_a_loop_asks_for_it_however_it_ends_badly():
    loop = load_flow("sims-loop")
    assert crash_arms in loop.on_failure_hooks
    assert crash_arms in loop.on_crashed_hooks
