"""How long does a run take that finds everything in the store, and what takes it?

    python tests/benchmarks/bench_cached_run.py [--whole]

Runs the tiny loop of digits (--whole: sims-loop/digits, three minutes) without Prefect, once more
so that its artifacts are old enough to be remembered as verified, and then, each in a process of
its own: the same without a server, split into imports, planning, looking at the store, the stages
and the report; the commands that only look; and the run against a Prefect server, beside an empty
flow of the same shape (sub-flows, tasks), the floor that Prefect sets. The best of three of each
but the last two. Exits 1 if the cached run takes 2 s or more, or a command its own limit.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx

BUDGET_S = 2.0
PORT = 4391
TINY = {
    **{"generations": 2, "pollution_sizes": 32, "training.kimg": 0.5, "sims.n_s": 32},
    **{"model.net.block_out_channels": "[8,16]", "model.net.norm_num_groups": 4},
    **{"sims.budget_mimg": 0.0005, "sampler.num_steps": 3, "evaluation.num_images": 64},
    **{"evaluation.allow_small_n": "true", "evaluation.kid_subset_size": 16},
    **{"evaluation.num_preview": 4, "evaluation.classifier.kimg": 1},
}
LIMITS = {"--help": 0.5, "presets": 0.5, "store ls": 0.5, "--dry-run": 1.5}
"""Seconds that each command may take, on two idle cores."""

# argv: the arguments of `sims`. Each moment is when the step of that name had ended, in seconds
# since the epoch, as the parent's.
SPLIT = """
import json, sys, time
moments = {}
def ended(name, function):
    def timed(*arguments, **options):
        try:
            return function(*arguments, **options)
        finally:
            moments[name] = time.time()
    return timed
from infra.cli.main import main
import infra.cli.runs as runs
moments["imports"] = time.time()
runs.check_run = ended("planning", runs.check_run)
looked_at = runs._looked_at
runs._looked_at = lambda *arguments: ended("looking", lambda: list(looked_at(*arguments)))()
def write_run(*arguments, write=runs.write_run):
    moments["stages"] = time.time()
    return write(*arguments)
runs.write_run = ended("report", write_run)
try:
    main()
finally:
    moments["end"] = time.time()
    print("moments", json.dumps(moments), file=sys.stderr, flush=True)
"""
MAIN = "from infra.cli.main import main; main()"
EMPTY = """
import sys
from infra.environment import apply_environment_defaults
apply_environment_defaults()
from prefect import flow, task
from prefect.settings import PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings

@task
def nothing():
    pass

@flow
def arm(count):
    for _ in range(count):
        nothing()

@flow
def empty(count):
    with temporary_settings({PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}):
        arm(count // 2)
        arm(count - count // 2)

empty(int(sys.argv[1]))
"""


def run(code: str, arguments: list[str], environment: Mapping[str, str]) -> tuple[float, str, str]:
    """Seconds of one process, its standard output and its standard error."""
    started = time.time()
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        sys.exit(f"error: {arguments} failed: {done.stderr}")
    return time.time() - started, done.stdout, done.stderr


def split(arguments: list[str], environment: Mapping[str, str]) -> dict[str, float]:
    """Seconds of each step of a cached run, and of all of it; exits if it computes anything."""
    started = time.time()
    seconds, stdout, stderr = run(SPLIT, arguments, environment)
    if json.loads(stdout)["stages"]["computed"]:
        sys.exit("error: the cached run computed something")
    line = next(line for line in stderr.splitlines() if line.startswith("moments "))
    steps, before = {}, started
    for name, moment in json.loads(line.removeprefix("moments ")).items():
        steps[name], before = moment - before, moment
    steps["exit"] = started + seconds - before
    return {**steps, "total": seconds}


@contextmanager
def server(environment: Mapping[str, str]) -> Iterator[str]:
    """The address of `prefect server start`."""
    process = subprocess.Popen(
        [sys.executable, "-m", "prefect", "server", "start", "--port", str(PORT)],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    url = f"http://127.0.0.1:{PORT}/api"
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


def told(name: str, seconds: float, limit: float) -> bool:
    """Prints a line; whether it took no longer than it may."""
    print(f"{name:<28}{seconds:>8.2f} s{'' if seconds < limit else f'  OVER {limit:g} s'}")
    return seconds < limit


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--whole", action="store_true")
    whole = parser.parse_args().whole
    with tempfile.TemporaryDirectory(prefix="sims-bench-") as folder:
        environment = {
            **{name: value for name, value in os.environ.items() if name != "PREFECT_API_URL"},
            "PREFECT_HOME": str(Path(folder) / "prefect"),
            "SIMS_THREADS": "1",
        }
        at = ["--store", str(Path(folder) / "store")]
        parameters = {} if whole else TINY
        given = [word for name, value in parameters.items() for word in ("-p", f"{name}={value}")]
        arguments = ["run", "sims-loop/digits", *given, *at, "--json"]
        first, _, _ = run(MAIN, [*arguments, "--direct"], environment)
        print(f"{'first run':<28}{first:>8.2f} s")
        time.sleep(3)
        run(MAIN, arguments, environment)
        best = min((split(arguments, environment) for _ in range(3)), key=lambda s: s["total"])
        within = [told("cached run", best.pop("total"), BUDGET_S)]
        for name, seconds in best.items():
            print(f"    {name:<24}{seconds:>8.2f} s")
        commands = {
            "--help": ["--help"],
            "presets": ["presets"],
            "store ls": ["store", "ls", *at],
            "--dry-run": [*arguments, "--dry-run"],
        }
        for name, words in commands.items():
            seconds = min(run(MAIN, words, environment)[0] for _ in range(3))
            within.append(told(name, seconds, LIMITS[name]))
        with server(environment) as url:
            served = {**environment, "PREFECT_API_URL": url}
            seconds, stdout, _ = run(MAIN, arguments, served)
            stages = json.loads(stdout)["stages"]
            print(f"{'cached run, server':<28}{seconds:>8.2f} s")
            empty, _, _ = run(EMPTY, [str(stages["cached"])], served)
            print(f"{'empty flow, server':<28}{empty:>8.2f} s ({stages['cached']} tasks)")
    return 0 if all(within) else 1


if __name__ == "__main__":
    sys.exit(main())
