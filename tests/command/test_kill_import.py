"""SIGKILL of an import: the same command goes on and ends in the same bytes."""

from __future__ import annotations

import json
import os
import signal

import numpy as np

from sims_core.data.grid import encode_png


def _workers() -> set[str]:
    from pathlib import Path

    found = set()
    for line in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if b"sims_core.engine.pool" in line.read_bytes():
                found.add(line.parent.name)
        except (FileNotFoundError, ProcessLookupError):
            continue
    return found


def test_a_killed_import_goes_on(sims, started, wait_for, bytes_of, tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (2100, 3, 16, 16), dtype=np.uint8)
    (tmp_path / "pictures").mkdir()
    for number, image in enumerate(images):
        (tmp_path / "pictures" / f"{number:04d}.png").write_bytes(encode_png(image))
    command = ["data", "import", str(tmp_path / "pictures"), "--name", "own", "--json", "--store"]
    assert sims(*command, str(tmp_path / "quiet"), SIMS_THREADS="1").returncode == 0
    before = _workers()
    running = started(*command, str(tmp_path / "killed"), SIMS_THREADS="2")

    def has_kept_a_shard():
        kept = tmp_path.glob("killed/progress/*/state/imported.jsonl")
        return any(b"\n" in each.read_bytes() for each in kept)

    wait_for(has_kept_a_shard, interval=0.005)
    os.kill(running.pid, signal.SIGKILL)
    running.wait()
    wait_for(lambda: _workers() <= before, seconds=20)
    done = sims(*command, str(tmp_path / "killed"), SIMS_THREADS="2")
    assert done.returncode == 0, done.stderr
    assert "goes on after " in done.stderr
    assert json.loads(done.stdout)["count"] == 2100

    def pictures(store):
        return {n: sha for n, sha in bytes_of(tmp_path / store).items() if "manifest" not in n}

    assert pictures("killed") == pictures("quiet")
