"""`sims store` with decoded training sets beside the artifacts."""

from __future__ import annotations

import json
import os
import shutil

import numpy as np
import pytest

from sims_core.data import decoded
from sims_core.data.decoded import DecodedSet
from sims_core.data.image_set import Shard, write_index, write_shard
from sims_core.reports.upkeep import collect
from sims_core.store.artifacts import StageRequest
from sims_core.store.cache import decoding, disk_bytes
from sims_core.store.leases import needing
from sims_core.store.store import Store


@pytest.fixture
def mapped(tmp_path, monkeypatch):
    """A store with one artifact of nine images, decoded."""
    monkeypatch.setattr(decoded, "RESERVE_BYTES", 0)
    store = Store.open(tmp_path / "store")
    request = StageRequest(stage="prepare", version=1, kind="images", config={})
    folder = store.progress_path(request.ref)
    folder.mkdir()
    images = np.random.default_rng(0).integers(0, 256, (9, 1, 8, 8), dtype=np.uint8)
    write_shard(folder / "images-00000.tar", images, 0)
    write_index(folder, images, [Shard(file="images-00000.tar", count=9)])
    ref = store.commit(request, folder, execution={}, libraries={}, details={})
    made = DecodedSet(store, ref)
    made.map(9, 1)
    return made


def test_decoded_sets_are_listed_verified_and_may_go(mapped, sims):
    root = str(mapped.store.root)
    listed = json.loads(sims("store", "ls", "--store", root, "--json").stdout)
    assert len(listed["artifacts"]) == 1
    assert listed["decoded"]["sets"] == 1
    assert listed["decoded"]["bytes"] >= 9 * 64
    assert "1 decoded training sets, " in sims("store", "ls", "--store", root).stdout
    assert sims("store", "verify", "--store", root).returncode == 0
    content = bytearray(mapped.array.read_bytes())
    content[-1] ^= 1
    mapped.array.write_bytes(content)
    done = sims("store", "verify", "--store", root)
    assert done.returncode == 1
    assert done.stdout.splitlines() == [f"{mapped.location}: shard 0 is damaged"]
    shutil.rmtree(mapped.store.root / "cache")
    assert sims("store", "verify", "--store", root).returncode == 0
    assert "decoded training" not in sims("store", "ls", "--store", root).stdout


def held(sims, root):
    return json.loads(sims("store", "du", "--store", root, "--json").stdout)


def test_decoded_sets_go_with_their_artifact_and_not_before(mapped, sims):
    """They are counted, and go when nobody needs the artifact any more."""
    store, size = mapped.store, disk_bytes(mapped.folder)
    root = str(store.root)
    link = store.root / "runs" / "one" / "arms" / "0"
    link.parent.mkdir(parents=True)
    link.symlink_to(os.path.relpath(store.path(mapped.ref), link.parent))
    found = held(sims, root)
    assert found["decoded"] == {"sets": 1, "bytes": size, "unneeded": 0}
    assert f"1 decoded training sets: {size} bytes" in sims("store", "du", "--store", root).stdout
    assert collect(store, 0, dry_run=False).decoded == []
    shutil.rmtree(store.root / "runs" / "one")
    assert held(sims, root)["decoded"]["unneeded"] == size
    assert collect(store, 1, dry_run=False).decoded == [], "it is of today"
    would = json.loads(
        sims("store", "gc", "--older-than", "0", "--dry-run", "--store", root, "--json").stdout
    )
    assert (would["decoded"], would["decoded_bytes"]) == ([mapped.location], size)
    assert mapped.folder.exists()
    images = np.load(mapped.array, mmap_mode="r")
    before = images.copy()
    done = sims("store", "gc", "--older-than", "0", "--store", root)
    assert f"removed 1 artifacts of {would['bytes']} bytes, 1 decoded training sets" in done.stdout
    assert not mapped.folder.exists()
    assert (images == before).all(), "who has it mapped keeps it"


def test_decoded_sets_in_use_stay(mapped):
    store = mapped.store
    with needing(store, [mapped.ref]):
        shutil.rmtree(store.path(mapped.ref))  # it is lost, and made again by whoever needs it
        assert collect(store, 0, dry_run=False).decoded == []
    with decoding(store.root, mapped.ref.digest, "it"):
        assert collect(store, 0, dry_run=False).decoded == []
    assert mapped.folder.exists()
    assert collect(store, 0, dry_run=False).decoded == [mapped.location]
    assert not mapped.folder.exists()
    assert list((store.root / "locks").iterdir()) == []
