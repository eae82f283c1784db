"""What does Prefect cost a short stage, over a thousand of them?

    python tests/benchmarks/bench_stage_cost.py [--generations 143]

One arm of SIMS on points, seven stages a generation, is computed without Prefect (exact Gaussian
models: which stages there are does not depend on the model). Then, with everything in the store:

    direct            the runner alone: lock, look, record
    generation tasks  against a Prefect server: the stages of a generation share a task
    no pictures       the same without the samples that the flow shows of ten generations
    stage tasks       with a task for every stage, as for images

"ms a stage" is the time between the first and the last stage's line; "exit" is what Prefect sends
after the last one. Prints one JSON line; exits 1 if the shared tasks cost 30 ms a stage or more.
"""

from __future__ import annotations

import argparse
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

BUDGET_MS = 30.0
PORT = 4393
SETTLE_S = 20
"""The server digests meanwhile what it was told."""
ALONE = """
import sys
from dataclasses import replace
from sims_core.catalog import STAGES
for name, stage in STAGES.items():
    STAGES[name] = replace(stage, short=False)
"""
NO_PICTURES = "import flows.arm; flows.arm.show_generation = lambda *_: None\n"
MAIN = "from infra.cli.main import main; main()"


def command(generations: int, store: Path) -> list[str]:
    parameters = {
        **{"generations": generations, "pollution_sizes": 500, "omegas": 3, "methods": "sims"},
        **{"scan_omegas": "[]", "model.net": '{"kind":"exact_gaussian"}', "data.replicates": 2},
        **{"point_evaluation.empirical_points": 20, "point_evaluation.num_points": 500},
    }
    words = [word for name, value in parameters.items() for word in ("-p", f"{name}={value}")]
    return ["run", "sims-loop/gaussian2d-quick", *words, "--store", str(store)]


def timed(
    code: str, arguments: list[str], environment: dict[str, str], cached: bool = True
) -> dict[str, float]:
    """Moments of one process: before its first stage, per stage, after the last."""
    started = time.perf_counter()
    run = subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert run.stderr is not None
    moments, computed = [], 0
    for line in run.stderr:
        if line.startswith("["):
            moments.append(time.perf_counter())
            computed += not line.rstrip().endswith("cached")
    if run.wait() or (cached and computed):
        sys.exit(f"error: exit {run.returncode}, {computed} stages computed")
    ended, count = time.perf_counter(), len(moments)
    return {
        "stages": count,
        "start_s": round(moments[0] - started, 2),
        "ms_a_stage": round(1000 * (moments[-1] - moments[0]) / count, 2),
        "exit_s": round(ended - moments[-1], 2),
    }


@contextmanager
def server(environment: dict[str, str]) -> Iterator[str]:
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


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--generations", type=int, default=143)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="sims-bench-") as folder:
        alone = {
            **{name: value for name, value in os.environ.items() if name != "PREFECT_API_URL"},
            "PREFECT_HOME": str(Path(folder) / "prefect"),
            "SIMS_THREADS": "1",
        }
        arguments = command(options.generations, Path(folder) / "store")
        timed(MAIN, [*arguments, "--direct"], alone, cached=False)
        found = {"direct": timed(MAIN, [*arguments, "--direct"], alone)}
        with server(alone) as url:
            served = {**alone, "PREFECT_API_URL": url}
            found["generation tasks"] = timed(MAIN, arguments, served)
            time.sleep(SETTLE_S)
            found["no pictures"] = timed(NO_PICTURES + MAIN, arguments, served)
            time.sleep(SETTLE_S)
            found["stage tasks"] = timed(ALONE + MAIN, arguments, served)
    print(json.dumps(found))
    return 0 if found["generation tasks"]["ms_a_stage"] < BUDGET_MS else 1


if __name__ == "__main__":
    sys.exit(main())
