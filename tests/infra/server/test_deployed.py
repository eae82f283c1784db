"""The README's deployment commands against a real server and a real worker, each a process."""

from __future__ import annotations

import contextlib
import json
import os
import signal
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow


def test_a_run_by_name_leaves_its_results_on_the_page(deployed, first_run):
    assert deployed.state(first_run) == "Completed"
    found, runs = deployed.artifacts(first_run), (deployed.store / "runs").iterdir()
    (folder,) = (run for run in runs if f"{run.name}-metrics" in found)
    name = folder.name
    samples = found[f"{name}-sims-omega-1-ds-32-samples"]
    assert [row["description"] for row in samples] == [
        "Samples of sims omega=1 |D_s|=32, t = 1 of 2",
        "Samples of sims omega=1 |D_s|=32, t = 2 of 2",
    ]
    assert all("data:image/png;base64," in row["data"] for row in samples)
    tables = found[f"{name}-standard-ds-32-metrics"]
    assert [[row["t"] for row in json.loads(table["data"])] for table in tables] == [[1], [1, 2]]
    figures = json.loads((folder / "run.json").read_bytes())["arms"]
    last = json.loads(found[f"{name}-metrics"][-1]["data"])
    assert [row["arm"] for row in last] == [arm["name"] for arm in figures]
    for row, arm in zip(last, figures, strict=True):
        assert row["fid"] == float(f"{arm['generations'][-1]['metrics']['fid']:.4g}")
    assert "data:image/png;base64," in found[f"{name}-curves"][-1]["data"]
    assert str(folder / "report" / "index.html") in found[f"{name}-report"][-1]["data"]


def test_a_second_run_computes_nothing_and_shows_the_same(
    deployed, first_run, tiny_parameters, bytes_of
):
    before = bytes_of(deployed.store)
    again = deployed.run_by_name(**tiny_parameters())
    assert bytes_of(deployed.store) == before
    tasks = deployed.api(
        "POST",
        "/task_runs/filter",
        task_runs={},
        flow_runs={"id": {"any_": deployed.family(again)}},
    )
    stages = [task for task in tasks if not task["name"].startswith(("report", "arm"))]
    assert {task["state"]["name"] for task in stages} == {"Cached"}
    first, second = (
        {key: len(rows) for key, rows in deployed.artifacts(run).items() if "progress" not in key}
        for run in (first_run, again)
    )
    assert first == second


@pytest.mark.parametrize(
    ("parameter", "problem"),
    [
        ("omegas=[-1]", "-1 is less than the minimum of 0"),
        ("preset=nope", "'nope' is not one of ['digits']"),
        ("preset=cifar10", "'cifar10' is not one of ['digits']"),
        ("generations=0", "0 is less than the minimum of 1"),
        ("epochs=3", "The following parameters are available on the deployment: 'preset',"),
    ],
)
def test_a_wrong_value_is_refused_before_there_is_a_run(deployed, parameter, problem):
    before = len(deployed.runs())
    done = deployed(deployed.prefect, "deployment", "run", "sims-loop/digits", "--param", parameter)
    assert done.returncode == 1
    assert problem in " ".join((done.stdout + done.stderr).split())
    assert len(deployed.runs()) == before


def test_a_mistyped_name_is_not_found(deployed):
    done = deployed(deployed.prefect, "deployment", "run", "sims-loop/digitz")
    assert done.returncode == 1
    assert "'sims-loop/digitz' not found" in done.stdout + done.stderr


def test_what_only_the_flow_can_check_fails_before_any_stage(deployed, tiny_parameters, wait_for):
    """A mistyped override, a name that Prefect's API takes, and a worker without the store."""
    deployment = deployed.api("GET", "/deployments/name/sims-loop/digits")["id"]
    elsewhere = {"env": {"SIMS_STORE": "/nowhere/store", "SIMS_STORE_MUST_EXIST": "true"}}
    for body, problem in [
        ({"parameters": {"overrides": {"training.kimgs": 3}}}, "names in training: kimg,"),
        ({"parameters": {"omegs": 1}}, "no parameter 'omegs' of flow sims-loop; parameters: "),
        ({"job_variables": elsewhere}, "no store at /nowhere/store: mount it"),
    ]:
        run = deployed.api("POST", f"/deployments/{deployment}/create_flow_run", **body)["id"]
        wait_for(lambda run=run: deployed.state(run) == "Failed", 240, interval=0.5)
        assert problem in deployed.message(run)
        tasks = {"id": {"any_": [run]}}
        assert deployed.api("POST", "/task_runs/filter", flow_runs=tasks) == []


def _checkpoints(store: Path) -> dict[Path, int]:
    found = {}
    for path in store.glob("progress/*/state/checkpoint.pt"):
        with contextlib.suppress(FileNotFoundError):
            found[path] = path.stat().st_mtime_ns
    return found


def _process_of(run_id: str) -> list[int]:
    """The process in which a worker runs a flow run."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if (
                f"PREFECT__FLOW_RUN_ID={run_id}".encode() in (folder / "environ").read_bytes()
                and b"prefect.engine" in (folder / "cmdline").read_bytes()
            ):
                found.append(int(folder.name))
    return found


def test_cancelled_then_killed_a_run_goes_on_to_the_same_bytes(
    deployed, first_run, tiny_parameters, sims, wait_for, bytes_of, tmp_path
):
    changes = {"training__kimg": "12", "generations": "1", "methods": "standard", "seeds": "3"}
    run = deployed.start(**tiny_parameters(**changes))
    started = dict(_checkpoints(deployed.store))

    def trains() -> bool:
        return deployed.state(run) == "Running" and _checkpoints(deployed.store) != started

    wait_for(trains, 300)
    done = deployed(deployed.prefect, "flow-run", "cancel", run)
    assert done.returncode == 0, done.stdout
    wait_for(lambda: deployed.state(run) == "Cancelled", 120, interval=0.2)
    started = _checkpoints(deployed.store)
    assert started, "nothing to go on from"

    done = deployed(deployed.prefect, "flow-run", "retry", run)
    assert done.returncode == 0, done.stdout
    wait_for(trains, 300)
    for pid in _process_of(run):
        os.kill(pid, signal.SIGKILL)
    wait_for(lambda: deployed.state(run) == "Crashed", 240, interval=0.5)

    def completed() -> bool:
        """A worker reports a crash twice, some seconds apart: the second may undo a retry."""
        if deployed.state(run) == "Crashed":
            assert deployed(deployed.prefect, "flow-run", "retry", run).returncode == 0
        return deployed.state(run) == "Completed"

    wait_for(completed, 400, interval=5)
    # In the run's own log; the killed attempt's last lines may be lost.
    wait_for(lambda: any("resumed at" in text for text in deployed.messages(run)), 60)
    states = [deployed.state(run_id) for run_id in deployed.family(run)]
    assert sorted(states) == ["Cancelled", "Completed", "Completed", "Crashed"]
    quiet = tmp_path / "undisturbed"
    arguments = sims.run_arguments(quiet, "--direct", **changes)
    done = sims(*arguments, **deployed.settings)
    assert done.returncode == 0, done.stderr
    assert bytes_of(quiet).items() <= bytes_of(deployed.store).items()


def test_a_run_without_a_worker_that_is_killed_does_not_stay_running(
    deployed, killed_run, wait_for
):
    assert len(killed_run) == 2, "the run and its first arm"
    wait_for(
        lambda: {deployed.state(run_id) for run_id in killed_run} == {"Crashed"}, 120, interval=0.5
    )


def test_nothing_asks_a_host_outside(deployed, first_run):
    """Server, worker, run and the `prefect` commands, by default settings."""
    outside = deployed.folder / "outside.txt"
    assert not outside.exists(), outside.read_text()
