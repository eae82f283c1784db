"""How long does it take to plan 24 arms of a thousand generations, and does it grow linearly?

    python tests/benchmarks/bench_planning.py

Plans sims-loop/gaussian2d at 100 and at 1,000 generations, the latter twice as a check that a
second call in one process costs nothing. Prints one JSON line; exits 1 if ten times the generations
take more than twelve times the time.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path

from flows.parameters import check_parameters
from flows.planned import plan_once
from flows.presets import find_preset
from flows.registry import load_signature
from sims_core.store.store import Store

MOST = 12.0
FLOW = "sims-loop"


def seconds(generations: int, store: Store) -> tuple[float, int, int]:
    """Of this process, to plan and to name every stage; arms and stages."""
    preset = find_preset(f"{FLOW}/gaussian2d")
    given = {"generations": generations, "scan_omegas": []}
    parameters = check_parameters(load_signature(FLOW), preset, given)
    started = time.process_time()
    plan = plan_once(FLOW, parameters, store)
    stages = len({stage.ref for stage in plan})
    return time.process_time() - started, len(plan.groups) - 2, stages


def main() -> int:
    with tempfile.TemporaryDirectory() as folder:
        store = Store(Path(folder))
        seconds(10, store)  # imports, caches of pydantic
        short, arms, _ = seconds(100, store)
        long, _, stages = seconds(1000, store)
        again, _, _ = seconds(1000, store)
    ratio = long / short
    print(
        json.dumps(
            {
                "arms": arms,
                "stages": stages,
                "s_100": round(short, 2),
                "s_1000": round(long, 2),
                "s_again": round(again, 2),
                "ratio": round(ratio, 1),
            }
        )
    )
    return 0 if ratio <= MOST else 1


if __name__ == "__main__":
    sys.exit(main())
