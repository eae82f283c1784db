"""Arms whose worker, or whose process, is killed, with real workers of a real server."""

from __future__ import annotations

import re
import time
from contextlib import suppress
from datetime import datetime

import psutil
import pytest

pytestmark = pytest.mark.slow

TAKEN_OVER_S = 300.0
"""From the kill until another worker computes the arm: 90 s of silence, and starting it. It is
within 150 s where nobody else computes; the test prints how long it took."""


def _children(deployed, known):
    """The arms that have come since, by name."""
    found = deployed.runs(tags={"all_": ["sims-arm"]})
    return {run["name"]: run for run in found if run["id"] not in known}


@pytest.fixture
def known(deployed):
    return {run["id"] for run in deployed.runs(tags={"all_": ["sims-arm"]})}


def _lose(command) -> float:
    """Kills `sims workers` and all that it has started, as if the host were gone; when that was."""
    processes = [psutil.Process(command.pid)]
    processes += processes[0].children(recursive=True)
    for process in processes:
        process.suspend()  # so that none of them hears of another's end
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    command.wait()
    return time.time()


def _states(deployed, run):
    return deployed.api("GET", f"/flow_run_states/?flow_run_id={run['id']}")


def _seconds_after(deployed, run, lost_at: float) -> dict[str, float]:
    """How long after its worker was lost an arm was put back, ran, and was computed."""
    states = _states(deployed, run)
    (back,) = (n for n, state in enumerate(states) if state["name"] == "AwaitingRetry")
    assert states[back]["message"].endswith("another worker takes over")
    (begun,) = (n for n, s in enumerate(states) if s["name"] == "Running" and n > back)
    assert states[-1]["name"] == "Completed"
    steps = {"put back": states[back], "running": states[begun], "computed": states[-1]}
    when = {step: datetime.fromisoformat(s["timestamp"]).timestamp() for step, s in steps.items()}
    return {step: round(at - lost_at, 1) for step, at in when.items()}


def test_arms_of_lost_workers_are_finished_by_another_from_the_last_checkpoint(
    deployed, listening, known, sims, started, wait_for, bytes_of, tmp_path
):
    changes = {"seeds": "31", "training__kimg": "3", "generations": "1"}
    arguments = sims.run_arguments(deployed.store, arms="pool", **changes)

    def those(kind):
        found = _children(deployed, known).items()
        return {name for name, run in found if run["state"]["type"] == kind}

    def checkpoints():
        return set(deployed.store.glob("progress/*/state/checkpoint.pt"))

    of_others = checkpoints()
    with listening(1) as first:
        run = started(*arguments, PREFECT_API_URL=deployed.url, **deployed.settings)
        wait_for(lambda: those("RUNNING") and checkpoints() - of_others, 200, interval=0.1)
        (running,) = those("RUNNING")
        lost = {running: _lose(first)}
    with listening(1) as second:
        (pending,) = wait_for(lambda: those("PENDING") - {running}, 120, interval=0.02)
        lost[pending] = _lose(second)
    with listening(2):
        _, said = run.communicate(timeout=300)
        assert run.returncode == 0, said
    children = _children(deployed, known)
    after = {name: _seconds_after(deployed, children[name], at) for name, at in lost.items()}
    print("seconds after its worker was lost:", after)
    assert all(times["running"] < TAKEN_OVER_S for times in after.values())
    assert any("resumed at" in line for line in deployed.messages(children[running]["id"]))
    begun = [state["type"] for state in _states(deployed, children[pending])]
    assert begun.count("RUNNING") == 1, "it was lost before it ran"
    quiet = sims(
        *sims.run_arguments(tmp_path / "quiet", "--direct", **changes), **deployed.settings
    )
    assert quiet.returncode == 0, quiet.stderr
    assert bytes_of(tmp_path / "quiet").items() <= bytes_of(deployed.store).items()


def test_an_arm_that_is_lost_three_times_has_failed_and_says_why(
    deployed, listening, known, sims, started, wait_for
):
    changes = {"seeds": "32", "training__kimg": "2000", "methods": "standard"}
    arguments = sims.run_arguments(deployed.store, arms="pool", **changes)

    def engines(command):
        """The processes in which a worker computes arms."""
        children = psutil.Process(command.pid).children(recursive=True)
        return [each for each in children if "prefect.engine" in " ".join(each.cmdline())]

    def starts():
        states = [_states(deployed, run) for run in _children(deployed, known).values()]
        return sum(state["name"] == "Running" for each in states for state in each)

    with listening(1) as command:
        run = started(*arguments, PREFECT_API_URL=deployed.url, **deployed.settings)
        for number in (1, 2, 3):
            wait_for(lambda n=number: starts() == n and engines(command), 120, interval=0.2)
            for engine in engines(command):
                engine.kill()
        _, said = run.communicate(timeout=60)
    assert run.returncode == 1
    assert re.search(r"1 of 1 arms failed.*started 3 times and lost each time; last: ", said)
    (arm,) = _children(deployed, known).values()
    assert arm["state"]["type"] == "FAILED"
    assert arm["state"]["message"].startswith("started 3 times and lost each time; last: ")


def test_workers_end_with_the_command_that_started_them(deployed, listening, wait_for):
    with listening(2) as command:
        workers = psutil.Process(command.pid).children(recursive=True)
        assert len(workers) == 2
        command.kill()
        command.wait()
        wait_for(lambda: not any(map(psutil.Process.is_running, workers)), 60)
