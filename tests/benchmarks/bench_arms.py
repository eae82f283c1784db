"""How much faster are arms on several workers? What queueing and starting cost, without computing.

    python tests/benchmarks/bench_arms.py [--arms 4] [--seconds 20] [--workers 1 2]

A real server and real workers (`sims workers`), and arms of one generation in which training
sleeps and every other stage takes no time: the difference from the ideal is the pool's own. Prints
for each number of workers the wall time, the ideal (arms one after the other on each worker) and
their ratio.
"""

from __future__ import annotations

import argparse
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
# In every process of the benchmark: stages that sleep in place of those that compute.
SLEEPING = """
import os, time
from sims_core import catalog
from sims_core.reports import summary
from sims_core.store.artifacts import Record

def run_stage(store, request, execution, *, computed_by=None, progress=None, anew=None):
    ref = request.ref
    with store.lock(ref):
        if not store.is_whole(ref):
            if request.stage == "train":
                time.sleep(float(os.environ["BENCH_SECONDS"]))
            folder = store.progress_path(ref) / "artifact"
            folder.mkdir(parents=True)
            (folder / "slept").touch()
            record = Record(computed_by=computed_by, finished="2026-01-01T00:00:00", seconds=0.0)
            how = {"execution": {}, "libraries": {}, "details": {}}
            store.commit(request, folder, **how, record=record)
    return ref

catalog.run_stage = run_stage
summary.shown_generations = lambda *of: ()
"""
PARENT = """
import sys, time
from prefect import flow
from flows.planned import PlannedRun
from flows.pool import ran_stages
from infra.cli.runs import check_run
from sims_core.settings import open_store

@flow(name="bench")
def bench():
    checked = check_run("sims-loop/digits", sys.argv[1:])
    began = time.monotonic()
    with ran_stages(open_store(), checked.planned):
        pass
    assert "torch" not in sys.modules
    print("WALL", time.monotonic() - began)

bench()
"""


@contextmanager
def _background(*command: str, environment: Mapping[str, str], log: Path) -> Iterator[None]:
    with log.open("ab") as output:
        process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=output, stderr=output)
        try:
            yield
        finally:
            process.terminate()
            process.wait(90)


def _wait_for(server: str, path: str, enough: int) -> None:
    """Until the server answers, with so many workers that are online."""
    deadline = time.monotonic() + 240
    while time.monotonic() < deadline:
        with suppress(httpx.HTTPError):
            if not enough and httpx.get(f"{server}/health", timeout=5).is_success:
                return
            found = httpx.post(f"{server}{path}", json={}, timeout=5).json() if enough else []
            if enough and sum(each["status"] == "ONLINE" for each in found) >= enough:
                return
        time.sleep(0.5)
    raise SystemExit(f"{server}: not well after four minutes")


def _measure(workers: int, arms: int, environment: Mapping[str, str], folder: Path) -> float:
    store, server = folder / f"store-{workers}", environment["PREFECT_API_URL"]
    mine = {**environment, "SIMS_STORE": str(store)}
    subprocess.run(
        [BIN / "sims", "setup"], cwd=ROOT, env=mine, check=True, stdout=subprocess.DEVNULL
    )
    command = (str(BIN / "sims"), "workers", "--count", str(workers))
    with _background(*command, environment=mine, log=folder / "workers.log"):
        _wait_for(server, "/work_pools/sims-arms/workers/filter", workers)
        seeds = ",".join(map(str, range(arms)))
        asked = ["methods=standard", "generations=1", f"seeds={seeds}", "arms=pool"]
        done = subprocess.run(
            [sys.executable, "-c", PARENT, *asked],
            cwd=ROOT,
            env=mine,
            capture_output=True,
            text=True,
            check=False,
        )
    if done.returncode:
        raise SystemExit(done.stderr)
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("WALL")]
    return float(line.split()[1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--arms", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    given = parser.parse_args()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    with tempfile.TemporaryDirectory(prefix="bench-arms-") as name:
        folder = Path(name)
        (folder / "sitecustomize.py").write_text(SLEEPING)
        clean = {k: v for k, v in os.environ.items() if not k.startswith(("PREFECT_", "SIMS_"))}
        path = [str(folder), str(ROOT), clean.get("PYTHONPATH", "")]
        environment = {
            **clean,
            "PYTHONPATH": os.pathsep.join(path),
            "PREFECT_HOME": str(folder / "home"),
            "PREFECT_API_URL": f"http://127.0.0.1:{port}/api",
            "BENCH_SECONDS": str(given.seconds),
            "SIMS_DEVICE": "cpu",
        }
        server = {k: v for k, v in environment.items() if k != "PREFECT_API_URL"}
        start = (str(BIN / "prefect"), "server", "start", "--port", port)
        with _background(*start, environment=server, log=folder / "server.log"):
            _wait_for(environment["PREFECT_API_URL"], "", 0)
            setup = {**environment, "SIMS_STORE": str(folder / "store")}
            for command in (["sims", "setup"], ["prefect", "--no-prompt", "deploy", "--all"]):
                done = subprocess.run(
                    [str(BIN / command[0]), *command[1:]],
                    cwd=ROOT,
                    env=setup,
                    capture_output=True,
                    text=True,
                    check=False,
                )
                if done.returncode:
                    raise SystemExit(done.stdout + done.stderr)
            for workers in given.workers:
                wall = _measure(workers, given.arms, environment, folder)
                ideal = given.seconds * -(-given.arms // workers)
                print(
                    f"{workers} workers, {given.arms} arms of {given.seconds:g} s: {wall:.1f} s, "
                    f"ideal {ideal:g} s, efficiency {ideal / wall:.2f}",
                    flush=True,
                )


if __name__ == "__main__":
    main()
