"""How long does it take to look at 10,000 artifacts that an earlier process has verified?

    python tests/benchmarks/bench_store_looks.py [--artifacts 10000]

Fills a store, waits until nothing of it is too new to be remembered, and looks at every artifact in
two processes, one after the other: the first reads every byte, the second none. Prints one JSON
line; exits 1 if the second takes a second or more.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from sims_core.store.artifacts import StageRequest
from sims_core.store.store import Store

BUDGET_S = 1.0
LOOK = """
import sys, time
from pathlib import Path
from sims_core.store.store import Store
store = Store.open(Path(sys.argv[1]))
refs = store.artifacts()
started = time.perf_counter()
whole = sum(store.is_whole(ref) for ref in refs)
print(time.perf_counter() - started, whole)
"""


def fill(store: Store, count: int) -> None:
    for number in range(count):
        config = {"number": number}
        request = StageRequest(stage="train", version=1, kind="model", config=config)
        folder = store.progress_path(request.ref)
        folder.mkdir()
        (folder / "model.json").write_text(json.dumps(config))
        (folder / "net.safetensors").write_bytes(number.to_bytes(4, "little") * 2048)
        store.commit(request, folder, execution={}, libraries={}, details={})


def look(root: str, count: int) -> float:
    """Seconds to look at all of them, in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-c", LOOK, root], capture_output=True, text=True, check=True
    )
    seconds, whole = done.stdout.split()
    if int(whole) != count:
        sys.exit(f"error: {whole} of {count} are whole")
    return float(seconds)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--artifacts", type=int, default=10_000)
    count = parser.parse_args().artifacts
    with tempfile.TemporaryDirectory() as root:
        fill(Store.open(Path(root)), count)
        time.sleep(3)
        first, second = look(root, count), look(root, count)
    found = {"artifacts": count, "first_s": round(first, 2), "second_s": round(second, 2)}
    print(json.dumps(found))
    return 0 if second < BUDGET_S else 1


if __name__ == "__main__":
    sys.exit(main())
