"""Importing images: every source gives the pixels that went in, every mistake is named."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import random
import re
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from PIL import Image

from sims_core.catalog import run_stage
from sims_core.common.errors import BadInput, DamagedArtifact
from sims_core.data.config import ImportedImages
from sims_core.data.digits import load_digits_uint8
from sims_core.data.grid import encode_png
from sims_core.data.image_set import read_index, write_shard
from sims_core.data.importing import imported_set, plan_import
from sims_core.data.mixing import read_first_labelled
from sims_core.data.names import DATASETS
from sims_core.data.pictures import BrokenImage, decode, in_order
from sims_core.data.stages import IMPORT
from sims_core.engine.execution import DataFiles, Execution
from sims_core.nets.config import UNetConfig
from sims_core.store.store import Store
from sims_core.studies.experiment import Experiment
from sims_core.studies.loop import Arm, plan_loop
from sims_core.studies.resolve import resolve_data

LABELS = [0, 2, 1, 1, 0, 2, 2]
NAMES = [f"{'abc'[label]}/{number}.png" for number, label in enumerate(LABELS)]


def bring(store, source, labels=None, label_file=None, threads=1, **options):
    """Imports and returns (artifact, images, labels, details)."""
    files = DataFiles(imported=source, labels=label_file)
    options = {"split": None, "size": None, "channels": None, "skip_broken": False} | options
    config = plan_import(files, labels=labels, **options).config
    ref = run_stage(store, IMPORT.request(config), Execution(threads=threads, files=files))
    images, got = read_first_labelled(store.open_artifact(ref), None)
    return ref, images, None if got is None else got.tolist(), store.manifest(ref).details


def put_folder(root, images, names=NAMES):
    for name, image in zip(names, images, strict=True):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encode_png(image))
    return root


def put_zip(path, images, names=NAMES):
    with zipfile.ZipFile(path, "w") as archive:
        for name, image in zip(names, images, strict=True):
            archive.writestr(name, encode_png(image))
    return path


def put_tar(path, members):
    with tarfile.open(path, "w") as tar:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


def put_arrow(folder, images, labels, names=None):
    """A folder as Hugging Face's save_to_disk writes it, in two files."""
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    for number, part in enumerate((slice(0, 3), slice(3, None))):
        files.append({"filename": f"data-{number:05d}-of-00002.arrow"})
        image = [{"bytes": encode_png(i), "path": None} for i in images[part]]
        table = pa.table({"image": image, "label": pa.array(labels[part], pa.int64())})
        path = str(folder / files[-1]["filename"])
        with pa.OSFile(path, "wb") as file, pa.ipc.new_stream(file, table.schema) as stream:
            stream.write_table(table)
    features = {"image": {"_type": "Image"}, "label": {"_type": "ClassLabel", "names": names}}
    (folder / "state.json").write_text(json.dumps({"_data_files": files, "_split": "train"}))
    (folder / "dataset_info.json").write_text(json.dumps({"features": features}))
    return folder


def by_class(images, labels):
    """In the order of a folder: sorted by the images' names."""
    order = np.argsort(NAMES)
    return images[order], [labels[i] for i in order]


@pytest.fixture
def rgb(random_images):
    return random_images(7, channels=3)


@pytest.mark.parametrize("kind", ["folder", "zip"])
def test_sub_folders_are_classes(kind, rgb, store, tmp_path):
    source = tmp_path / "source"
    (put_folder if kind == "folder" else put_zip)(source, rgb)
    _, images, labels, details = bring(store, source)
    expected, expected_labels = by_class(rgb, LABELS)
    assert np.array_equal(images, expected)
    assert labels == expected_labels
    assert details["classes"] == ["a", "b", "c"]
    assert details["class_histogram"] == {"0": 2, "1": 2, "2": 3}
    assert (details["count"], details["skipped"]) == (7, 0)
    np.testing.assert_allclose(details["mean"], (expected / 127.5 - 1).mean((0, 2, 3)), atol=1e-6)
    np.testing.assert_allclose(details["std"], (expected / 127.5 - 1).std((0, 2, 3)), atol=1e-6)


def test_what_is_no_image_is_left_alone(rgb, store, tmp_path):
    put_folder(tmp_path / "s", rgb, [f"{i}.png" for i in range(7)])
    (tmp_path / "s" / ".hidden.png").write_bytes(b"thumbnail")
    (tmp_path / "s" / "__MACOSX").mkdir()
    (tmp_path / "s" / "__MACOSX" / "x.png").write_bytes(b"fork")
    (tmp_path / "s" / "README.md").write_text("hello")
    _, images, labels, _ = bring(store, tmp_path / "s")
    assert np.array_equal(images, rgb)
    assert labels is None


@pytest.mark.parametrize("column", ["bytes", "struct"])
def test_parquet(column, rgb, store, tmp_path):
    pngs = [encode_png(image) for image in rgb]
    image = pngs if column == "bytes" else [{"bytes": png, "path": "x"} for png in pngs]
    pq.write_table(pa.table({"image": image, "label": LABELS, "x": LABELS}), tmp_path / "a.parquet")
    _, images, labels, _ = bring(store, tmp_path / "a.parquet")
    assert np.array_equal(images, rgb)
    assert labels == LABELS


def test_a_folder_of_parquet_files_has_splits(rgb, store, tmp_path):
    for name, part in (("train-0", slice(0, 3)), ("train-1", slice(3, 5)), ("test-0", slice(5, 7))):
        pngs = [encode_png(image) for image in rgb[part]]
        pq.write_table(pa.table({"img": pngs}), tmp_path / f"{name}.parquet")
    assert np.array_equal(bring(store, tmp_path)[1], rgb[:5]), "train is the first split"
    assert np.array_equal(bring(store, tmp_path, split="test")[1], rgb[5:])
    with pytest.raises(BadInput, match=r"`split` val: .* has train, test"):
        bring(store, tmp_path, split="val")


@pytest.mark.parametrize("splits", [True, False])
def test_hugging_face_folder(splits, rgb, store, tmp_path):
    put_arrow(tmp_path / "train" if splits else tmp_path, rgb, LABELS, names=["x", "y", "z"])
    if splits:
        (tmp_path / "dataset_dict.json").write_text(json.dumps({"splits": ["train"]}))
    _, images, labels, details = bring(store, tmp_path)
    assert np.array_equal(images, rgb)
    assert labels == LABELS
    assert details["classes"] == ["x", "y", "z"]


def test_hugging_face_state_cannot_point_elsewhere(rgb, store, tmp_path):
    put_arrow(tmp_path / "a", rgb, LABELS)
    state = {"_data_files": [{"filename": "../a/data-00000-of-00002.arrow"}]}
    (tmp_path / "a" / "state.json").write_text(json.dumps(state))
    with pytest.raises(BadInput, match="names no data files of its folder"):
        bring(store, tmp_path / "a")


@pytest.mark.parametrize("tars", [1, 2])
def test_webdataset(tars, rgb, store, tmp_path):
    parts = [slice(0, 7)] if tars == 1 else [slice(0, 4), slice(4, 7)]
    for number, part in enumerate(parts):
        write_shard(tmp_path / f"{number}.tar", rgb[part], 0, labels=LABELS[part])
    _, images, labels, _ = bring(store, tmp_path if tars == 2 else tmp_path / "0.tar")
    assert np.array_equal(images, rgb)
    assert labels == LABELS


def test_our_own_shards_come_back_byte_for_byte(rgb, store, tmp_path):
    write_shard(tmp_path / "0.tar", rgb, 0, labels=LABELS)
    ref, *_ = bring(store, tmp_path / "0.tar")
    shard = store.path(ref) / "images-00000.tar"
    assert shard.read_bytes() == (tmp_path / "0.tar").read_bytes()


def test_more_images_than_a_shard_holds(random_images, store, tmp_path):
    images = random_images(1030, size=4)
    np.savez(tmp_path / "a.npz", x_train=images[:, 0], y_train=np.arange(1030) % 3)
    ref, got, labels, _ = bring(store, tmp_path / "a.npz", threads=2)
    assert np.array_equal(got, images)
    assert labels == (np.arange(1030) % 3).tolist()
    assert [s.count for s in read_index(store.path(ref)).shards] == [1024, 6]
    one, *_ = bring(Store.open(tmp_path / "other"), tmp_path / "a.npz", threads=1)
    assert one == ref
    assert (tmp_path / "other" / ref.location / "manifest.json").exists()


def test_the_same_import_twice_is_one_artifact_wherever_the_source_lies(rgb, store, tmp_path):
    one, *_ = bring(store, put_folder(tmp_path / "one", rgb))
    moved, *_ = bring(store, put_folder(tmp_path / "two", rgb))
    assert one == moved
    others = [
        bring(store, tmp_path / "one", labels="none")[0],
        bring(store, tmp_path / "one", size=4)[0],
        bring(store, tmp_path / "one", channels=1)[0],
        bring(store, put_folder(tmp_path / "three", rgb, [f"x{n}" for n in NAMES]))[0],
    ]
    assert len({one, *others}) == 5


@hypothesis_settings(max_examples=20)
@given(
    width=st.integers(4, 40), height=st.integers(4, 40), size=st.integers(4, 24), seed=st.integers()
)
def test_crop_and_resize_is_the_central_square_by_lanczos(width, height, size, seed):
    pixels = np.random.default_rng(abs(seed)).integers(0, 256, (3, height, width), dtype=np.uint8)
    side = min(width, height)
    top, left = (height - side) // 2, (width - side) // 2
    square = pixels[:, top : top + side, left : left + side]
    expected = Image.fromarray(np.moveaxis(square, 0, -1))
    if side != size:
        expected = expected.resize((size, size), Image.Resampling.LANCZOS)
    got = decode(encode_png(pixels), size=size)
    assert np.array_equal(got, np.moveaxis(np.asarray(expected), -1, 0))


def test_resizing_is_antialiased():
    """Fine stripes become grey; taking every n-th pixel would keep them black and white."""
    stripes = np.zeros((1, 64, 64), dtype=np.uint8)
    stripes[:, :, ::2] = 255
    small = decode(encode_png(stripes), size=8)
    assert abs(small.astype(int) - 127).max() < 30


def encoded(image, **options):
    buffer = io.BytesIO()
    image.save(buffer, **options)
    return buffer.getvalue()


def test_forms_of_an_image():
    grey = Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8))
    red = Image.new("RGB", (8, 8), (255, 0, 0))
    assert decode(encoded(grey, format="png")).shape == (1, 8, 8)
    assert decode(encoded(red, format="png")).shape == (3, 8, 8)
    assert decode(encoded(red.convert("P"), format="gif")).tolist() == [
        [[v] * 8] * 8 for v in (255, 0, 0)
    ]
    assert decode(encoded(red.convert("RGBA"), format="png")).shape == (3, 8, 8), "opaque"
    assert decode(encoded(grey.convert("1"), format="png")).shape == (1, 8, 8)
    assert decode(encoded(grey, format="png"), channels=3).shape == (3, 8, 8)
    assert decode(encoded(red, format="png"), channels=1).shape == (1, 8, 8)
    assert decode(encoded(red.convert("CMYK"), format="jpeg"), channels=3).shape == (3, 8, 8)
    upright = Image.Exif()
    upright[0x0112] = 6  # taken with the camera on its side
    turned = decode(encoded(red.resize((8, 4)), format="jpeg", exif=upright))
    assert turned.shape == (3, 8, 4)


def test_forms_that_would_lose_something_are_refused(monkeypatch):
    glass = Image.new("RGBA", (8, 8), (255, 0, 0, 100))
    deep = Image.fromarray(np.zeros((8, 8), dtype=np.uint16))
    with pytest.raises(BrokenImage, match="transparent"):
        decode(encoded(glass, format="png"))
    with pytest.raises(BrokenImage, match="not grey or RGB of 8 bits"):
        decode(encoded(deep, format="png"))
    with pytest.raises(BrokenImage, match="CMYK"):
        decode(encoded(Image.new("CMYK", (8, 8)), format="jpeg"))
    with pytest.raises(BrokenImage, match="no image of a known format"):
        decode(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 50)
    for side in (8, 20):  # Pillow only warns up to twice its limit
        with pytest.raises(BrokenImage, match="decompression bomb"):
            decode(encoded(Image.new("L", (side, side)), format="png"))


@given(content=st.binary(max_size=200), cut=st.integers(0, 120))
def test_damaged_bytes_are_one_kind_of_error(content, cut):
    png = encode_png(np.random.default_rng(0).integers(0, 256, (3, 8, 8), dtype=np.uint8))
    for damaged in (content, png[:cut], png[:cut] + content):
        with contextlib.suppress(BrokenImage):  # some cuts only lose the file's end mark
            assert decode(damaged).dtype == np.uint8


def break_one(folder):
    path = folder / NAMES[3]
    path.write_bytes(path.read_bytes()[:-40])


def test_a_broken_image_stops_the_import_and_leaves_nothing(rgb, store, tmp_path):
    break_one(put_folder(tmp_path / "s", rgb))
    with pytest.raises(BadInput, match=r"^b/3\.png: .*; mend or remove it, or pass `skip_broken`"):
        bring(store, tmp_path / "s")
    assert store.artifacts() == []


def test_skipped_images_are_listed(rgb, store, tmp_path):
    break_one(put_folder(tmp_path / "s", rgb))
    (tmp_path / "s" / "c" / "zz.jpg").write_bytes(b"nothing")
    ref, images, labels, details = bring(store, tmp_path / "s", skip_broken=True)
    keep = [i for i in range(7) if i != 3]
    order = sorted(keep, key=lambda i: NAMES[i])
    assert np.array_equal(images, rgb[order])
    assert labels == [LABELS[i] for i in order]
    assert details["skipped"] == 2
    listed = json.loads((store.path(ref) / "skipped.json").read_text())
    assert [row["name"] for row in listed] == ["b/3.png", "c/zz.jpg"]
    for name in NAMES:
        (tmp_path / "s" / name).write_bytes(b"")
    with pytest.raises(BadInput, match="no image of it could be read"):
        bring(store, tmp_path / "s", skip_broken=True)


def test_broken_rows_and_members_are_named(rgb, store, tmp_path):
    pngs = [encode_png(image) for image in rgb]
    pngs[4] = pngs[4][:50]
    pq.write_table(pa.table({"image": pngs}), tmp_path / "a.parquet")
    with pytest.raises(BadInput, match=r"a\.parquet: row 4: "):
        bring(store, tmp_path / "a.parquet")
    pq.write_table(pa.table({"image": [None, *pngs[:2]]}), tmp_path / "b.parquet")
    with pytest.raises(BadInput, match=r"b\.parquet: row 0: has no bytes"):
        bring(store, tmp_path / "b.parquet")
    put_tar(tmp_path / "c.tar", [("x/0.png", pngs[0]), ("x/1.png", pngs[4])])
    with pytest.raises(BadInput, match=r"c\.tar: x/1\.png: "):
        bring(store, tmp_path / "c.tar")
    archive = put_zip(tmp_path / "d.zip", rgb)
    content = bytearray(archive.read_bytes())
    content[content.index(b"IDAT") + 20] ^= 255
    archive.write_bytes(content)
    with pytest.raises(BadInput, match=r"^a/0\.png: .*CRC"):
        bring(store, archive)


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_two_images_of_one_name_in_a_zip_are_refused(store, rgb, tmp_path):
    archive = put_zip(tmp_path / "d.zip", rgb, names=["a.png"] * len(NAMES))
    with pytest.raises(BadInput, match=r"d\.zip holds two images of the name a\.png"):
        bring(store, archive)


def test_containers_that_are_cut_or_foreign(rgb, store, tmp_path):
    good = put_zip(tmp_path / "a.zip", rgb).read_bytes()
    pq.write_table(pa.table({"image": [encode_png(i) for i in rgb]}), tmp_path / "a.parquet")
    write_shard(tmp_path / "a.tar", rgb, 0)
    cases = {
        "b.parquet": (tmp_path / "a.parquet").read_bytes()[:-30],
        "b.zip": good[:-30],
        "b.tar": (tmp_path / "a.tar").read_bytes()[:1800],
        "b.txt": b"words",
        "b.npz": b"words",
    }
    for name, content in cases.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(BadInput, match=re.escape(name)) as error:
            bring(store, tmp_path / name)
        assert len(str(error.value).splitlines()) == 1
    with pytest.raises(BadInput, match="no such file"):
        bring(store, tmp_path / "absent")
    (tmp_path / "empty").mkdir()
    with pytest.raises(BadInput, match="has no images"):
        bring(store, tmp_path / "empty")
    pq.write_table(pa.table({"image": ["text"]}), tmp_path / "c.parquet")
    with pytest.raises(BadInput, match=r"one column of encoded images.*columns: image \(string\)"):
        bring(store, tmp_path / "c.parquet")
    assert store.artifacts() == []


def test_members_outside_the_archive_are_never_written(rgb, store, tmp_path):
    inside = tmp_path / "inside"
    inside.mkdir()
    names = ["../evil0.png", "/tmp/evil1.png", *[f"{n}.png" for n in range(5)]]  # noqa: S108
    put_zip(inside / "a.zip", rgb, names)
    put_tar(inside / "a.tar", [(n, encode_png(i)) for n, i in zip(names, rgb, strict=True)])
    assert len(bring(store, inside / "a.zip", labels="none")[1]) == 7
    assert len(bring(store, inside / "a.tar", labels="none")[1]) == 7
    assert {path.name for path in tmp_path.rglob("*.png")} == {"grid.png"}
    assert not Path("/tmp/evil1.png").exists()  # noqa: S108


def test_a_zip_bomb_is_refused(rgb, store, tmp_path, monkeypatch):
    monkeypatch.setattr("sims_core.data.trees.MAX_MEMBER", 1000)
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("0.png", bytes(100_000))
    with pytest.raises(BadInput, match=r"^0\.png: unpacks to more than"):
        bring(store, tmp_path / "a.zip")


def test_images_unlike_the_first_are_refused_with_what_mends_it(
    rgb, random_images, store, tmp_path
):
    grey, large = random_images(1)[0], random_images(1, channels=3, size=9)[0]
    put_folder(tmp_path / "s", [*rgb, grey], [*NAMES, "c/z.png"])
    with pytest.raises(BadInput, match=r"^c/z\.png is grey, a/0\.png is RGB: pass `channels` 3"):
        bring(store, tmp_path / "s")
    assert bring(store, tmp_path / "s", channels=3)[1].shape == (8, 3, 8, 8)
    put_folder(tmp_path / "s", [large], ["c/z.png"])
    with pytest.raises(BadInput, match=r"^c/z\.png is 9 x 9, a/0\.png is 8 x 8: pass `size` N"):
        bring(store, tmp_path / "s")
    assert bring(store, tmp_path / "s", size=8)[1].shape == (8, 3, 8, 8)


def test_folders_that_are_ambiguous_are_refused(rgb, store, tmp_path):
    put_folder(tmp_path / "mixed", rgb[:2], ["a/0.png", "1.png"])
    with pytest.raises(BadInput, match=r"1\.png lies in no sub-folder.*`labels` none"):
        bring(store, tmp_path / "mixed")
    assert bring(store, tmp_path / "mixed", labels="none")[2] is None
    put_folder(tmp_path / "splits", rgb[:3], ["train/a/0.png", "train/b/0.png", "val/a/0.png"])
    with pytest.raises(BadInput, match="has the splits train, val: pick one with `split`"):
        bring(store, tmp_path / "splits")
    assert bring(store, tmp_path / "splits", split="train")[2] == [0, 1]


def write_labels(path, pairs, form):
    if form == "csv":
        with path.open("w", newline="") as file:
            csv.writer(file).writerows([("name", "label"), *pairs])
    elif form == "object":
        path.write_text(json.dumps(dict(pairs)))
    else:
        path.write_text(json.dumps({"labels": [list(pair) for pair in pairs]}))
    return path


@pytest.mark.parametrize("form", ["csv", "object", "stylegan"])
@pytest.mark.parametrize("kind", ["folder", "zip"])
def test_labels_from_a_file(form, kind, rgb, store, tmp_path):
    source = (put_folder if kind == "folder" else put_zip)(tmp_path / "s", rgb)
    pairs = [(name, 10 + number) for number, name in enumerate(NAMES)]
    random.Random(0).shuffle(pairs)  # noqa: S311
    name = "labels.csv" if form == "csv" else "dataset.json"
    file = write_labels(tmp_path / name, pairs, form)
    _, images, labels, _ = bring(store, source, label_file=file)
    assert np.array_equal(images, by_class(rgb, LABELS)[0])
    assert labels == [10 + int(i) for i in np.argsort(NAMES)]


PAIRS = list(zip(NAMES, LABELS, strict=True))


@pytest.mark.parametrize(
    ("pairs", "message"),
    [
        (PAIRS[1:], "1 of 7 images have no class: a/0.png"),
        ([*PAIRS, ("x.png", 1)], "'x.png' is no image of the source, such as 'a/0.png'"),
        ([*PAIRS, ("a/0.png", 5)], "a/0.png has two classes, 0 and 5"),
        ([*PAIRS[1:], ("a/0.png", "cat")], "the class of a/0.png must be an integer.*'cat'"),
        ([*PAIRS[1:], ("a/0.png", -1)], "must be an integer from 0"),
        ([*PAIRS[1:], ("a/0.png", 1.5)], "must be an integer from 0"),
        ([*PAIRS[1:], ("a/0.png", 10**7)], "is not in 0 .. 999999"),
    ],
)
@pytest.mark.parametrize("form", ["csv", "object", "stylegan"])
def test_a_wrong_class_file_says_what_is_wrong(pairs, message, form, rgb, store, tmp_path):
    if form == "object" and "two classes" in message:
        return  # a JSON object has each name once
    source = put_folder(tmp_path / "s", rgb)
    name = "labels.csv" if form == "csv" else "dataset.json"
    with pytest.raises(BadInput, match=message):
        bring(store, source, label_file=write_labels(tmp_path / name, pairs, form))
    assert store.artifacts() == []


@pytest.mark.parametrize("content", [b"[1, 2, 3]", b"{", b"\xff\xfe", b'"x"', b"[[1]]"])
def test_an_unreadable_class_file(content, rgb, store, tmp_path):
    source = put_folder(tmp_path / "s", rgb)
    (tmp_path / "l.json").write_bytes(content)
    with pytest.raises(BadInput, match=r"l\.json: "):
        bring(store, source, label_file=tmp_path / "l.json")
    (tmp_path / "l.csv").write_text("only one column\n")
    with pytest.raises(BadInput, match=r"l\.csv: no labels in it"):
        bring(store, source, label_file=tmp_path / "l.csv")


def test_classes_inside_a_source(rgb, store, tmp_path):
    put_tar(tmp_path / "a.tar", [("0.png", encode_png(rgb[0])), ("0.cls", b"cat")])
    with pytest.raises(BadInput, match="class b'cat' is not an integer"):
        bring(store, tmp_path / "a.tar")
    members = [("0.png", encode_png(rgb[0])), ("0.cls", b"1"), ("1.png", encode_png(rgb[1]))]
    put_tar(tmp_path / "b.tar", members)
    with pytest.raises(BadInput, match=r"b\.tar: 1 has no class while others have one"):
        bring(store, tmp_path / "b.tar")
    with pytest.raises(BadInput, match="have no file names"):
        bring(store, tmp_path / "b.tar", label_file=tmp_path / "b.tar")
    table = pa.table({"image": [encode_png(rgb[0])], "label": ["cat"]})
    pq.write_table(table, tmp_path / "c.parquet")
    with pytest.raises(BadInput, match="column label must hold integers"):
        bring(store, tmp_path / "c.parquet")


def test_order_is_kept_by_many_threads():
    assert list(in_order(lambda x: x * x, range(100), workers=4)) == [x * x for x in range(100)]


@pytest.fixture
def imported_digits(store, tmp_path):
    """200 digits as PNG files, imported under the name mine."""
    pixels, _ = load_digits_uint8(Experiment().data)
    names = [f"{i % 3}/{i:04d}.png" for i in range(200)]
    ref, *_ = bring(store, put_folder(tmp_path / "digits", pixels[:200], names))
    config = store.manifest(ref).request.config
    dataset = imported_set(IMPORT.config.model_validate(config), store.open_artifact(ref))
    DATASETS.give(store, "mine", dataset)
    return ref


def with_data(experiment, name="mine", **net):
    changed = experiment.model_copy(update={"data": ImportedImages(name=name)})
    if not net:
        return changed
    model = experiment.model.model_copy(update={"net": UNetConfig(**net)})
    return changed.model_copy(update={"model": model})


def test_a_plan_uses_the_imported_images(imported_digits, store, tiny_experiment):
    experiment = resolve_data(with_data(tiny_experiment), store)
    arm = Arm(method=experiment.sims, loop="fully_synthetic", pollution_size=8)
    plan = plan_loop(experiment, (arm,), 1, 0)
    assert plan.setup[0].ref == imported_digits
    assert plan.arms[0].stages[0].request.inputs["kept"] == imported_digits
    contents = experiment.data.contents
    assert (contents.count, contents.channels, contents.num_classes) == (200, 1, 3)


def test_a_name_that_was_not_imported_says_how(imported_digits, store, tiny_experiment):
    with pytest.raises(BadInput, match=r"imported: mine\); import it by `sims data import SOURCE"):
        resolve_data(with_data(tiny_experiment, name="yours"), store)
    (store.root / "datasets" / "mine.json").write_text("{")
    with pytest.raises(BadInput, match="unreadable: import mine again"):
        DATASETS.find(store, "mine")


def test_images_that_do_not_fit_the_network_are_found_when_the_plan_is_made(
    imported_digits, store, tiny_experiment
):
    with pytest.raises(
        BadInput, match=r"images of 3 x 16 x 16 .* those of mine have 1 x 8 x 8: set model.net"
    ):
        resolve_data(with_data(tiny_experiment, image_size=16, channels=3), store)


def test_a_classifier_needs_labels(store, tmp_path, tiny_experiment, random_images):
    names = [f"{i}.png" for i in range(90)]
    ref, *_ = bring(store, put_folder(tmp_path / "s", random_images(90), names))
    config = IMPORT.config.model_validate(store.manifest(ref).request.config)
    DATASETS.give(store, "plain", imported_set(config, store.open_artifact(ref)))
    experiment = resolve_data(with_data(tiny_experiment, name="plain"), store)
    arm = Arm(method=experiment.sims, loop="fully_synthetic", pollution_size=8)
    with pytest.raises(BadInput, match="need class labels, and the images of plain have none"):
        plan_loop(experiment, (arm,), 1, 0)


def test_an_import_that_is_damaged_says_to_import_again(
    imported_digits, store, tmp_path, random_images
):
    request = store.manifest(imported_digits).request
    shard = store.path(imported_digits) / "images-00000.tar"
    shard.write_bytes(shard.read_bytes()[:-1])
    with pytest.raises(BadInput, match="run the `sims data import` that made them again"):
        run_stage(store, request, Execution(threads=1))
    with pytest.raises(DamagedArtifact):
        store.open_artifact(imported_digits)
    other = put_folder(tmp_path / "other", random_images(7))
    with pytest.raises(BadInput, match="is not what it was"):
        run_stage(store, request, Execution(threads=1, files=DataFiles(imported=other)))
