"""Arms computed by two workers of a real server, each a process: `sims run -p arms=pool`."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

SIMS = str(Path(sys.executable).with_name("sims"))


@pytest.fixture(scope="module")
def workers(deployed, background, wait_for):
    """`sims workers --count 2`, once both listen."""
    command = background(SIMS, "workers", "--count", "2", env=deployed.environment)

    def listen() -> bool:
        found = deployed.api("POST", "/work_pools/sims-arms/workers/filter")
        return sum(worker["status"] == "ONLINE" for worker in found) == 2

    wait_for(listen, 120, interval=0.5)
    return command


def _run(deployed, sims, **changes):
    arguments = sims.run_arguments(deployed.store, "--json", arms="pool", **changes)
    return deployed(SIMS, *arguments)


def _children(deployed):
    return deployed.runs(tags={"all_": ["sims-arm"]})


def test_without_a_worker_it_is_refused(deployed, sims):
    done = _run(deployed, sims)
    assert done.returncode == 2
    assert "no worker listens at the pool 'sims-arms'" in done.stderr


def test_two_workers_make_what_one_process_makes(deployed, workers, sims, tiny_run, bytes_of):
    done = _run(deployed, sims)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["arms"] == tiny_run.summary["arms"]
    assert found["run"] == tiny_run.summary["run"]
    assert bytes_of(deployed.store) == bytes_of(tiny_run.store)
    children = _children(deployed)
    assert sorted(child["name"] for child in children) == [
        "sims omega=1 |D_s|=32",
        "standard |D_s|=32",
    ]
    assert {child["state"]["name"] for child in children} == {"Completed"}
    # What one process runs in the same store finds all of it, and the report drawn already.
    drawn = deployed.store / "runs" / found["run"] / "report" / "drawn.json"
    before = drawn.stat().st_mtime_ns
    again = deployed(SIMS, *sims.run_arguments(deployed.store, "--json", "--direct"))
    assert again.returncode == 0, again.stderr
    assert json.loads(again.stdout)["stages"]["computed"] == 0
    assert drawn.stat().st_mtime_ns == before
