"""What does it cost that an artifact is on the disk before it has its name?

    python tests/benchmarks/bench_fsync.py [FOLDER]

Commits artifacts of three sizes to a store in FOLDER (the system's folder of temporary files), with
SIMS_FSYNC=1 and 0 in turns, and prints the median of each, their difference and ratio. Exits 1
if a small one takes half a second more: it would be felt in every stage.
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

from sims_core.store.artifacts import Record, StageRequest
from sims_core.store.store import Store

SIZES = {"metrics, 2 files of 4 kB": (2, 1 << 12, 15), "model, 4 files of 2 MB": (4, 1 << 21, 7)}
SHARDS = {"images, 8 shards of 16 MB": (8, 1 << 24, 3)}
MOST_S = 0.5


def commit_s(store: Store, tag: str, files: int, size: int) -> float:
    """Seconds that the commit of one artifact takes."""
    request = StageRequest(stage="bench", version=1, kind="bench", config={"tag": tag})
    folder = store.progress_path(request.ref) / "artifact"
    folder.mkdir(parents=True)
    for number in range(files):
        (folder / f"{number}.bin").write_bytes(os.urandom(size))
    record = Record(computed_by="bench", finished="2026-01-01T00:00:00+00:00", seconds=0.0)
    started = time.perf_counter()
    store.commit(request, folder, execution={}, libraries={}, details={}, record=record)
    return time.perf_counter() - started


def main() -> int:
    within = True
    with tempfile.TemporaryDirectory(dir=sys.argv[1] if sys.argv[1:] else None) as root:
        store = Store.open(Path(root))
        print(f"{'ms an artifact':<28}{'synced':>10}{'SIMS_FSYNC=0':>14}{'cost':>8}{'ratio':>8}")
        for name, (files, size, times) in {**SIZES, **SHARDS}.items():
            taken: dict[str, list[float]] = {"1": [], "0": []}
            for number in range(times):
                for value, seconds in taken.items():
                    os.environ["SIMS_FSYNC"] = value
                    seconds.append(commit_s(store, f"{name} {number} {value}", files, size))
            synced, not_synced = (1000 * statistics.median(taken[value]) for value in "10")
            cost = synced - not_synced
            told = f"{synced:>10.1f}{not_synced:>14.1f}{cost:>8.1f}{synced / not_synced:>8.1f}"
            print(f"{name:<28}{told}")
            within &= name in SHARDS or cost < 1000 * MOST_S
    return 0 if within else 1


if __name__ == "__main__":
    sys.exit(main())
