"""Arms computed by two workers of a real server, each a process: `sims run -p arms=pool`."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
from pathlib import Path

import psutil
import pytest

pytestmark = pytest.mark.slow

SIMS = str(Path(sys.executable).with_name("sims"))
SEEDS = {"seeds": "3"}  # other tests of this server compute those of seed 0


@pytest.fixture(scope="module")
def workers(listening):
    """`sims workers --count 2`, once both listen."""
    with listening(2) as command:
        yield command


def _run(deployed, sims, **changes):
    arguments = sims.run_arguments(deployed.store, "--json", arms="pool", **changes)
    return deployed(SIMS, *arguments)


def _children(deployed):
    return deployed.runs(tags={"all_": ["sims-arm"]})


def test_without_a_worker_it_is_refused(deployed, sims):
    done = _run(deployed, sims, **SEEDS)
    assert done.returncode == 2
    assert "no worker listens at the pool 'sims-arms'" in done.stderr


def test_two_workers_make_what_one_process_makes(deployed, workers, sims, bytes_of, tmp_path):
    done = _run(deployed, sims, **SEEDS)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    alone = deployed(SIMS, *sims.run_arguments(tmp_path / "store", "--json", "--direct", **SEEDS))
    assert alone.returncode == 0, alone.stderr
    expected = json.loads(alone.stdout)
    assert (found["run"], found["arms"]) == (expected["run"], expected["arms"])
    assert 0 < found["stages"]["computed"] <= expected["stages"]["computed"], "none twice"
    assert bytes_of(tmp_path / "store").items() <= bytes_of(deployed.store).items()
    children = _children(deployed)
    assert sorted(child["name"] for child in children) == [
        f"sims omega=1 |D_s|=32 of {found['run']}",
        f"standard |D_s|=32 of {found['run']}",
    ]
    assert {child["state"]["name"] for child in children} == {"Completed"}
    # What one process runs in the same store finds all of it, and the report drawn already.
    drawn = deployed.store / "runs" / found["run"] / "report" / "drawn.json"
    before = drawn.stat().st_mtime_ns
    again = deployed(SIMS, *sims.run_arguments(deployed.store, "--json", "--direct", **SEEDS))
    assert again.returncode == 0, again.stderr
    assert json.loads(again.stdout)["stages"]["computed"] == 0
    assert drawn.stat().st_mtime_ns == before


def _process_of(run_id: str) -> int | None:
    """The process in which a worker computes an arm."""
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            named = process.environ().get("PREFECT__FLOW_RUN_ID") == run_id
            if named and "prefect.engine" in " ".join(process.cmdline()):
                return process.pid
    return None


def _trains(store: Path) -> bool:
    return any(store.glob("progress/*/state/checkpoint.pt"))


def test_killed_with_its_run_an_arm_is_found_again_and_goes_on_to_the_same_bytes(
    deployed, workers, sims, wait_for, bytes_of, tmp_path
):
    changes = {"training__kimg": "12", "generations": "1", "seeds": "5"}
    arguments = sims.run_arguments(deployed.store, arms="pool", **changes)
    before = {child["id"] for child in _children(deployed)}
    settings = {"PREFECT_API_URL": deployed.url, **deployed.settings}

    def mine():
        return [child for child in _children(deployed) if child["id"] not in before]

    killed = sims.start(*arguments, **settings)
    wait_for(lambda: len(mine()) == 2 and _trains(deployed.store), 300, interval=0.2)
    killed.kill()
    killed.communicate(timeout=20)
    again = sims.start(*arguments, **settings)
    try:
        # The run's tag says who waits.
        wait_for(lambda: all(len(child["tags"]) == 3 for child in mine()), 240, interval=0.5)
        computing = [pid for child in mine() if (pid := _process_of(child["id"]))]
        assert len(computing) == 2
        for pid in computing:
            os.kill(pid, signal.SIGKILL)
        _, said = again.communicate(timeout=300)
    finally:
        again.kill()
    assert again.returncode == 0, said
    assert "Crashed" in said
    assert [child["state"]["name"] for child in mine()] == ["Completed"] * 2, "none twice"
    lines = [line for child in mine() for line in deployed.messages(child["id"])]
    assert any("resumed at" in line for line in lines)
    quiet = tmp_path / "undisturbed"
    done = deployed(SIMS, *sims.run_arguments(quiet, "--direct", **changes))
    assert done.returncode == 0, done.stderr
    assert bytes_of(quiet).items() <= bytes_of(deployed.store).items()


def test_cancelling_the_run_cancels_its_arms(deployed, workers, tiny_parameters, wait_for):
    changes = {"training__kimg": "2000", "generations": "1", "seeds": "7", "arms": "pool"}
    before = {child["id"] for child in _children(deployed)}

    def states():
        return [c["state"]["name"] for c in _children(deployed) if c["id"] not in before]

    run = deployed.start(**tiny_parameters(**changes))
    wait_for(lambda: states() == ["Running"] * 2, 300, interval=0.5)
    done = deployed(deployed.prefect, "flow-run", "cancel", run)
    assert done.returncode == 0, done.stdout
    wait_for(lambda: states() == ["Cancelled"] * 2, 120, interval=0.5)
    wait_for(lambda: deployed.state(run) == "Cancelled", 60, interval=0.5)
