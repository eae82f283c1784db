"""How long does a run take that finds everything in the store, and how much of it is ours?

    python tests/benchmarks/bench_cached_run.py

Runs the tiny loop once, then again in a new process whose time is split from outside: imports and
checks, start of Prefect's embedded API, the flow, the exit (Prefect sends its last logs and stops
the API). The same for a flow of the same shape (sub-flows, tasks, tags) whose tasks do nothing, as
the floor that Prefect sets: what is beyond it is ours. Then both against a server of its own: the
milliseconds that a cached stage costs there, beside the embedded API's.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx

BUDGET_S = 5.0
TINY = [
    "generations=2",
    "pollution_sizes=32",
    "training.kimg=0.5",
    "model.net.block_out_channels=[8,16]",
    "model.net.norm_num_groups=4",
    "sims.n_s=32",
    "sims.budget_mimg=0.0005",
    "sampler.num_steps=3",
    "evaluation.num_images=64",
    "evaluation.allow_small_n=true",
    "evaluation.kid_subset_size=16",
    "evaluation.num_preview=4",
    "evaluation.classifier.kimg=1",
]

# argv: "empty" and how many tasks, or the arguments of `sims`. Moments are seconds since the epoch,
# as the parent's.
PROBE = """
import json, sys, time
from infra.environment import apply_environment_defaults
apply_environment_defaults()
import infra.server.prefect_api as api
moments = {}
start = api.ensure_prefect_api

def ensure_prefect_api():
    moments["api asked"] = time.time()
    start()
    moments["api ready"] = time.time()
    moments["cpu"] = time.process_time()

api.ensure_prefect_api = ensure_prefect_api
try:
    if sys.argv[1] == "empty":
        from prefect import flow, task
        from prefect.settings import PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings
        ensure_prefect_api()

        @task
        def nothing():
            pass

        @flow
        def arm(count):
            for number in range(count):
                nothing.with_options(tags=[f"generation:{1 + 2 * number // count}"])()

        @flow
        def empty(count):
            with temporary_settings({PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}):
                arm(count // 2)
                arm(count - count // 2)

        empty(int(sys.argv[2]))
    else:
        from infra.cli.main import main
        main()
finally:
    moments["done"] = time.time()
    moments["cpu"] = time.process_time() - moments["cpu"]
    print("moments", json.dumps(moments), file=sys.stderr, flush=True)
"""


def timed(arguments: list[str], environment: dict[str, str]) -> tuple[dict[str, float], str]:
    """Seconds of each part of one process, and its standard output."""
    started = time.time()
    done = subprocess.run(
        [sys.executable, "-c", PROBE, *arguments],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    ended = time.time()
    if done.returncode:
        sys.exit(f"error: the run failed: {done.stderr}")
    line = next(line for line in done.stderr.splitlines() if line.startswith("moments "))
    moments = json.loads(line.removeprefix("moments "))
    parts = {
        "imports, checks": moments["api asked"] - started,
        "API start": moments["api ready"] - moments["api asked"],
        "flow": moments["done"] - moments["api ready"],
        "exit, API stop": ended - moments["done"],
        "(flow: CPU)": moments["cpu"],
    }
    return parts, done.stdout


@contextmanager
def server(environment: dict[str, str], port: int = 4391) -> Iterator[str]:
    """The address of `prefect server start`."""
    command = [sys.executable, "-m", "prefect", "server", "start", "--port", str(port)]
    process = subprocess.Popen(
        command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    url = f"http://127.0.0.1:{port}/api"
    try:
        for _ in range(240):
            with suppress(httpx.HTTPError):
                httpx.get(f"{url}/health", timeout=5).raise_for_status()
                break
            time.sleep(0.5)
        else:
            sys.exit("error: the server did not start")
        yield url
    finally:
        process.terminate()
        process.wait()


def total(parts: dict[str, float]) -> float:
    return sum(seconds for name, seconds in parts.items() if not name.startswith("("))


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="sims-bench-") as folder:
        environment = {
            **{name: value for name, value in os.environ.items() if name != "PREFECT_API_URL"},
            "PREFECT_HOME": str(Path(folder) / "prefect"),
            "SIMS_THREADS": "1",
        }
        parameters = [word for text in TINY for word in ("-p", text)]
        store = str(Path(folder) / "store")
        arguments = ["run", "sims-loop/digits", *parameters, "--store", store, "--json"]
        runs = {}
        runs["first run"], _ = timed(arguments, environment)
        runs["cached run"], stdout = timed(arguments, environment)
        stages = json.loads(stdout)["stages"]
        empty = ["empty", str(stages["cached"])]
        runs["empty flow"], _ = timed(empty, environment)
        with server(environment) as url:
            served = {**environment, "PREFECT_API_URL": url}
            timed(empty, served)  # warm up
            runs["cached, server"], _ = timed(arguments, served)
            runs["empty, server"], _ = timed(empty, served)
    if stages["computed"]:
        sys.exit(f"error: the second run computed {stages['computed']} stages")
    names = list(runs["cached run"])
    print(f"{'seconds':<16}" + "".join(f"{name:>17}" for name in [*names, "total"]))
    for run, parts in runs.items():
        seconds = [*parts.values(), total(parts)]
        print(f"{run:<16}" + "".join(f"{value:>17.2f}" for value in seconds))
    for run in ("cached run", "empty flow", "cached, server", "empty, server"):
        print(f"{run}: {1000 * runs[run]['flow'] / stages['cached']:.0f} ms a stage")
    ours = total(runs["cached run"]) - total(runs["empty flow"])
    verdict = "within" if ours <= BUDGET_S else "OVER"
    print(
        f"{stages['cached']} cached stages: {ours:.2f} s more than empty tasks, "
        f"{verdict} the budget of {BUDGET_S:g} s"
    )


if __name__ == "__main__":
    main()
