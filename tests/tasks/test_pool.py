"""Arms in the pool, with Prefect's own API and a worker that only sets the states of runs."""

from __future__ import annotations

import time
from contextlib import contextmanager, suppress
from threading import Event, Thread
from uuid import uuid4

import pytest
from prefect import events, flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterTags
from prefect.client.schemas.responses import SetStateStatus
from prefect.exceptions import ObjectAlreadyExists
from prefect.states import (
    Cancelled,
    Cancelling,
    Completed,
    Crashed,
    Failed,
    Pending,
    Running,
    State,
)

from infra.server.setup import AUTOMATION
from sims_core.common.errors import BadInput, SimsError
from tasks import pool, watched
from tasks.names import ARM_DEPLOYMENT, ARM_TAG, ARMS_POOL, HEARTBEAT
from tasks.pool import Job, compute_in_pool, require_pool
from tasks.watched import MOST_STARTS


@pytest.fixture(scope="module")
def client(prefect_url):
    with get_client(sync_client=True) as client:
        yield client


@pytest.fixture(scope="module")
def deployment(client):
    """Pool and deployment, as `sims setup` and `prefect deploy` make them."""
    with pytest.raises(BadInput, match="no work pool 'sims-arms' or no deployment 'arm'"):
        require_pool()
    with suppress(ObjectAlreadyExists):  # other tests set the same server up
        client.create_work_pool(WorkPoolCreate(name=ARMS_POOL, type="process"))
    flow_id = client.create_flow_from_name(ARM_DEPLOYMENT)
    client.create_deployment(
        flow_id, ARM_DEPLOYMENT, work_pool_name=ARMS_POOL, entrypoint="x.y", tags=[ARM_TAG]
    )


@pytest.fixture
def jobs(deployment, monkeypatch):
    """Two arms, which no other test knows."""
    monkeypatch.setattr(pool, "POLL_S", 0.05)
    monkeypatch.setattr(pool, "HEARTBEATS_S", 0.0)
    monkeypatch.setattr(watched, "CRASH_SETTLES_S", 0.0)
    key = uuid4().hex
    return [Job(name, f"{name} of run", f"{key}-{name}", {"part": name}) for name in ("one", "two")]


@pytest.fixture
def children(client):
    """The runs of these jobs, by name."""

    def find(jobs):
        tagged = FlowRunFilter(tags=FlowRunFilterTags(all_=[ARM_TAG]))
        keys = {job.key for job in jobs}
        found = client.read_flow_runs(flow_run_filter=tagged, limit=200)
        return [run for run in found if run.idempotency_key.rpartition("-")[0] in keys]

    return find


def wait(jobs, ended=lambda job: None, meanwhile=lambda: None):
    """A flow run that has these arms computed."""
    return flow(name="waits")(lambda: compute_in_pool(jobs, ended, meanwhile))()


@contextmanager
def worker(client, children, jobs, final, takes=lambda run: True):
    """Starts each run that waits and that it takes, and sets the state that `final(run)` says."""
    ended = Event()

    def work():
        while not ended.wait(0.05):
            for run in children(jobs):
                if run.state.is_scheduled() and takes(run):
                    client.set_flow_run_state(run.id, Running(), force=True)
                    if (state := final(run)) is not None:
                        client.set_flow_run_state(run.id, state, force=True)

    thread = Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def test_arms_are_handed_to_the_pool_with_what_they_are_to_compute(client, jobs, children):
    done, looks = [], []
    with worker(client, children, jobs, lambda run: Completed()):
        wait(jobs, lambda job: done.append(job.name), lambda: looks.append(len(done)))
    assert sorted(done) == ["one", "two"]
    assert looks[0] == 0, "looked before the first had ended"
    assert {run.name: run.parameters for run in children(jobs)} == {
        "one of run": {"part": "one"},
        "two of run": {"part": "two"},
    }


def test_a_failed_arm_fails_alone_and_is_named(client, jobs, children):
    done = []

    def final(run):
        return Failed(message="no memory") if run.name == "one of run" else Completed()

    with (
        worker(client, children, jobs, final),
        pytest.raises(
            SimsError, match=r"^1 of 2 arms failed, the others are kept: one: no memory$"
        ),
    ):
        wait(jobs, lambda job: done.append(job.name))
    assert done == ["two"]


def test_a_run_whose_process_was_killed_finds_its_arms_and_starts_none_twice(
    client, jobs, children, monkeypatch
):
    class Killed(BaseException):
        pass

    def killed(*_):
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(pool, "_wait", killed)
        with pytest.raises(Killed):
            wait(jobs)
    first = {run.id for run in children(jobs)}

    def found_again(run):
        return len([tag for tag in run.tags if tag.startswith("arm-of:")]) == 2

    with worker(client, children, jobs, lambda run: Completed(), found_again):
        wait(jobs)
    assert {run.id for run in children(jobs)} == first
    assert len(first) == 2
    # Ended ones were computed long ago: what the store lacks by now is computed anew.
    with worker(client, children, jobs, lambda run: Completed()):
        wait(jobs)
    assert len(children(jobs)) == 4


def test_a_lost_arm_is_put_back_and_given_up_after_three_starts(client, jobs, children):
    with (
        worker(client, children, jobs[:1], lambda run: Crashed(message="the process is gone")),
        pytest.raises(SimsError, match="one: started 3 times and lost each time; last: "),
    ):
        wait(jobs[:1])
    (run,) = children(jobs[:1])
    assert run.state.is_failed()
    assert run.state.message.startswith("started 3 times and lost each time")
    assert watched.starts(client.read_flow_run_states(run.id)) == MOST_STARTS


def _beats(client, run):
    """A sign of life, as the process of a run gives it."""
    resource = {"prefect.resource.id": f"prefect.flow-run.{run.id}"}
    event = events.Event(event=HEARTBEAT, resource=resource, id=uuid4())
    client.request("POST", "/events", json=[event.model_dump(mode="json")])


def _messages(client, run):
    return [state.message for state in client.read_flow_run_states(run.id) if state.message]


@pytest.mark.parametrize(
    ("last", "said"),
    [
        (lambda: None, "no sign of life for 1 s: another worker takes over"),
        (Pending, "not begun for 1 s: another worker takes over"),
        (
            lambda: Crashed(message=AUTOMATION.actions[0].message),
            "no sign of life for 1 s: another worker takes over",
        ),
    ],
    ids=["running", "pending", "called silent"],
)
def test_an_arm_that_falls_silent_is_put_back(client, jobs, children, monkeypatch, last, said):
    monkeypatch.setattr(watched, "SILENT_S", 1.0)
    monkeypatch.setitem(watched.STARTS_S, "process", 1.0)
    seen = []

    def final(run):
        seen.append(run.id)
        return last() if len(seen) == 1 else Completed()

    with worker(client, children, jobs[:1], final):
        wait(jobs[:1])
    (run,) = children(jobs[:1])
    assert said in _messages(client, run)
    assert watched.starts(client.read_flow_run_states(run.id)) == 2


@pytest.mark.parametrize("called", [None, AUTOMATION.actions[0].message])
def test_an_arm_that_gives_signs_of_life_is_left_alone_whatever_an_automation_says(
    client, jobs, children, monkeypatch, called
):
    monkeypatch.setattr(watched, "SILENT_S", 2.0)
    looks = []

    def meanwhile():
        looks.append(time.monotonic())
        (run,) = children(jobs[:1])
        _beats(client, run)
        if run.state.is_running() and called:
            client.set_flow_run_state(run.id, Crashed(message=called))
        if looks[-1] - looks[0] > 6.0:
            client.set_flow_run_state(run.id, Completed(), force=True)

    with worker(client, children, jobs[:1], lambda run: None):
        wait(jobs[:1], meanwhile=meanwhile)
    (run,) = children(jobs[:1])
    assert [message for message in _messages(client, run) if "takes over" in message] == []
    assert not run.state.is_scheduled()


@pytest.mark.parametrize("ended", [Completed, Cancelled, Failed, Crashed])
def test_the_automation_reaches_no_run_that_has_ended(client, deployment, ended):
    """A server that loses events takes such a run for silent."""
    (of_arms,) = client.read_deployments()
    key = f"{uuid4().hex}-0"
    run = client.create_flow_run_from_deployment(of_arms.id, idempotency_key=key)
    for state in (Running(), ended()):
        client.set_flow_run_state(run.id, state, force=True)
    (action,) = AUTOMATION.actions
    late = State(type=action.state, name=action.name, message=action.message)
    answer = client.set_flow_run_state(run.id, late, force=action.force)
    assert answer.status is SetStateStatus.ABORT
    assert client.read_flow_run(run.id).state.name == ended().name


def test_who_cancels_a_run_cancels_its_arms(client, jobs, children, wait_for):
    others = [Job("other", "other of run", uuid4().hex, {})]

    def cancel():
        alive = wait_for(lambda: len(found := children(jobs)) == 2 and found)
        parent = client.read_flow_run(
            next(tag for tag in alive[0].tags if tag.startswith("arm-of:")).removeprefix("arm-of:")
        )
        client.set_flow_run_state(parent.id, Cancelling(), force=True)

    thread = Thread(target=cancel)
    thread.start()
    with pytest.raises(SimsError, match="cancelled, and its arms with it"):
        wait(jobs)
    thread.join()
    assert {run.state.type.value for run in children(jobs)} <= {"CANCELLING", "CANCELLED"}
    assert children(others) == []


def test_a_server_that_is_lost_for_a_while_is_waited_for(client, jobs, children, monkeypatch):
    read, lost = pool._read, []

    def unreachable(*given):
        if len(lost) < 3:
            lost.append(time.monotonic())
            raise ConnectionError("nobody there")
        return read(*given)

    monkeypatch.setattr(pool, "_read", unreachable)
    with worker(client, children, jobs, lambda run: Completed()):
        wait(jobs)
    assert len(lost) == 3


def test_without_a_worker_nothing_is_handed_over(client, deployment):
    with pytest.raises(BadInput, match="no worker listens at the pool 'sims-arms'"):
        require_pool()
    client.send_worker_heartbeat(ARMS_POOL, "a-worker", heartbeat_interval_seconds=30)
    require_pool()
