"""An import that is interrupted goes on where it stopped, and ends in the same bytes."""

from __future__ import annotations

import builtins
import hashlib
import io
import json
import os
from collections import Counter

import numpy as np
import pytest

from sims_core.catalog import run_stage
from sims_core.common.errors import BadInput
from sims_core.data import content, image_writer, importing, trees
from sims_core.data.grid import encode_png
from sims_core.data.import_progress import DONE_FILE, Observer, Seen
from sims_core.data.importing import plan_import
from sims_core.data.stages import IMPORT
from sims_core.engine.execution import DataFiles, Execution
from sims_core.store.store import Store

BROKEN = (3, 11, 30)


@pytest.fixture(autouse=True)
def _small_shards(monkeypatch):
    monkeypatch.setattr(image_writer, "IMAGES_PER_SHARD", 5)


@pytest.fixture
def pictures(random_images, put, tmp_path):
    """42 pictures in two classes, three of them broken, some with a remark, in a zip or folder."""

    def make(kind: str):
        files = {}
        for number, image in enumerate(random_images(42, channels=3)):
            png = encode_png(image)
            if number % 7 == 0:  # a gamma of 1
                gamma = bytes.fromhex("00000004" + "67414d41" + "000186a0" + "31e8965f")
                png = png[:33] + gamma + png[33:]
            files[f"{number % 2}/{number:03d}.png"] = b"x" if number in BROKEN else png
        return put(kind, tmp_path / f"pictures.{kind}", files)

    return make


def bring(store, source, threads=1):
    files = DataFiles(imported=source)
    options = {"split": None, "labels": None, "size": None, "channels": None, "skip_broken": True}
    request = IMPORT.request(plan_import(files, **options).config)
    return run_stage(store, request, Execution(threads=threads, files=files))


def contents(store, ref):
    """Of every file but the manifest, and what the manifest says of the images."""
    folder = store.open_artifact(ref)
    sums = {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in folder.iterdir()}
    return {**sums, "manifest.json": store.manifest(ref).details}


def stop_at(monkeypatch, number):
    """Interrupts the import at the n-th picture it prepares; counts them."""
    prepared: list[int] = []
    real = importing.prepare

    def prepare(options, content):
        prepared.append(len(prepared))
        if len(prepared) == number:
            raise KeyboardInterrupt
        return real(options, content)

    monkeypatch.setattr(importing, "prepare", prepare)
    return prepared


@pytest.mark.parametrize("kind", ["folder", "zip", "tar"])
def test_an_interrupted_import_goes_on(kind, pictures, tmp_path, monkeypatch, caplog):
    caplog.set_level("INFO", logger="sims_core")
    source = pictures(kind)
    whole = Store.open(tmp_path / "whole")
    expected = contents(whole, bring(whole, source))
    assert expected["manifest.json"]["skipped"] == len(BROKEN)
    assert sum(row["count"] for row in expected["manifest.json"]["remarks"].values()) == 6
    store = Store.open(tmp_path / "stopped")
    for number in (9, 17):
        with monkeypatch.context() as patch:
            stop_at(patch, number)
            with pytest.raises(KeyboardInterrupt):
                bring(store, source)
    prepared = stop_at(monkeypatch, None)
    ref = bring(store, source)
    assert contents(store, ref) == expected
    assert 0 < len(prepared) < 42 - 15, "shards that were done are imported again"
    assert "goes on after 20 images" in caplog.text
    assert list((store.root / "progress").iterdir()) == []


@pytest.mark.parametrize("damage", ["torn", "shard", "gone", "all"])
def test_damaged_progress_is_not_believed(damage, pictures, tmp_path, monkeypatch):
    source = pictures("folder")
    whole, store = Store.open(tmp_path / "whole"), Store.open(tmp_path / "stopped")
    expected = contents(whole, bring(whole, source))
    with monkeypatch.context() as patch:
        stop_at(patch, 30)
        with pytest.raises(KeyboardInterrupt):
            bring(store, source)
    (done,) = store.root.glob(f"progress/*/state/{DONE_FILE}")
    if damage == "torn":
        done.write_bytes(done.read_bytes()[:-20])
    elif damage == "shard":
        os.truncate(done.parent / "images-00001.tar", 2048)
    elif damage == "gone":
        (done.parent / "images-00000.tar").unlink()
    else:
        done.write_bytes(b"\xff")
    assert contents(store, bring(store, source)) == expected


@pytest.mark.parametrize("kind", ["folder", "tar"])
def test_processes_make_the_same_bytes(kind, pictures, tmp_path, monkeypatch):
    source = pictures(kind)
    one, two = Store.open(tmp_path / "one"), Store.open(tmp_path / "two")
    expected = contents(one, bring(one, source))
    monkeypatch.setattr(importing, "ALONE_S", 0)
    assert contents(two, bring(two, source, threads=2)) == expected


def test_large_pictures_are_answered_one_by_one(put, tmp_path, store, monkeypatch):
    """A chunk of which no process answers more than the first pictures at once."""
    noise = np.random.default_rng(0).integers(0, 256, (5, 3, 900, 900), dtype=np.uint8)
    files = {f"{n}.png": encode_png(image) for n, image in enumerate(noise)}
    source = put("folder", tmp_path / "large", files)
    monkeypatch.setattr(importing, "ALONE_S", 0)
    folder = store.open_artifact(bring(store, source, threads=2))
    shard = (folder / "images-00000.tar").read_bytes()
    assert all(png in shard for png in files.values())


def test_a_source_that_changes_meanwhile_is_noticed(pictures, store, monkeypatch):
    source = pictures("folder")
    real, seen = importing.prepare, []

    def prepare(options, content):
        seen.append(1)
        if len(seen) == 20:
            (source / "0" / "000.png").write_bytes((source / "0" / "002.png").read_bytes())
        return real(options, content)

    monkeypatch.setattr(importing, "prepare", prepare)
    with pytest.raises(BadInput, match="is not what it was"):
        bring(store, source)
    assert store.artifacts() == []
    assert list((store.root / "progress").iterdir()) == []


def test_a_changed_source_is_another_import(pictures, store, monkeypatch):
    source = pictures("folder")
    with monkeypatch.context() as patch:
        stop_at(patch, 20)
        with pytest.raises(KeyboardInterrupt):
            bring(store, source)
    (source / "0" / "000.png").write_bytes((source / "0" / "002.png").read_bytes())
    details = contents(store, bring(store, source))["manifest.json"]
    (first,) = {json.dumps(r["first"][:1]) for r in details["remarks"].values()}
    assert "000.png" not in first


def test_what_was_seen_adds_up():
    one, other = Observer(), Observer()
    one.merge(Seen(sides=(4, 9), formats={"PNG": 2}, remarks={"a": {"count": 1, "first": ["x"]}}))
    other.merge(Seen(sides=(3, 5), formats={"JPEG": 1}, skipped=({"name": "y", "reason": "z"},)))
    other.merge(one.seen)
    other.merge(Seen())
    assert other.seen == Seen(
        sides=(3, 9),
        formats={"JPEG": 1, "PNG": 2},
        remarks={"a": {"count": 1, "first": ["x"]}},
        skipped=({"name": "y", "reason": "z"},),
    )


@pytest.mark.parametrize("changed_just_now", [False, True])
def test_every_picture_is_hashed_once_and_read_once(
    changed_just_now, put, random_images, store, tmp_path, monkeypatch
):
    """Where files were changed within two seconds their times prove nothing: they are hashed
    again, before and after the pictures are read."""
    if not changed_just_now:
        monkeypatch.setattr(content, "SETTLED_NS", 0)
    images = random_images(40, channels=3)
    files = {f"{n % 2}/{n:02d}.png": encode_png(image) for n, image in enumerate(images)}
    source = put("folder", tmp_path / "pictures", files)
    opened, hashed, read = Counter(), Counter(), Counter()

    def counted(function, counter, name):
        def call(first, *others, **options):
            counter[str(name(first))] += 1
            return function(first, *others, **options)

        return call

    for module in (io, builtins):
        monkeypatch.setattr(module, "open", counted(open, opened, lambda path: path))
    digest = counted(hashlib.file_digest, hashed, lambda file: file.name)
    monkeypatch.setattr(hashlib, "file_digest", digest)
    reading = counted(trees.read_bounded, read, lambda path: path)
    monkeypatch.setattr(trees, "read_bounded", reading)
    assert store.manifest(bring(store, source)).details["count"] == 40
    paths, passes = [str(source / name) for name in files], 3 if changed_just_now else 1
    assert read == Counter(paths)
    assert [hashed[path] for path in paths] == [passes] * 40
    assert [opened[path] for path in paths] == [1 + passes] * 40
