"""Decoded images on the disk: equal to those decoded anew, made once, noticed when damaged."""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import os
import subprocess
import sys

import numpy as np
import pytest
import torch

from sims_core.catalog import run_stage
from sims_core.data import decoded, mixing
from sims_core.data.config import MixConfig, MixPart
from sims_core.data.decoded import DecodedSet, decoded_sets
from sims_core.data.mixing import load_training_set, read_first_labelled
from sims_core.data.parts import ImageParts
from sims_core.data.stages import MIX
from sims_core.engine.execution import Execution
from sims_core.store.cache import decoded_folders, disk_bytes
from sims_core.store.store import Store


@pytest.fixture(autouse=True)
def _always_mapped(monkeypatch):
    monkeypatch.setattr(mixing, "IN_MEMORY_BYTES", 0)
    monkeypatch.setattr(decoded, "RESERVE_BYTES", 0)


@pytest.fixture
def two_sets(store, put_images, random_images):
    """A mix of 12 labelled and the first 7 of 11 labelled images, in shards of 5; its folder."""
    one = put_images(store, random_images(12), labels=list(range(12)))
    two = put_images(store, random_images(11, seed=1), labels=[5] * 11)
    parts = (
        MixPart(input="a", synthetic=False, count=None),
        MixPart(input="b", synthetic=True, count=7),
    )
    ref = run_stage(store, MIX.request(MixConfig(parts=parts), a=one, b=two), Execution())
    return one, two, store.open_artifact(ref)


def everything(images: ImageParts) -> np.ndarray:
    return images[torch.arange(len(images))].numpy()


def expected(random_images) -> np.ndarray:
    return np.concatenate([random_images(12), random_images(11, seed=1)[:7]])


def count_decoded(monkeypatch) -> list[str]:
    shards: list[str] = []
    real = decoded.decode_shard
    monkeypatch.setattr(
        decoded, "decode_shard", lambda task: (shards.append(task.shard.name), real(task))[1]
    )
    return shards


def test_a_mix_is_mapped_from_what_was_decoded_once(store, two_sets, random_images, monkeypatch):
    one, two, folder = two_sets
    shards = count_decoded(monkeypatch)
    images, labels = load_training_set(store, folder)
    assert np.array_equal(everything(images), expected(random_images))
    assert labels.tolist() == [*range(12), *[5] * 7]
    assert len(shards) == 3 + 2, "the third shard of the second set is not needed"
    assert all(isinstance(part, np.memmap) for part in images.parts)
    again, labels = load_training_set(Store.open(store.root), folder)
    assert np.array_equal(everything(again), expected(random_images))
    assert labels.tolist() == [*range(12), *[5] * 7]
    assert len(shards) == 5, "decoded a second time"
    whole, _ = DecodedSet(store, two).map(11, 1)
    assert np.array_equal(whole, random_images(11, seed=1))
    assert len(shards) == 6, "only what was missing"
    assert {each.ref.digest for each in decoded_sets(store)} == {one.digest, two.digest}


def test_indexing_is_a_tensors(store, two_sets, random_images):
    images, _ = load_training_set(store, two_sets[2])
    plain = torch.from_numpy(expected(random_images))
    for seed in range(5):
        chosen = torch.randint(len(plain), (64,), generator=torch.Generator().manual_seed(seed))
        assert torch.equal(images[chosen], plain[chosen])
        images._let_go()  # pages come back as they were


def test_images_without_labels_have_none(store, put_images, random_images):
    ref = put_images(store, random_images(7))
    assert DecodedSet(store, ref).map(7, 1)[1] is None


def _flip(path, place):
    content = bytearray(path.read_bytes())
    content[place] ^= 255
    path.write_bytes(content)


def damage_pixels(one):
    _flip(one.array, -1)


def damage_labels(one):
    _flip(one.labels, -1)


def cut_array(one):
    os.truncate(one.array, one.array.stat().st_size - 1)


def cut_labels(one):
    os.truncate(one.labels, 100)


def remove_array(one):
    one.array.unlink()


def garble_lines(one):
    one.lines.write_bytes(b"\xff{")


def empty_lines(one):
    one.lines.write_bytes(b"")


def another_header(one):
    header, *rest = one.lines.read_text().splitlines()
    changed = {**json.loads(header), "manifest": "0" * 64}
    one.lines.write_text("\n".join([json.dumps(changed), *rest, ""]))


DAMAGES = (
    *(damage_pixels, damage_labels, cut_array, cut_labels, remove_array),
    *(garble_lines, empty_lines, another_header),
)


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_one_is_noticed_and_made_again(
    damage, store, two_sets, random_images, caplog, sims_messages
):
    load_training_set(store, two_sets[2])
    damage(DecodedSet(store, two_sets[0]))
    if damage is not another_header:  # which only the artifact's own manifest can tell
        assert DecodedSet(store, two_sets[0]).damage()
    images, labels = load_training_set(store, two_sets[2])
    assert np.array_equal(everything(images), expected(random_images))
    assert labels.tolist() == [*range(12), *[5] * 7]
    assert f"{two_sets[0].digest}: damaged" in caplog.text
    assert [line for each in decoded_sets(store) for line in each.damage()] == []


@pytest.fixture
def sims_messages(caplog):
    caplog.set_level(logging.INFO, logger="sims_core")
    return caplog


def test_a_torn_line_of_a_killed_process_is_no_obstacle(store, two_sets, random_images):
    load_training_set(store, two_sets[2])
    one = DecodedSet(store, two_sets[0])
    content = one.lines.read_bytes()
    one.lines.write_bytes(content[:-10])
    images, _ = load_training_set(store, two_sets[2])
    assert np.array_equal(everything(images), expected(random_images))
    assert one.lines.read_bytes() == content


def test_a_verified_set_is_not_read_again(store, two_sets, monkeypatch):
    monkeypatch.setattr(decoded, "LARGE_BYTES", 0)  # waits until its times are settled
    monkeypatch.setattr(decoded, "Pool", None)
    load_training_set(store, two_sets[2])
    monkeypatch.setattr(DecodedSet, "_wrong", lambda *_: pytest.fail("was read"))
    load_training_set(Store.open(store.root), two_sets[2])


LOAD = """
import hashlib, sys
from pathlib import Path
import torch
from sims_core.data import decoded, mixing
from sims_core.store.cache import decoded_folders, disk_bytes
from sims_core.store.store import Store

mixing.IN_MEMORY_BYTES = decoded.RESERVE_BYTES = 0
shards, real = [], decoded.decode_shard
decoded.decode_shard = lambda task: (shards.append(task.shard), real(task))[1]
images, _ = mixing.load_training_set(Store.open(Path(sys.argv[1])), Path(sys.argv[2]))
content = images[torch.arange(len(images))].numpy().tobytes()
print(len(shards), hashlib.sha256(content).hexdigest())
"""


def test_two_processes_at_once_decode_once(store, two_sets, random_images):
    command = [sys.executable, "-c", LOAD, str(store.root), str(two_sets[2])]
    processes = [
        subprocess.Popen(command, stdout=subprocess.PIPE, text=True, stderr=subprocess.PIPE)
        for _ in range(2)
    ]
    found = [process.communicate(timeout=400)[0].split() for process in processes]
    assert sum(int(count) for count, _ in found) == 5
    content = hashlib.sha256(expected(random_images).tobytes()).hexdigest()
    assert {sha256 for _, sha256 in found} == {content}


def test_by_processes_they_are_the_same(store, two_sets, monkeypatch):
    monkeypatch.setattr(decoded, "LARGE_BYTES", 0)
    DecodedSet(store, two_sets[0]).map(12, 2)
    by_two = DecodedSet(store, two_sets[0]).array.read_bytes()
    monkeypatch.undo()
    monkeypatch.setattr(decoded, "RESERVE_BYTES", 0)
    DecodedSet(store, two_sets[1]).map(11, 1)
    DecodedSet(store, two_sets[0]).array.unlink()
    DecodedSet(store, two_sets[0]).map(12, 1)
    assert DecodedSet(store, two_sets[0]).array.read_bytes() == by_two


@pytest.mark.parametrize("why", ["full", "fills", "read only"])
def test_where_the_disk_does_not_take_it_there_is_a_line(
    why, store, two_sets, random_images, monkeypatch, caplog
):
    if why == "full":
        monkeypatch.setattr(decoded, "RESERVE_BYTES", 1 << 60)
    elif why == "fills":

        def full(task):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        monkeypatch.setattr(decoded, "decode_shard", full)
    else:
        (store.root / "cache").write_text("no folder")
    images, _ = load_training_set(store, two_sets[2])
    assert np.array_equal(everything(images), expected(random_images))
    assert "decoded into memory, at every start and in every process: " in caplog.text
    assert sum(map(disk_bytes, decoded_folders(store.root))) < 1 << 16, "the room is given back"


def test_latents_are_mapped_as_networks_see_them(store, put_images, monkeypatch):
    latents = np.random.default_rng(0).normal(size=(7, 2, 4, 4)).astype(np.float16)
    monkeypatch.setattr("sims_core.data.image_writer.image_grid", lambda images: b"")
    ref = put_images(store, latents)
    mapped, _ = DecodedSet(store, ref).map(7, 1)
    assert mapped.dtype == np.float16
    assert np.array_equal(mapped, read_first_labelled(store.open_artifact(ref), None)[0])
