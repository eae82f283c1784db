"""`sims store` with decoded training sets beside the artifacts."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

from sims_core.data import decoded
from sims_core.data.decoded import DecodedSet
from sims_core.data.image_set import Shard, write_index, write_shard
from sims_core.store.artifacts import StageRequest
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
