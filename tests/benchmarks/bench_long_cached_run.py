"""A hundred generations of SIMS that are all in the store: how long does orchestrating them take?

    python tests/benchmarks/bench_long_cached_run.py

One arm of exact Gaussian models is computed without Prefect (which stages there are does not depend
on the model), then the same run is made by Prefect, all cached. The time between the first and the
last stage's line is the orchestration; start and end of the embedded API are beside it. Prints one
JSON line; exits 1 above 20 s.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time

BUDGET_S = 20.0
COMMAND = [
    *(sys.executable, "-c", "from infra.cli.main import main; main()"),
    *("run", "sims-loop/gaussian2d-quick", "-p", "generations=100", "-p", "pollution_sizes=500"),
    *("-p", "omegas=3", "-p", "methods=sims", "-p", "scan_omegas=[]"),
    *("-p", 'model.net={"kind":"exact_gaussian"}', "-p", "data.replicates=2"),
    *("-p", "point_evaluation.empirical_points=20", "--store"),
]


def main() -> int:
    with tempfile.TemporaryDirectory() as store:
        subprocess.run(
            [*COMMAND, store, "--direct"],
            check=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        started = time.perf_counter()
        run = subprocess.Popen(
            [*COMMAND, store], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )
        assert run.stderr is not None
        moments, cached = [], 0
        for line in run.stderr:
            if line.startswith("["):
                moments.append(time.perf_counter())
                cached += line.rstrip().endswith("cached")
        code = run.wait()
        whole = time.perf_counter() - started
    if code or cached < len(moments):
        print(f"error: exit {code}, {len(moments) - cached} stages computed", file=sys.stderr)
        return 1
    orchestration = moments[-1] - moments[0]
    result = {"stages": len(moments), "orchestration_s": round(orchestration, 1)}
    print(
        json.dumps(
            {
                **result,
                "ms_a_stage": round(1000 * orchestration / len(moments), 1),
                "whole_s": round(whole, 1),
            }
        )
    )
    return 0 if orchestration <= BUDGET_S else 1


if __name__ == "__main__":
    sys.exit(main())
