"""How long do the commands take on an old store, and do they grow with it in proportion?

    python tests/benchmarks/bench_ageing.py [--artifacts 10000] [--runs 100]

Fills a store with tiny artifacts, one in ten made of another, and with runs that share a tenth of
what each links to; a tenth of the artifacts is needed by nobody and old. Each command is run as a
user would run it, in a process of its own, on a fifth of the store first; `verify` reads every
byte. Prints one JSON line; exits 1 if one grows more than half as fast again as the store, or takes
more than a minute (for the full size).
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from sims_core.reports.run_folder import DRAWN_FILE, SUMMARY_FILE, Drawn
from sims_core.reports.summary import RunSummary, StageCounts
from sims_core.store.artifacts import ArtifactRef, Record, StageRequest
from sims_core.store.store import Store

COMMANDS = {
    "store ls": ["store", "ls", "--json"],
    "store du": ["store", "du", "--json"],
    "runs ls": ["runs", "ls", "--json"],
    "runs show": ["runs", "show", "run-00001"],
    "store gc --dry-run": ["store", "gc", "--dry-run", "--json"],
    "plan": ["run", "sims-loop/digits", "--dry-run", "--json"],
    "store doctor": ["store", "doctor"],
    "store gc": ["store", "gc", "--json"],
    "store verify": ["store", "verify"],
}
SMALL = 5
"""The store of the first measurement is smaller by this."""
SLACK, STARTING_S = 1.5, 1.0
BUDGET_S = 60.0
SIMS = [sys.executable, "-c", "from infra.cli.main import main; main()"]


def fill(store: Store, artifacts: int) -> list[ArtifactRef]:
    """Artifacts of one small file, a tenth of them made of the one before."""
    refs: list[ArtifactRef] = []
    for number in range(artifacts):
        inputs = {"data": refs[-1]} if number % 10 == 9 else {}
        request = StageRequest(
            stage="train", version=1, kind="model", config={"number": number}, inputs=inputs
        )
        folder = store.progress_path(request.ref) / "artifact"
        folder.mkdir(parents=True)
        (folder / "model.json").write_text(str(number))
        record = Record(computed_by="bench", finished="2026-01-01T00:00:00.000+00:00", seconds=0.0)
        store.commit(request, folder, execution={}, libraries={}, details={}, record=record)
        (folder.parent / "record.json").unlink()
        folder.parent.rmdir()
        refs.append(request.ref)
    return refs


def add_runs(store: Store, refs: Sequence[ArtifactRef], runs: int) -> None:
    """Runs that need nine tenths of the artifacts between them, each a tenth of its neighbour's."""
    needed = refs[: len(refs) * 9 // 10]
    each = max(1, len(needed) // runs)
    for number in range(runs):
        own = needed[max(0, number * each - each // 10) : (number + 1) * each]
        name = f"run-{number:05d}"
        folder = store.root / "runs" / name
        (folder / "report").mkdir(parents=True)
        (folder / "arms").mkdir()
        for place, ref in enumerate(own):
            (folder / "arms" / str(place)).symlink_to(f"../../../{ref.location}")
        pq.write_table(pa.table({"fid": [1.0]}), folder / "metrics.parquet")
        (folder / "report" / "index.html").write_text("<p>")
        summary = RunSummary(
            run=name,
            flow="sims-loop",
            preset="digits",
            store=str(store.root),
            report=str(folder / "report" / "index.html"),
            stages=StageCounts(computed=len(own), cached=0, seconds=0.0),
            arms=(),
        )
        (folder / SUMMARY_FILE).write_text(summary.model_dump_json(exclude_defaults=True))
        locations = tuple(ref.location for ref in own)
        drawn = Drawn(inputs="", files={}, summary=summary, artifacts=locations)
        (folder / DRAWN_FILE).write_text(drawn.sealed().model_dump_json())


def age(store: Store, days: float) -> None:
    """Makes every artifact and record so old that gc looks at it."""
    then = time.time() - days * 86_400
    for path in (*store.root.glob("artifacts/*/*"), *store.root.glob("records/*")):
        os.utime(path, (then, then))


def measure(root: Path) -> dict[str, float]:
    """Seconds of each command."""
    found = {}
    for name, words in COMMANDS.items():
        started = time.monotonic()
        done = subprocess.run(
            [*SIMS, *words, "--store", str(root)], capture_output=True, text=True, check=False
        )
        found[name] = round(time.monotonic() - started, 2)
        if done.returncode not in (0, 1) or "Traceback" in done.stderr:
            sys.exit(f"error: {name}: {done.stderr}")
    return found


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--artifacts", type=int, default=10_000)
    parser.add_argument("--runs", type=int, default=100)
    asked = parser.parse_args()
    os.environ["SIMS_FSYNC"] = "0"
    seconds = []
    for share in (SMALL, 1):
        with tempfile.TemporaryDirectory() as root:
            store = Store.open(root)
            refs = fill(store, asked.artifacts // share)
            add_runs(store, refs, asked.runs // share)
            age(store, 2)
            seconds.append(measure(Path(root)))
    small, large = seconds
    print(
        json.dumps({"artifacts": asked.artifacts, "runs": asked.runs, "s": large, "fifth": small})
    )
    slow = [
        name
        for name, took in large.items()
        if took > BUDGET_S or took > SLACK * SMALL * small[name] + STARTING_S
    ]
    for name in slow:
        print(f"{name}: {large[name]} s, {small[name]} s on a fifth", file=sys.stderr)
    return 1 if slow else 0


if __name__ == "__main__":
    sys.exit(main())
