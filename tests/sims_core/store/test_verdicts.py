"""What a store remembers of what it verified: never more than is true."""

from __future__ import annotations

import os
import shutil
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

import sims_core.store.store
from sims_core.store import verdicts
from sims_core.store.artifacts import StageRequest
from sims_core.store.store import Store
from sims_core.store.verdicts import VERDICTS_FILE

CONTENT = bytes(range(256))


def put(store, tag="a"):
    request = StageRequest(stage="train", version=1, kind="model", config={"tag": tag})
    folder = store.progress_path(request.ref)
    (folder / "net").mkdir(parents=True)
    (folder / "net" / "weights.bin").write_bytes(CONTENT)
    return store.commit(request, folder, execution={}, libraries={}, details={})


@pytest.fixture
def settled(monkeypatch):
    """Entries of this test count as settled a moment after they were written."""
    monkeypatch.setattr(verdicts, "SETTLED_NS", 30_000_000)

    def wait():
        time.sleep(0.1)

    return wait


@pytest.fixture
def reads(monkeypatch):
    """The files whose bytes were read."""
    found = []
    real = sims_core.store.store.file_sha256

    def counted(path):
        found.append(path.name)
        return real(path)

    monkeypatch.setattr(sims_core.store.store, "file_sha256", counted)
    return found


def verified(root, wait):
    """A store with one entry that another process has verified."""
    ref = put(Store.open(root))
    wait()
    assert Store.open(root).is_whole(ref)
    return ref


def test_a_later_process_reads_no_byte_again(tmp_path, settled, reads):
    ref = verified(tmp_path, settled)
    reads.clear()
    assert Store.open(tmp_path).is_whole(ref)
    assert Store(tmp_path).is_whole(ref)
    assert reads == []


def test_an_entry_that_was_just_written_is_not_remembered(tmp_path, reads):
    """Within a clock's resolution a second write could leave all times as they are."""
    ref = put(Store.open(tmp_path))
    assert Store.open(tmp_path).is_whole(ref)
    reads.clear()
    assert Store.open(tmp_path).is_whole(ref)
    assert reads == ["weights.bin"]


def rewrite(path):
    path.write_bytes(CONTENT[::-1])


def rewrite_with_the_old_times(path):
    before = path.stat()
    path.write_bytes(CONTENT[::-1])
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def replace(path):
    before = path.stat()
    other = path.with_name("other")
    other.write_bytes(CONTENT[::-1])
    os.utime(other, ns=(before.st_atime_ns, before.st_mtime_ns))
    os.replace(other, path)


def add(path):
    path.with_name("foreign").write_bytes(b"")


@pytest.mark.parametrize("change", [rewrite, rewrite_with_the_old_times, replace, add, os.unlink])
def test_a_verdict_does_not_outlive_a_change(tmp_path, settled, change):
    ref = verified(tmp_path, settled)
    change(tmp_path / ref.location / "net" / "weights.bin")
    assert not Store.open(tmp_path).is_whole(ref)


def test_a_copy_is_read_before_it_is_trusted(tmp_path, settled, reads):
    ref = verified(tmp_path / "store", settled)
    shutil.copytree(tmp_path / "store", tmp_path / "copy")
    reads.clear()
    assert Store.open(tmp_path / "copy").is_whole(ref)
    assert reads == ["weights.bin"]


def test_damage_that_no_time_shows_is_found_by_verifying_and_then_known(
    tmp_path, settled, monkeypatch
):
    """A bit that the disk flips. Here the stamp is kept from seeing a change instead."""
    ref = verified(tmp_path, settled)
    kept = verdicts.Stamp(tmp_path / ref.location)
    rewrite(tmp_path / ref.location / "net" / "weights.bin")
    monkeypatch.setattr(sims_core.store.store, "Stamp", lambda folder: kept)
    assert Store.open(tmp_path).is_whole(ref), "that is what a verdict is believed for"
    assert Store.open(tmp_path, create=False).damage(ref) == [
        f"{ref.location}/net/weights.bin: content differs from its SHA-256"
    ]
    assert not Store.open(tmp_path).is_whole(ref)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda text: text[:-9],
        lambda text: text.replace("artifacts/model/", "artifacts/modal/"),
        lambda text: text[:-10] + "0" * 9 + "\n",
        lambda text: "\x00" * len(text),
        lambda text: "",
    ],
)
def test_a_line_that_is_not_right_is_not_believed(tmp_path, settled, reads, spoil):
    ref = verified(tmp_path, settled)
    path = tmp_path / VERDICTS_FILE
    path.write_text(spoil(path.read_text()))
    reads.clear()
    assert Store.open(tmp_path).is_whole(ref)
    assert reads == ["weights.bin"]


def test_what_is_forgotten_stays_so_after_a_torn_line(tmp_path, settled):
    ref = verified(tmp_path, settled)
    path = tmp_path / VERDICTS_FILE
    path.write_text(path.read_text() + "artifacts/model/torn")
    verdicts.Verdicts(tmp_path).forget(ref)
    assert not verdicts.Verdicts(tmp_path).holds(ref, verdicts.Stamp(tmp_path / ref.location))


def test_a_folder_that_cannot_be_written_is_read_all_the_same(tmp_path, settled):
    ref = put(Store.open(tmp_path))
    settled()
    (tmp_path / VERDICTS_FILE).mkdir()
    assert Store.open(tmp_path).is_whole(ref)


def test_who_only_looks_writes_nothing(tmp_path, settled):
    ref = put(Store.open(tmp_path))
    settled()
    assert Store(tmp_path).is_whole(ref)
    assert not (tmp_path / VERDICTS_FILE).exists()


def test_many_writers_lose_nothing(tmp_path, settled, reads):
    refs = [put(Store.open(tmp_path), str(number)) for number in range(40)]
    settled()

    def verify(number):
        store = Store.open(tmp_path)
        return all(store.is_whole(ref) for ref in refs[number::4])

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(verify, range(4)))
    reads.clear()
    again = Store.open(tmp_path)
    assert all(again.is_whole(ref) for ref in refs)
    assert reads == []


def test_the_file_does_not_grow_without_end(tmp_path, settled, reads, monkeypatch):
    monkeypatch.setattr(verdicts, "COMPACT_ABOVE", 10)
    ref = verified(tmp_path, settled)
    path = tmp_path / VERDICTS_FILE
    path.write_text(path.read_text() * 11)
    reads.clear()
    assert Store.open(tmp_path).is_whole(ref)
    assert path.read_text().count("\n") == 1
    assert Store.open(tmp_path).is_whole(ref)
    assert reads == []
