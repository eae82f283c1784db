"""SIGKILL at any moment: the same command goes on and ends in the same bytes."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

CHANGES = {
    "training__kimg": "6",
    "sims__n_s": "2100",  # three shards
    "sampler__num_steps": "4",
    "methods": "sims",
}
SETTINGS = {"SIMS_CHECKPOINT_KIMG": "0.1"}


def _processes() -> dict[int, tuple[int, str, int]]:
    """Of every process that is not a zombie: its parent, and a name that is never used again."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            state, parent, *rest = (folder / "stat").read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if state != "Z":
            found[int(folder.name)] = (int(parent), rest[17])
    return found


def _descendants(pid: int) -> set[tuple[int, str]]:
    processes = _processes()
    found, parents = set(), {pid}
    while parents:
        children = {child for child, (parent, _) in processes.items() if parent in parents}
        found |= {(child, processes[child][1]) for child in children}
        parents = children
    return found


def _left(of: set[tuple[int, str]]) -> list[str]:
    processes = _processes()
    return [
        Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")
        for pid, born in of
        if pid in processes and processes[pid][1] == born
    ]


def _training_base(store: Path) -> bool:
    """A checkpoint of the base's training is there; the classifier has none."""
    return any(store.glob("progress/*/state/checkpoint.pt"))


def _between_shards(store: Path) -> bool:
    return any(store.glob("progress/*/state/images-*.tar.sha256"))


def _after_generation_1(store: Path) -> bool:
    return len(list((store / "artifacts").glob("metrics/*/manifest.json"))) == 1


MOMENTS = {
    "training": (_training_base, "resumed at"),
    "between shards": (_between_shards, "of 3 shards were made before"),
    "between stages": (_after_generation_1, None),
}


@pytest.mark.slow
def test_killed_at_three_moments_ends_in_the_same_bytes(
    sims, started, wait_for, bytes_of, prefect_url, tmp_path
):
    quiet, store = tmp_path / "undisturbed", tmp_path / "killed"
    done = sims(
        *sims.run_arguments(quiet, "--json", **CHANGES), PREFECT_API_URL=prefect_url, **SETTINGS
    )
    assert done.returncode == 0, done.stderr

    arguments = sims.run_arguments(store, "--json", **CHANGES)

    def run_and_kill(reached: Callable[[Path], bool]) -> str:
        """Starts the command, with Prefect's embedded API; returns what it said until the kill."""
        run = started(*arguments, **SETTINGS)
        wait_for(lambda: run.poll() is not None or reached(store), 100, interval=0.002)
        children = _descendants(run.pid)
        os.kill(run.pid, signal.SIGKILL)
        _, stderr = run.communicate(timeout=20)
        assert run.returncode == -signal.SIGKILL, f"over too soon: {stderr}"
        assert children, "the embedded API is a child"
        wait_for(lambda: not _left(children), 60)
        return stderr

    messages = []
    for reached, _ in MOMENTS.values():
        messages.append(run_and_kill(reached))
        assert sims("store", "verify", "--store", str(store)).returncode == 0
        assert bytes_of(store).items() < bytes_of(quiet).items()

    last = sims(*arguments, **SETTINGS)
    assert last.returncode == 0, last.stderr
    messages.append(last.stderr)
    for (moment, (_, resumed)), after in zip(MOMENTS.items(), messages[1:], strict=True):
        assert resumed is None or resumed in after, f"{moment}: began anew"
    assert bytes_of(store) == bytes_of(quiet)
    finished, undisturbed = json.loads(last.stdout), json.loads(done.stdout)
    assert finished["arms"] == undisturbed["arms"]
    assert 0 < finished["stages"]["computed"] < undisturbed["stages"]["computed"]
    assert list((store / "progress").iterdir()) == []
