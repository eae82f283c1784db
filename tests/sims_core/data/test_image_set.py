"""Shards: equal content is equal bytes, nothing is lost, damage is named."""

import io
import tarfile
import tempfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import webdataset as wds
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from PIL import Image

from sims_core.common.errors import DamagedArtifact
from sims_core.data.grid import encode_png, image_grid
from sims_core.data.image_set import (
    Shard,
    index_shards,
    read_images,
    read_index,
    shard_name,
    write_shard,
)


def members(path):
    with tarfile.open(path) as tar:
        return tar.getmembers()


@hypothesis_settings(max_examples=25)
@given(
    counts=st.lists(st.integers(1, 6), min_size=1, max_size=3),
    channels=st.sampled_from([1, 3]),
    height=st.integers(1, 9),
    width=st.integers(1, 9),
    labelled=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)
def test_round_trip(counts, channels, height, width, labelled, seed):
    random = np.random.default_rng(seed)
    shape = (sum(counts), channels, height, width)
    images = random.integers(0, 256, shape, dtype=np.uint8)
    labels = random.integers(0, 12, sum(counts)).tolist() if labelled else None
    with tempfile.TemporaryDirectory() as folder:
        paths, start = [], 0
        for number, count in enumerate(counts):
            part = slice(start, start + count)
            paths.append(Path(folder) / shard_name(number))
            write_shard(paths[-1], images[part], start, labels[part] if labels else None)
            start += count
        got, got_labels = read_images(paths)
    assert got.dtype == np.uint8
    assert np.array_equal(got, images)
    assert (got_labels.tolist() if labelled else got_labels) == labels


def test_equal_content_is_equal_bytes(tmp_path, random_images, monkeypatch):
    write_shard(tmp_path / "a.tar", random_images(3), 0, labels=[1, 2, 3])
    monkeypatch.setattr("time.time", lambda: 2e9)
    write_shard(tmp_path / "b.tar", random_images(3), 0, labels=[1, 2, 3])
    write_shard(tmp_path / "c.tar", random_images(3), 0, labels=[1, 2, 4])
    assert (tmp_path / "a.tar").read_bytes() == (tmp_path / "b.tar").read_bytes()
    assert (tmp_path / "a.tar").read_bytes() != (tmp_path / "c.tar").read_bytes()
    assert {member.mtime for member in members(tmp_path / "a.tar")} == {0}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.tar", "b.tar", "c.tar"]


def test_keys_carry_index_and_seed(tmp_path, random_images):
    path = tmp_path / "a.tar"
    write_shard(path, random_images(2), 1023, seeds=[0xDEADBEEF, 7])
    assert [m.name for m in members(path)] == [
        "00001023_deadbeef.png",
        "00001024_00000007.png",
    ]
    write_shard(path, random_images(1), 5, labels=[9])
    assert sorted(m.name for m in members(path)) == ["00000005.cls", "00000005.png"]


def test_plain_webdataset_reads_a_shard(tmp_path, random_images):
    images = random_images(3, channels=3)
    write_shard(tmp_path / "a.tar", images, 0, labels=[4, 5, 6])
    with (tmp_path / "a.tar").open("rb") as stream:
        files = wds.tariterators.tar_file_expander([{"url": "a", "stream": stream}])
        samples = list(wds.tariterators.group_by_keys(files))
    assert [int(sample["cls"]) for sample in samples] == [4, 5, 6]
    pixels = [np.asarray(Image.open(io.BytesIO(sample["png"]))) for sample in samples]
    assert np.array_equal(np.stack(pixels), np.moveaxis(images, 1, -1))


@pytest.mark.parametrize("name", ["odd #1", "what?", "100%25", "a{0..3}b", "a::b", "pipe:ls", "ä"])
def test_any_folder_name_will_do(tmp_path, random_images, name):
    folder = tmp_path / name
    folder.mkdir()
    write_shard(folder / "a.tar", random_images(2), 0)
    assert np.array_equal(read_images([folder / "a.tar"])[0], random_images(2))


def test_files_are_closed_after_reading(tmp_path, random_images):
    write_shard(tmp_path / "a.tar", random_images(2), 0)
    read_images([tmp_path / "a.tar"])
    open_files = {link.resolve() for link in Path("/proc/self/fd").iterdir()}
    assert tmp_path / "a.tar" not in open_files


def test_labels_of_some_images_are_no_labels(tmp_path, random_images):
    write_shard(tmp_path / "a.tar", random_images(2), 0, labels=[1, 2])
    write_shard(tmp_path / "b.tar", random_images(2), 2)
    assert read_images([tmp_path / "a.tar", tmp_path / "b.tar"])[1] is None


# Cut in the middle of a member's data, of a header, and to less than one header. (A cut at the end
# of a member is a valid shorter tar: the store's sizes and SHA-256 notice that one.)
@pytest.mark.parametrize("size", [1024 + 512 + 40, 512 + 30, 100, 0])
def test_truncated_shard_is_damage(tmp_path, random_images, size):
    path = tmp_path / "a.tar"
    write_shard(path, random_images(4), 0)
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(DamagedArtifact, match=r"a\.tar|no images"):
        read_images([path])


def test_missing_shard_is_damage(tmp_path):
    with pytest.raises(DamagedArtifact, match=r"a\.tar"):
        read_images([tmp_path / "a.tar"])


def png(**changes):
    return encode_png(np.full((1, 8, 8), 7, dtype=np.uint8))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"not a picture",
        png()[:20],
        png()[:45],
        png().replace(b"IDAT", b"IDAX"),
        png()[:41] + b"\xff\xff\xff\xff" + png()[45:],
    ],
    ids=["empty", "text", "header", "half", "chunk", "data"],
)
def test_undecodable_png_is_damage_and_named(tmp_path, content):
    path = tmp_path / "a.tar"
    with path.open("wb") as stream, wds.TarWriter(stream, mtime=0) as tar:
        tar.write({"__key__": "00000000", "png": png()})
        tar.write({"__key__": "00000001", "png": content})
    with pytest.raises(DamagedArtifact, match=r"a\.tar.*00000001"):
        read_images([path])


def test_sample_without_image_is_damage(tmp_path):
    path = tmp_path / "a.tar"
    with path.open("wb") as stream, wds.TarWriter(stream, mtime=0) as tar:
        tar.write({"__key__": "00000000", "cls": b"1"})
    with pytest.raises(DamagedArtifact, match="00000000"):
        read_images([path])


def test_label_that_is_no_number_is_damage(tmp_path):
    path = tmp_path / "a.tar"
    with path.open("wb") as stream, wds.TarWriter(stream, mtime=0) as tar:
        tar.write({"__key__": "00000000", "png": png(), "cls": b"cat"})
    with pytest.raises(DamagedArtifact, match="00000000"):
        read_images([path])


def test_images_of_different_shapes_are_damage(tmp_path, random_images):
    write_shard(tmp_path / "a.tar", random_images(2), 0)
    write_shard(tmp_path / "b.tar", random_images(2, size=4), 2)
    with pytest.raises(DamagedArtifact, match="different shapes"):
        read_images([tmp_path / "a.tar", tmp_path / "b.tar"])


@given(
    count=st.integers(1, 40),
    channels=st.sampled_from([1, 3]),
    columns=st.integers(1, 20),
    gap=st.integers(0, 3),
)
def test_grid_holds_every_image_in_reading_order(count, channels, columns, gap):
    random = np.random.default_rng(count)
    images = random.integers(0, 255, (count, channels, 3, 5), dtype=np.uint8)
    grid = np.asarray(Image.open(io.BytesIO(image_grid(images, columns, gap))))
    across = min(columns, count)
    down = -(-count // across)
    assert grid.shape[:2] == (down * 3 + (down - 1) * gap, across * 5 + (across - 1) * gap)
    grid = grid.reshape(*grid.shape[:2], channels)
    covered = np.zeros(grid.shape[:2], dtype=bool)
    for index, image in enumerate(images):
        top, left = index // across * (3 + gap), index % across * (5 + gap)
        tile = np.s_[top : top + 3, left : left + 5]
        assert np.array_equal(np.moveaxis(grid[tile], -1, 0), image)
        covered[tile] = True
    assert (grid[~covered] == 255).all()


def test_index_counts_images_and_classes(tmp_path, random_images):
    images = random_images(70, channels=3)
    shards = [Shard(file="x.tar", count=50), Shard(file="y.tar", count=20)]
    written = index_shards(tmp_path, images.shape[1:], shards, Counter({0: 30, 11: 40}))
    index = read_index(tmp_path)
    assert index == written
    assert (index.count, index.channels, index.height, index.width) == (70, 3, 8, 8)
    assert index.class_histogram == {"0": 30, "11": 40}
