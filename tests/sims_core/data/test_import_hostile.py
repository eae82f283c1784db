"""Hostile sources: one line, no traceback, bounded memory, nothing that hangs."""

from __future__ import annotations

import gzip
import io
import json
import os
import pickle
import struct
import subprocess
import sys
import tarfile
import zipfile
import zlib

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from sims_core.common.errors import BadInput
from sims_core.common.hostile import parse_json
from sims_core.data.formats import read_cifar_python, read_idx, read_npz
from sims_core.data.sources import open_source


def refused(import_all, source, match, *labels, **options):
    with pytest.raises(BadInput, match=match) as error:
        import_all(source, *labels, **options)
    text = str(error.value)
    assert len(text.splitlines()) == 1
    assert text.isprintable(), text
    return text


NAMES = ["a\x1b[2Jb", "bell\x07", "two\nlines", "t\u202egnp", os.fsdecode(b"caf\xe9")]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", ["folder", "zip", "tar"])
def test_names_are_shown_escaped(name, kind, put, png, import_all, tmp_path):
    if kind == "zip" and "\udce9" in name:
        name = "caf\x81"  # zip knows no such bytes
    source = put(kind, tmp_path / "s", {f"{name}/0.png": png(0)[:40], "x/1.png": png(1)})
    refused(import_all, source, r"0\.png: .*; mend or remove it")
    got = import_all(source, skip_broken=True)
    assert all(text.isprintable() for text in got.details["classes"][:0])
    strange = put(kind, tmp_path / "t", {"a.png": png(0), f"{name}.avif": b"x"})
    (row,) = import_all(strange).plan.left_out.row().values()
    assert row["first"][0].isprintable()
    refused(import_all, tmp_path / name, "no such file")


def test_names_that_are_not_utf8_are_imported(put, png, import_all, tmp_path):
    name = os.fsdecode(b"caf\xe9")
    for kind in ("folder", "tar"):
        files = {f"{name}/{name}.png": png(3), "a/0.png": png(1)}
        got = import_all(put(kind, tmp_path / kind, files))
        assert sorted(got.images[:, 0, 0, 0].tolist()) == [1, 3]
        assert got.details["classes"] == ["a", "caf\\udce9"]


def test_what_never_ends_is_not_read(put, png, import_all, tmp_path):
    for n, name in enumerate(("x.tar", "y.parquet", "train-images-idx3-ubyte", "state.json")):
        source = tmp_path / f"s{n}"
        source.mkdir()
        os.mkfifo(source / name)
        refused(import_all, source, "has no images.*no regular file")
    source = put("folder", tmp_path / "hf", {"dataset_info.json": b"{}"})
    os.mkfifo(source / "d.arrow")
    (source / "state.json").write_text('{"_data_files": [{"filename": "d.arrow"}]}')
    refused(import_all, source, r"d\.arrow: is no file")
    (source / "d.arrow").unlink()
    (source / "d.arrow").symlink_to("/dev/zero")
    refused(import_all, source, r"d\.arrow: is no file")
    pictures = put("folder", tmp_path / "p", {"a.png": png(0)})
    os.mkfifo(pictures / "dataset.json")
    refused(import_all, pictures, r"dataset\.json: is no file")
    os.mkfifo(tmp_path / "fifo")
    refused(import_all, tmp_path / "fifo", "no such file or folder")
    good = put("folder", tmp_path / "g", {"a.png": png(0)})
    refused(import_all, good, r"fifo: is no file", tmp_path / "fifo")


@pytest.mark.parametrize("name", ["x.parquet", "x.tar", "x.npz", "x.png", "state.json"])
def test_folders_that_are_named_like_files(name, put, png, import_all, tmp_path):
    source = put("folder", tmp_path / "s", {f"{name}/a.png": png(4)})
    assert import_all(source).images[0, 0, 0, 0] == 4
    (tmp_path / "e" / name).mkdir(parents=True)
    refused(import_all, tmp_path / "e", "has no images")


def test_a_folder_3000_deep(import_all, tmp_path):
    top = os.open(tmp_path, os.O_RDONLY)
    here = top
    for _ in range(3000):
        os.mkdir("d", dir_fd=here)
        deeper = os.open("d", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = deeper
    os.close(here)
    refused(import_all, tmp_path, "nested more than 64 deep")
    subprocess.run(["rm", "-rf", str(tmp_path / "d")], check=True)


DEEP = b"[" * 100_000
LONG = b"9" * 5000


@pytest.mark.parametrize(
    "content",
    [
        DEEP,
        b'{"labels": ' + DEEP + b"}",
        b'{"a.png": ' + LONG + b"}",
        b'{"a.png": "' + LONG + b'"}',
        b'{"a.png": true}',
        b'{"a.png": null}',
        b'{"a.png": [1]}',
        b'{"labels": {"a.png": {}}}',
        b'[[["a.png"], 1]]',
        b'[[{}, 1]]',
        b'[["a.png", 1, 2]]',
        b"null",
        b"1e999",
        b"\xff\xfe\x00",
        b"",
    ],
)  # fmt: skip
def test_label_files_of_any_form(content, put, png, import_all, tmp_path):
    source = put("folder", tmp_path / "s", {"a.png": png(0)})
    (tmp_path / "l.json").write_bytes(content)
    assert len(refused(import_all, source, r"l\.json: ", tmp_path / "l.json")) < 600
    (source / "dataset.json").write_bytes(content)
    if b"labels" in content or content.startswith((b"[[[[", b"\xff", b'{"a.png": 9')):
        refused(import_all, source, r"dataset\.json: ")
    elif content:  # no dataset.json in EDM's sense
        assert "a table (.json): if it holds labels, pass it to `labels`" in (
            import_all(source).left_out
        )


@pytest.mark.parametrize(
    "content",
    [b"a.png," + LONG, b"a.png", b"a.png,1,2\nb.png,1\n", b'"a.png,1', b"a.png,\x00", b"\xff,1"],
)
def test_label_tables_of_any_form(content, put, png, import_all, tmp_path):
    source = put("folder", tmp_path / "s", {"a.png": png(0)})
    (tmp_path / "l.csv").write_bytes(content)
    refused(import_all, source, r"l\.csv", tmp_path / "l.csv")
    if content == b"a.png,\x00":
        return  # a word
    (source / "metadata.csv").write_bytes(b"file_name,label\n" + content)
    refused(import_all, source, r"metadata\.csv")


def test_classes_of_samples_of_any_form(put, png, import_all, tmp_path):
    for n, cls in enumerate((LONG, b"", b"1.5", b"\xff", b"-1", "٣".encode())):
        source = put("tar", tmp_path / f"{n}.tar", {"0.png": png(0), "0.cls": cls})
        refused(import_all, source, "class .* is not an integer from 0")
    files = {"0.png": png(0), "0.json": b'{"label": ' + LONG + b"}"}
    refused(import_all, put("tar", tmp_path / "a.tar", files), r"0\.json: unreadable")
    files = {"0.png": png(0), "0.json": DEEP, "0.cls": b"1"}
    assert import_all(put("tar", tmp_path / "b.tar", files)).labels == [1]


def test_tars_of_any_form(put, png, import_all, tmp_path):
    with tarfile.open(tmp_path / "twice.tar", "w") as tar:
        for _ in range(2):
            info = tarfile.TarInfo("a.png")
            info.size = len(png(0))
            tar.addfile(info, io.BytesIO(png(0)))
    refused(import_all, tmp_path / "twice.tar", r"two members of the name a\.png")
    strange = {"a.__key__": b"x", "a.__url__": b"x", "a.png": png(5), "a.cls": b"1"}
    assert import_all(put("tar", tmp_path / "key.tar", strange)).labels == [1]
    whole = put("tar", tmp_path / "w.tar", {f"{n}.png": png(n) for n in range(9)}).read_bytes()
    damaged = bytearray(whole)
    damaged[1024 * 4 + 3] ^= 1
    (tmp_path / "d.tar").write_bytes(damaged)
    refused(import_all, tmp_path / "d.tar", "header is damaged")
    (tmp_path / "c.tar").write_bytes(whole[: 1024 * 4 + 300])
    refused(import_all, tmp_path / "c.tar", "damaged or cut")
    (tmp_path / "g.tar.gz").write_bytes(gzip.compress(whole)[:-30])
    refused(import_all, tmp_path / "g.tar.gz", r"g\.tar\.gz")


def test_zips_of_any_form(put, png, import_all, tmp_path):
    good = put("zip", tmp_path / "a.zip", {"a\u00e9.png": png(0)}).read_bytes()
    (tmp_path / "b.zip").write_bytes(good.replace("a\u00e9.png".encode(), b"a\xe9\xe9.png"))
    refused(import_all, tmp_path / "b.zip", r"b\.zip: unreadable")
    encrypted = bytearray(good)
    encrypted[encrypted.index(b"PK\x01\x02") + 8] |= 1
    (tmp_path / "c.zip").write_bytes(encrypted)
    refused(import_all, tmp_path / "c.zip", "encrypted")


def npy(shape, dtype="|u1", data=b""):
    head = f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, }}".encode()
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(head)) + head + data


@pytest.mark.parametrize(
    ("images", "labels"),
    [
        (npy("(1000000, 1000, 1000)"), npy("(1000000,)", "<i8")),
        (npy("(1, 2, 2)", "|u1", b"1234"), npy("(1000000000000,)", "<i8")),
        (npy("(1, 2, 2, 5)", "|u1", bytes(20)), npy("(1,)", "|u1", b"1")),
        (npy("(1, 0, 2)"), npy("(1,)", "|u1", b"1")),
        (npy("(-1, 2, 2)", "|u1", b"1234"), npy("(1,)", "|u1", b"1")),
        (npy("(1, 2, 2)", "|O", b"1234"), npy("(1,)", "|u1", b"1")),
        (npy("(1, 2, 2)", "|u1", b"1234"), npy("(1,)", "<u8", b"\xff" * 8)),
        (npy("(((((1", "|u1"), npy("(1,)")),
        (b"", b""),
    ],
)
def test_npz_headers_of_any_form(images, labels, import_all, tmp_path):
    path = tmp_path / "a.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x_train.npy", images)
        archive.writestr("y_train.npy", labels)
    refused(import_all, path, r"a\.npz")


def idx(shape, data=b""):
    return b"\0\0\x08" + bytes([len(shape)]) + struct.pack(f">{len(shape)}I", *shape) + data


@pytest.mark.parametrize(
    "images",
    [idx((2**32 - 1,) * 3), idx((2, 0, 4)), idx((1,) * 250, b"1"), idx(()), b"\0\0\x08\xff"],
)
def test_idx_headers_of_any_form(images, import_all, tmp_path):
    (tmp_path / "train-images-idx3-ubyte").write_bytes(images)
    (tmp_path / "train-labels-idx1-ubyte").write_bytes(idx((2,), b"12"))
    refused(import_all, tmp_path, "train-images-idx3-ubyte")
    (tmp_path / "a.gz").write_bytes(gzip.compress(images)[:12] + b"damaged" * 9)
    with pytest.raises(BadInput, match=r"a\.gz"):
        read_idx(tmp_path / "a.gz")


def tables(png):
    nested = pa.StructArray.from_arrays([pa.array([{"x": 1}])], names=["bytes"])
    words = pa.StructArray.from_arrays([pa.array(["x"])], names=["bytes"])
    yield pa.table({"image": nested})
    yield pa.table({"image": words})
    yield pa.table({"image": ["x"]})
    yield pa.table([pa.array([png(0)]), pa.array([png(0)])], names=["image", "image"])
    yield pa.table(
        [pa.array([png(0)]), pa.array([1]), pa.array([2])], names=["image", *["label"] * 2]
    )
    yield pa.table({"image": [png(0)], "label": [[1, 2]]})
    yield pa.table({"image": [png(0)], "label": [1.5]})
    yield pa.table({"image": [png(0)], "label": [-1]})
    yield pa.table({"image": [png(0)], "label": pa.array([2**64 - 1], pa.uint64())})
    yield pa.table({"image": pa.array([None], pa.binary())})
    yield pa.table({"image": pa.array([], pa.binary())})
    yield pa.table({})


def test_tables_of_any_form(png, import_all, tmp_path):
    for n, table in enumerate(tables(png)):
        path = tmp_path / f"{n}.parquet"
        pq.write_table(table, path)
        refused(import_all, path, rf"{n}\.parquet")
    (tmp_path / "d").mkdir()
    pq.write_table(pa.table({"image": [png(0)], "label": [1]}), tmp_path / "d" / "a.parquet")
    pq.write_table(pa.table({"image": [png(0)], "label": ["x"]}), tmp_path / "d" / "b.parquet")
    refused(import_all, tmp_path / "d", r"b\.parquet: column label must hold integers")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("state.json", b"[]"),
        ("state.json", b'{"_data_files": 3}'),
        ("state.json", b'{"_data_files": [3]}'),
        ("state.json", b'{"_data_files": [{"filename": ".."}]}'),
        ("state.json", b'{"_data_files": [{"filename": "absent.arrow"}]}'),
        ("state.json", DEEP),
        ("dataset_dict.json", b"[]"),
        ("dataset_dict.json", b'{"splits": 3}'),
        ("dataset_dict.json", b'{"splits": []}'),
        ("dataset_dict.json", b'{"splits": [".."]}'),
        ("dataset_dict.json", b'{"splits": ["absent"]}'),
        ("dataset_info.json", b"[]"),
        ("dataset_info.json", b'{"features": {"label": {"names": [["x"], {}]}}}'),
        ("dataset_info.json", b'{"features": {"label": {"names": 3}}}'),
        ("d.arrow", b""),
        ("d.arrow", b"\xff" * 100),
    ],
)
def test_hugging_face_files_of_any_form(name, content, png, import_all, tmp_path):
    source = tmp_path / "s"
    source.mkdir()
    table = pa.table({"image": [png(0)], "label": [0]})
    with pa.OSFile(str(source / "d.arrow"), "wb") as file:
        stream = pa.ipc.new_stream(file, table.schema)
        stream.write_table(table)
        stream.close()
    (source / "state.json").write_text('{"_data_files": [{"filename": "d.arrow"}]}')
    (source / "dataset_info.json").write_text("{}")
    assert import_all(source).labels == [0]
    (source / name).write_bytes(content)
    refused(import_all, source, None)


def test_a_pickle_with_a_far_entry_of_its_memo():
    content = b"\x80\x02]r" + struct.pack("<I", 2**28) + b"."
    with pytest.raises(BadInput, match="its memo has an entry 268435456"):
        read_cifar_python(content, "batch")
    assert pickle.loads(b"\x80\x02]r" + struct.pack("<I", 9) + b".") == []  # noqa: S301


READERS = {
    "labels.json": lambda path: parse_json(path.read_bytes(), path),
    "a.npz": lambda path: read_npz(path, "train"),
    "train-images-idx3-ubyte": read_idx,
    "batch": lambda path: read_cifar_python(path.read_bytes(), "batch"),
}


def whole_sources(folder, png):
    """One good file of each form."""
    table = pa.table({"image": [png(i) for i in range(3)], "label": [0, 1, 2]})
    pq.write_table(table, folder / "a.parquet")
    with zipfile.ZipFile(folder / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for i in range(3):
            archive.writestr(f"{i % 2}/{i}.png", png(i))
        archive.writestr(
            "dataset.json", json.dumps({"labels": [[f"{i % 2}/{i}.png", i] for i in range(3)]})
        )
    with tarfile.open(folder / "a.tar", "w") as tar:
        for i in range(3):
            for name, content in ((f"{i}.png", png(i)), (f"{i}.json", b'{"label": 1}')):
                info = tarfile.TarInfo(name)
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    (folder / "a.tar.gz").write_bytes(gzip.compress((folder / "a.tar").read_bytes()))
    np.savez(folder / "a.npz", x_train=np.zeros((2, 3, 3), np.uint8), y_train=np.arange(2))
    return ["a.parquet", "a.zip", "a.tar", "a.tar.gz", "a.npz"]


@pytest.fixture(scope="module")
def good_files(tmp_path_factory):
    from sims_core.data.grid import encode_png

    folder = tmp_path_factory.mktemp("good")
    names = whole_sources(folder, lambda i: encode_png(np.full((1, 4, 4), i, np.uint8)))
    return {name: (folder / name).read_bytes() for name in names}


@hypothesis_settings(max_examples=250, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_damage_anywhere_gives_only_our_errors(data, good_files, tmp_path):
    """Of every form of source: cut, flipped or overwritten at any place."""
    name = data.draw(st.sampled_from(sorted(good_files)))
    content = bytearray(good_files[name])
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(content) - 1))
        patch = data.draw(st.binary(min_size=1, max_size=4))
        content[at : at + len(patch)] = patch
    content = content[: data.draw(st.integers(0, len(content)) | st.just(len(content)))]
    path = tmp_path / name
    path.write_bytes(content)
    said = ""
    try:
        for image in open_source(path).read():
            assert image.label is None or image.label >= 0
    except BadInput as error:
        said = str(error)
    assert len(said.splitlines()) <= 1


BOUND = """
import resource, sys
from pathlib import Path
from sims_core.catalog import run_stage
from sims_core.common.errors import BadInput
from sims_core.data.importing import plan_import
from sims_core.data.stages import IMPORT
from sims_core.engine.execution import DataFiles, Execution
from sims_core.store.store import Store
import torch, pyarrow, PIL.Image
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
files = DataFiles(imported=Path(sys.argv[1]))
size = int(sys.argv[3]) or None
try:
    plan = plan_import(files, split=None, labels=None, size=size, channels=None, skip_broken=False)
    execution = Execution(threads=4, files=files)
    run_stage(Store.open(sys.argv[2]), IMPORT.request(plan.config), execution)
    print("imported")
except BadInput as error:
    print(error)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


def peak(source, tmp_path, size=0):
    """What an import says, and how many MiB it takes at most, in a process of its own."""
    words = [sys.executable, "-c", BOUND, str(source), str(tmp_path / "store"), str(size)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    said, mebibytes = done.stdout.splitlines()
    return said, int(mebibytes)


def large_png(side):
    """A white picture of one bit, small in the file."""

    def chunk(kind, data):
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    rows = zlib.compress((b"\0" + b"\xff" * ((side + 7) // 8)) * side, 9)
    end = chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + end


@pytest.mark.parametrize("size", [0, 32])
def test_many_pictures_of_9400_squared(size, put, tmp_path):
    content = large_png(9400)
    source = put("zip", tmp_path / "a.zip", {f"{n}.png": content for n in range(12)})
    said, mebibytes = peak(source, tmp_path, size)
    assert said == "imported" if size else "has 9400 x 9400 pixels: pass `size`" in said
    assert mebibytes < 1000


def test_one_key_in_many_parts(tmp_path):
    """Of 40 members of 64 MiB, all of one sample."""
    with (
        gzip.open(tmp_path / "a.tar.gz", "wb", 1) as file,
        tarfile.open(fileobj=file, mode="w") as tar,
    ):
        for n in range(40):
            info = tarfile.TarInfo(f"0.{n}.png")
            info.size = 1 << 26
            tar.addfile(info, io.BytesIO(bytes(1 << 26)))
    said, mebibytes = peak(tmp_path / "a.tar.gz", tmp_path)
    assert "no image of a known format" in said
    assert mebibytes < 500


def test_a_header_that_unpacks_to_gigabytes(tmp_path):
    with gzip.open(tmp_path / "a.tar.gz", "wb", 1) as file:
        info = tarfile.TarInfo("x")
        info.type, info.size = tarfile.XHDTYPE, 1 << 31
        file.write(info.tobuf())
        for _ in range(1 << 7):
            file.write(bytes(1 << 20))
    said, mebibytes = peak(tmp_path / "a.tar.gz", tmp_path)
    assert "extended header has 2147483648 bytes" in said
    assert mebibytes < 100


def test_a_value_that_stands_for_many_rows(tmp_path):
    """In 100 kB of Parquet: 600 rows of the same 40 MB."""
    image = pa.DictionaryArray.from_arrays(np.zeros(600, np.int32), [bytes(40_000_000)])
    table = pa.table({"image": image}).replace_schema_metadata(None)
    pq.write_table(table, tmp_path / "a.parquet", compression="zstd", store_schema=False)
    said, mebibytes = peak(tmp_path / "a.parquet", tmp_path)
    assert "row 0: no image of a known format" in said
    assert mebibytes < 700


def test_a_member_of_a_zip_that_lies_about_its_size(put, tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("0.png", bytes(1 << 30))
    content = (
        (tmp_path / "a.zip").read_bytes().replace(struct.pack("<I", 1 << 30), struct.pack("<I", 99))
    )
    (tmp_path / "a.zip").write_bytes(content)
    said, mebibytes = peak(tmp_path / "a.zip", tmp_path)
    assert said.startswith("0.png: ")
    assert mebibytes < 100


def test_many_large_pictures_are_not_held_until_their_shard_is_full(put, tmp_path):
    """300 of 1500 x 1500: 2 GB as they are."""
    pixels = large_png(1500)
    source = put("zip", tmp_path / "a.zip", {f"{n:03d}.png": pixels for n in range(300)})
    said, mebibytes = peak(source, tmp_path)
    assert said == "imported"
    assert mebibytes < 600
