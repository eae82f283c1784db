"""Import of a folder of PNGs against plain loops that decode and store each picture once.

    python tests/benchmarks/bench_import.py [--count 20000] [--processes 2]

Each in a fresh process: `sims data import` (which also hashes the source and what it stores, looks
at profiles, frames and transparency, and can be interrupted), a loop that stores PNGs as Pillow
does by default, and one that stores them uncompressed, as EDM's dataset tool does. Prints one JSON
line each: seconds, processor seconds, and the peak of the memory of the process and its children
together (proportional set size, looked at ten times a second). Exits 1 if the import is slower
than the first loop.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import psutil
from PIL import Image

LOOP = """
import io, sys, zipfile
from pathlib import Path
import numpy as np
from PIL import Image
source, target, level = sys.argv[1:]
options = {} if level == "default" else {"compress_level": int(level), "optimize": False}
with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as archive:
    for number, path in enumerate(sorted(Path(source).iterdir())):
        pixels, buffer = np.array(Image.open(path)), io.BytesIO()
        Image.fromarray(pixels).save(buffer, format="png", **options)
        archive.writestr(f"{number:08d}.png", buffer.getvalue())
"""
IMPORT = "from infra.cli.main import main; main()"


def put_pictures(folder: Path, count: int) -> None:
    """Pictures of 64 x 64: smooth, with a little noise, as photographs are."""
    random = np.random.default_rng(0)
    for number in range(count):
        coarse = random.integers(0, 256, (9, 9, 3), dtype=np.uint8)
        smooth = Image.fromarray(coarse).resize((64, 64), Image.Resampling.BICUBIC)
        noisy = np.asarray(smooth).astype(int) + random.integers(-4, 5, (64, 64, 3))
        Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(folder / f"{number:06d}.png")


def memory(process: psutil.Process) -> int:
    total = 0
    for each in (process, *process.children(recursive=True)):
        try:
            total += each.memory_full_info().pss
        except (psutil.NoSuchProcess, psutil.AccessDenied, FileNotFoundError):
            continue
    return total


def measure(name: str, command: list[str], settings: dict[str, str] | None = None) -> float:
    before, peak = resource.getrusage(resource.RUSAGE_CHILDREN), 0
    started = time.perf_counter()
    with subprocess.Popen(
        [sys.executable, "-c", *command],
        env={**os.environ, **(settings or {})},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as process:
        watched = psutil.Process(process.pid)
        while process.poll() is None:
            peak = max(peak, memory(watched))
            time.sleep(0.1)
        seconds = time.perf_counter() - started
    if process.returncode:
        raise SystemExit(f"{name} failed")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    row = {"seconds": round(seconds, 2), "processor_seconds": round(used, 2), "mb": peak >> 20}
    print(json.dumps({"what": name, **row}), flush=True)
    return seconds


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--count", type=int, default=20_000)
    parser.add_argument("--processes", type=int, default=len(os.sched_getaffinity(0)))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        (root / "pictures").mkdir()
        put_pictures(root / "pictures", options.count)
        source = str(root / "pictures")
        arguments = ["data", "import", source, "--name", "own", "--store", str(root / "store")]
        settings = {"SIMS_THREADS": str(options.processes)}
        ours = measure("sims data import", [IMPORT, *arguments], settings)
        loop = measure("plain loop", [LOOP, source, str(root / "a.zip"), "default"])
        edm = measure("plain loop, uncompressed", [LOOP, source, str(root / "b.zip"), "0"])
    ratios = {"to_plain_loop": round(ours / loop, 2), "to_uncompressed": round(ours / edm, 2)}
    print(json.dumps({"what": "ratio of seconds", "count": options.count, **ratios}))
    return int(ours > loop)


if __name__ == "__main__":
    raise SystemExit(main())
