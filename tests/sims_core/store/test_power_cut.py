"""What is trusted by its name was on the disk before it had it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from sims_core.common.files import write_atomically
from sims_core.common.kept import is_kept, keep, note_of
from sims_core.store.artifacts import Record, StageRequest
from sims_core.store.store import Store


class Disk:
    """Knows of each file what of it has been brought to the disk, and looks when one is renamed."""

    def __init__(self, monkeypatch):
        self.synced, self.renamed = {}, []
        self.fsync, self.replace = os.fsync, os.replace
        monkeypatch.setattr(os, "fsync", self._fsync)
        monkeypatch.setattr(os, "replace", self._replace)

    @staticmethod
    def _state(path_or_file):
        found = os.stat(path_or_file)  # noqa: PTH116 - also of an open file
        return found.st_ino, (found.st_size, found.st_mtime_ns)

    def _fsync(self, file):
        inode, state = self._state(file)
        self.synced[inode] = state
        self.fsync(file)

    def _replace(self, source, target):
        source = Path(source)
        inside = [source, *source.rglob("*")] if source.is_dir() else [source]
        states = [self._state(path) for path in inside]
        lost = [
            str(path)
            for path, (inode, state) in zip(inside, states, strict=True)
            if self.synced.get(inode) != state
        ]
        self.renamed.append((Path(target), lost))
        self.replace(source, target)

    def lost_of(self, target):
        """What of that target a power cut right after its renaming might have lost."""
        (lost,) = [lost for renamed, lost in self.renamed if renamed == target]
        return lost

    def has_name_of(self, path):
        """Whether the name itself is on the disk: its folder did not change since it was synced."""
        inode, state = self._state(path.parent)
        return self.synced.get(inode) == state


@pytest.fixture
def disk(monkeypatch):
    return Disk(monkeypatch)


def commit(store):
    request = StageRequest(stage="train", version=1, kind="model", config={})
    made = store.progress_path(request.ref) / "artifact"
    (made / "net").mkdir(parents=True)
    (made / "net" / "weights").write_bytes(b"w" * 10_000)
    (made / "loss.csv").write_text("1")
    record = Record(computed_by="me", finished="2026-01-01T00:00:00+00:00", seconds=1.0)
    store.commit(request, made, execution={}, libraries={}, details={}, record=record)
    return request.ref


def test_an_artifact_is_on_the_disk_before_it_has_its_name(tmp_path, disk):
    store = Store.open(tmp_path / "store")
    ref = commit(store)
    assert disk.lost_of(store.path(ref)) == []
    assert disk.has_name_of(store.path(ref))
    assert store.is_whole(ref)
    (store.record_path(ref)).write_bytes(b"")  # the record need not be: the manifest tells it again
    store.settle(ref)
    assert store.record(ref).content == store.manifest(ref).content


def test_unfinished_work_is_on_the_disk_before_it_is_trusted(tmp_path, disk):
    (tmp_path / "partial").mkdir()
    (tmp_path / "partial" / "deep").write_text("a snapshot")
    keep(tmp_path / "partial", tmp_path / "snapshot")
    (tmp_path / "file").write_text("a checkpoint")
    keep(tmp_path / "file", tmp_path / "checkpoint.pt")
    for path in (tmp_path / "snapshot", tmp_path / "checkpoint.pt"):
        assert is_kept(path)
        assert disk.lost_of(path) == []
        note_of(path).write_bytes(b"")  # a note that is lost vouches for nothing
        assert not is_kept(path)


def test_the_check_of_these_tests_sees_what_is_not_synced(tmp_path, disk, monkeypatch):
    """And SIMS_FSYNC=0 waits for nothing."""
    monkeypatch.setenv("SIMS_FSYNC", "0")
    store = Store.open(tmp_path / "store")
    ref = commit(store)
    assert len(disk.lost_of(store.path(ref))) == 5
    write_atomically(tmp_path / "a", "b")
    assert disk.lost_of(tmp_path / "a")
    assert disk.synced == {}
