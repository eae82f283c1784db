from __future__ import annotations

import re
import subprocess

import pytest


def _mount(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["mount", *arguments], capture_output=True, text=True, check=False)


@pytest.fixture
def small_disk(tmp_path):
    """A file system that holds the real images and little more."""
    folder = tmp_path / "disk"
    folder.mkdir()
    try:
        mounted = _mount("-t", "tmpfs", "-o", "size=5m", "tmpfs", str(folder))
    except FileNotFoundError:
        pytest.skip("there is no mount command")
    if mounted.returncode:
        pytest.skip(f"may not mount: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_a_full_disk_is_one_line_and_room_lets_the_run_go_on(
    small_disk, sims, tiny_run, prefect_url, bytes_of
):
    store = small_disk / "store"
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

    assert _mount("-o", "remount,size=64m", str(small_disk)).returncode == 0
    done = sims(*arguments, PREFECT_API_URL=prefect_url)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1].startswith(f"report: {store}/runs/digits-")
    assert bytes_of(store) == bytes_of(tiny_run.store)
    assert list((store / "progress").iterdir()) == []
