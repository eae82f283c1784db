"""How long does it take from the start of a killed run's command to its first useful work?

    python tests/benchmarks/bench_restart.py [--times 3]

Kills the tiny loop of digits while it trains, starts it again, and stops the clock at the first
step of the training that goes on: without Prefect (--direct) and with its embedded API. Prints the
median of each, and beside it what a bare `import torch` takes on this machine at this hour. Exits 1
if they take 5 s and 20 s or more, the limits for two idle cores.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

WATCHED = Path(__file__).parents[1] / "chaos" / "watched.py"
LIMITS = {"--direct": 5.0, "with Prefect": 20.0}
PARAMETERS = {
    **{"generations": "1", "omegas": "1", "pollution_sizes": "32", "sims.n_s": "32"},
    **{"model.net.block_out_channels": "[8,16]", "model.net.norm_num_groups": "4"},
    **{"training.kimg": "40", "evaluation.num_images": "64", "evaluation.allow_small_n": "true"},
    **{"evaluation.kid_subset_size": "16", "evaluation.classifier.kimg": "1"},
}
WORK_S = 300
"""So long a run may take until it trains."""


def start(store: Path, log: Path, options: list[str]) -> subprocess.Popen[bytes]:
    """The command, whose steps are written to `log`."""
    given = [word for name, value in PARAMETERS.items() for word in ("-p", f"{name}={value}")]
    return subprocess.Popen(
        [
            *(sys.executable, str(WATCHED), "run", "sims-loop/digits"),
            *(*given, *options, "--store", str(store)),
        ],
        env={
            **{name: v for name, v in os.environ.items() if name != "PREFECT_API_URL"},
            "PYTHONPATH": str(Path(__file__).parents[2]),
            "PREFECT_HOME": str(store.parent / "prefect"),
            "SIMS_THREADS": "1",
            "SIMS_CHECKPOINT_KIMG": "0.5",
            "CHAOS_STORE": str(store),
            "CHAOS_LOG": str(log),
        },
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def trained(log: Path) -> int:
    """Images that the base's training has told of."""
    lines = log.read_text().splitlines() if log.exists() else []
    told = [json.loads(line) for line in lines]
    return max((e["done"] for e in told if "done" in e and "train base" in e["label"]), default=0)


def seconds_until_it_trains(store: Path, log: Path, options: list[str], least: int = 1) -> float:
    """From the start to the first step that is told of, or to `least` images; it is killed then."""
    began = time.monotonic()
    process = start(store, log, options)
    try:
        while trained(log) < least:
            if process.poll() is not None or time.monotonic() - began > WORK_S:
                sys.exit(f"error: it ended or hung before it trained; exit code {process.poll()}")
            time.sleep(0.02)
        return time.monotonic() - began
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def bare_import() -> float:
    """Seconds that a process takes which imports torch and ends."""
    began = time.monotonic()
    subprocess.run([sys.executable, "-c", "import torch"], check=True)
    return time.monotonic() - began


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--times", type=int, default=3)
    times, within = parser.parse_args().times, True
    torch = statistics.median(bare_import() for _ in range(3))
    print(f"{'import torch':<16}{torch:>8.1f} s")
    for name, limit in LIMITS.items():
        options = ["--direct"] if name == "--direct" else []
        with tempfile.TemporaryDirectory(prefix="sims-restart-") as folder:
            store = Path(folder) / "store"
            seconds_until_it_trains(store, Path(folder) / "first.log", ["--direct"], least=2000)
            taken = [
                seconds_until_it_trains(store, Path(folder) / f"{number}.log", options)
                for number in range(times)
            ]
        seconds = statistics.median(taken)
        print(
            f"{name:<16}{seconds:>8.1f} s{seconds / torch:>8.1f} times that"
            f"{'' if seconds < limit else f'   OVER {limit:g} s'}"
        )
        within &= seconds < limit
    return 0 if within else 1


if __name__ == "__main__":
    sys.exit(main())
