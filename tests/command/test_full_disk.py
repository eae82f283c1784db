from __future__ import annotations

import re
import subprocess

import pytest

pytestmark = pytest.mark.slow


def test_a_full_disk_is_one_line_and_room_lets_the_run_go_on(
    small_disk, sims, tiny_run, prefect_url, bytes_of
):
    disk = small_disk(5)  # the real images and little more
    store = disk / "store"
    arguments = sims.run_arguments(store)
    done = sims(*arguments, PREFECT_API_URL=prefect_url)
    assert (done.returncode, done.stdout) == (1, "")
    said = [line for line in done.stderr.splitlines() if not line.startswith("[")]
    assert said.pop(0) == "loading Prefect and the flow"
    *figures, line = said
    assert all(re.match(r"standard .*, t = \d of 2: fid ", each) for each in figures)
    assert line.startswith(f"error: the disk of the store {store} is full")
    kept = bytes_of(store)
    assert kept, "nothing was finished before the disk was full"
    assert sims("store", "verify", "--store", str(store)).returncode == 0

    subprocess.run(["mount", "-o", "remount,size=64m", str(disk)], check=True)
    done = sims(*arguments, PREFECT_API_URL=prefect_url)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1].startswith(f"report: {store}/runs/digits-")
    assert bytes_of(store) == bytes_of(tiny_run.store)
    assert list((store / "progress").iterdir()) == []
