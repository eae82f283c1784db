"""What is seen and not imported is counted by reason and named."""

from __future__ import annotations

import io
import os
import tarfile

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from sims_core.common.errors import BadInput


def table_of(png, levels, **columns):
    return pa.table({"image": [png(level) for level in levels], **columns})


def levels(brought):
    return brought.images[:, 0, 0, 0].tolist()


@pytest.mark.parametrize("kind", ["folder", "zip"])
def test_everything_that_is_no_picture_is_counted_by_reason(kind, put, png, import_all, tmp_path):
    files = {
        **{"a.png": png(1), "b.jfif.png": png(2)},
        **{"c.avif": b"x", "d.HEIC": b"x", "noname": png(3), "e.dat": png(4), "words": b"words"},
        **{".hidden.png": png(5), "__MACOSX/f.png": b"x", "g.npy": b"x", "h.csv": b"a,1\n"},
        **{"README.md": b"hello", "i.zip": b"x"},
    }
    got = import_all(put(kind, tmp_path / "s", files))
    assert levels(got) == [1, 2]
    assert got.left_out == {
        "a picture of a kind that is not read (.avif)": 1,
        "a picture of a kind that is not read (.heic)": 1,
        "a picture without a known suffix: rename it": 2,
        "no picture": 2,
        "hidden": 2,
        "an array (.npy)": 1,
        "a table (.csv): if it holds labels, pass it to `labels`": 1,
        "an archive": 1,
    }
    first = got.plan.left_out.row()["a picture without a known suffix: rename it"]["first"]
    assert sorted(first) == ["e.dat", "noname"]


@pytest.mark.parametrize("suffix", [".jfif", ".jpe", ".JPG"])
def test_other_names_of_jpeg_are_pictures(suffix, put, png, import_all, tmp_path):
    buffer = io.BytesIO()
    Image.new("L", (4, 4), 99).save(buffer, "jpeg")
    got = import_all(
        put("folder", tmp_path / "s", {f"a{suffix}": buffer.getvalue(), "b.png": png(0)})
    )
    assert (len(got.images), got.left_out) == (2, {})


@pytest.mark.parametrize(
    ("suffix", "content"), [(".pnm", b"P5 4 4 255\n" + bytes(16)), (".pbm", b"P4 8 4\n\0\0\0\0")]
)
def test_all_of_netpbm_is_read(suffix, content, put, import_all, tmp_path):
    got = import_all(put("folder", tmp_path / "s", {f"a{suffix}": content}))
    assert len(got.images) == 1


def test_a_source_without_pictures_says_what_it_has(put, png, import_all, tmp_path):
    with pytest.raises(BadInput, match=r"has no images.*2 x a picture without a known suffix"):
        import_all(put("folder", tmp_path / "s", {"a": png(0), "b": png(1)}))


def test_links_to_nothing_and_what_is_no_file_are_counted(put, png, import_all, tmp_path):
    source = put("folder", tmp_path / "s", {"a.png": png(0)})
    (source / "b.png").symlink_to(tmp_path / "absent.png")
    (source / "loop.png").symlink_to(source / "loop.png")
    os.mkfifo(source / "c.png")
    os.mkfifo(source / "d.tar")
    os.mkfifo(source / "e.parquet")
    (source / "zero.png").symlink_to("/dev/zero")
    got = import_all(source)
    assert levels(got) == [0]
    assert got.left_out == {
        "a link to nothing": 2,
        "no regular file (a FIFO, a socket or a device)": 4,
    }


@pytest.mark.parametrize("stray", ["x.tar", "x.parquet", "deep/x.tar.gz"])
def test_pictures_beside_a_set_of_another_form_are_ambiguous(stray, put, png, import_all, tmp_path):
    source = put("folder", tmp_path / "s", {"p/a.png": png(0), "p/b.png": png(1)})
    (source / stray).parent.mkdir(exist_ok=True)
    if stray.endswith("parquet"):
        pq.write_table(table_of(png, [1]), source / stray)
    else:
        put("tar", source / stray, {"0.png": png(2)}, mode="w:gz" if "gz" in stray else "w")
    with pytest.raises(BadInput, match=rf"has 2 pictures \(p/a\.png\) and 1 .*{stray}.*only one"):
        import_all(source)
    assert len(import_all(source / "p").images) == 2


def test_what_img2dataset_writes(put, png, import_all, tmp_path):
    """Shards, and beside each a table of where its pictures come from."""
    source = tmp_path / "s"
    source.mkdir()
    for shard in ("00000", "00001"):
        files = {}
        for i in range(2):
            key = f"{shard}000{i}"
            info = b'{"caption": "x", "key": "%d", "width": 4, "original_height": 9}' % i
            files |= {f"{key}.jpg": png(i), f"{key}.txt": b"x", f"{key}.json": info}
        put("tar", source / f"{shard}.tar", files)
        pq.write_table(pa.table({"url": ["a", "b"], "width": [4, 4]}), source / f"{shard}.parquet")
        (source / f"{shard}_stats.json").write_text("{}")
    got = import_all(source)
    assert levels(got) == [0, 1, 0, 1]
    assert got.labels is None
    assert got.left_out == {
        "a part of a sample that is no picture and no class (.txt)": 4,
        "a part of a sample that is no picture and no class (.json)": 4,
        "a table (.json): if it holds labels, pass it to `labels`": 2,
        "a table (.parquet): if it holds labels, pass it to `labels`": 2,
    }


def test_parquet_files_in_a_sub_folder_are_found(put, png, import_all, tmp_path):
    source = put("folder", tmp_path / "hub", {"README.md": b"x", "data/.keep": b""})
    pq.write_table(table_of(png, [1, 2]), source / "data" / "train-00000-of-00001.parquet")
    pq.write_table(table_of(png, [3]), source / "data" / "test-00000-of-00001.parquet")
    got = import_all(source)
    assert levels(got) == [1, 2]
    assert "Parquet files lie in data" in got.notes
    assert got.left_out == {"a file of another split": 1, "no picture": 1, "hidden": 1}
    assert levels(import_all(source, split="test")) == [3]
    (source / "more").mkdir()
    pq.write_table(table_of(png, [3]), source / "more" / "a.parquet")
    with pytest.raises(BadInput, match="has Parquet files in 2 folders, data, more"):
        import_all(source)


@pytest.mark.parametrize("mode", ["gz", "bz2", "xz"])
def test_folders_of_compressed_tars(mode, put, png, import_all, tmp_path):
    (tmp_path / "s").mkdir()
    for n in range(2):
        files = {f"{n}.png": png(n), f"{n}.cls": b"%d" % n}
        put("tar", tmp_path / "s" / f"{n}.tar.{mode}", files, mode=f"w:{mode}")
    assert import_all(tmp_path / "s").labels == [0, 1]


@pytest.mark.parametrize("form", ["parquet", "tar"])
def test_a_part_that_is_missing_is_named(form, put, png, import_all, tmp_path):
    for n in (0, 2):
        path = tmp_path / "s" / f"train-{n:05d}-of-00003.{form}"
        path.parent.mkdir(exist_ok=True)
        if form == "tar":
            put("tar", path, {f"{n}.png": png(n)})
        else:
            pq.write_table(table_of(png, [n]), path)
    missing = rf"1 parts are missing, such as train-00001-of-00003\.{form}"
    with pytest.raises(BadInput, match=rf"{missing}; put them there, or pass `skip_broken`"):
        import_all(tmp_path / "s")
    got = import_all(tmp_path / "s", skip_broken=True)
    assert levels(got) == [0, 2]
    assert "1 parts are missing" in got.notes


def test_a_gap_in_the_numbers_of_shards_is_named(put, png, import_all, tmp_path):
    (tmp_path / "s").mkdir()
    for n in (0, 1, 3):
        put("tar", tmp_path / "s" / f"part-{n:04d}.tar", {f"{n}.png": png(n)})
    notes = import_all(tmp_path / "s").notes
    assert "1 of the numbers from 0 to 3 are missing" in notes
    assert "part-0002" in notes


def test_a_picture_under_a_longer_name_of_its_sample(put, png, import_all, tmp_path):
    files = {"0.input.png": png(7), "0.cls": b"3", "1.input.png": png(8), "1.cls": b"2"}
    got = import_all(put("tar", tmp_path / "a.tar", files))
    assert (levels(got), got.labels) == ([7, 8], [3, 2])


def test_names_with_dots_do_not_fuse(put, png, import_all, tmp_path):
    files = {"22.05.png": png(5), "22.05.cls": b"0", "22.06.png": png(6), "22.06.cls": b"1"}
    got = import_all(put("tar", tmp_path / "a.tar", files))
    assert (levels(got), got.labels) == ([5, 6], [0, 1])
    assert "names have dots" in got.notes
    plain = {name: content for name, content in files.items() if name.endswith("png")}
    assert levels(import_all(put("tar", tmp_path / "b.tar", plain))) == [5, 6]


def test_two_pictures_of_one_sample_are_never_one(put, png, import_all, tmp_path):
    files = {"0.png": png(1), "0.jpg": png(2), "0.cls": b"1"}
    with pytest.raises(BadInput, match=r"has two pictures, \.png and \.jpg"):
        import_all(put("tar", tmp_path / "a.tar", files))
    files = {"0.left.png": png(1), "0.right.png": png(2), "0.cls": b"1"}
    with pytest.raises(BadInput, match=r"0\.cls has a class and no picture"):
        import_all(put("tar", tmp_path / "b.tar", files))


@pytest.mark.parametrize("skip", [False, True])
def test_an_unsorted_tar_never_loses_its_labels(skip, put, png, import_all, tmp_path):
    files = {f"{n}.png": png(n) for n in range(3)} | {f"{n}.cls": b"%d" % n for n in range(3)}
    source = put("tar", tmp_path / "a.tar", files)
    with pytest.raises(BadInput, match="parts lie apart in the archive: sort its members"):
        import_all(source, skip_broken=skip)


@pytest.mark.parametrize("skip", [False, True])
def test_a_class_without_a_picture_is_never_dropped(skip, put, png, import_all, tmp_path):
    files = {"0.png": png(0), "0.cls": b"0", "1.avif": b"x", "1.cls": b"1"}
    source = put("tar", tmp_path / "a.tar", files)
    with pytest.raises(BadInput, match=r"1\.cls has a class and no picture"):
        import_all(source, skip_broken=skip)
    got = import_all(source, "none")
    assert got.left_out["a picture of a kind that is not read (.avif)"] == 1


def test_links_in_a_tar_are_counted(put, png, import_all, tmp_path):
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        (tmp_path / "0.png").write_bytes(png(0))
        tar.add(tmp_path / "0.png", "0.png")
        for name, kind in (("1.png", tarfile.LNKTYPE), ("2.png", tarfile.SYMTYPE)):
            link = tarfile.TarInfo(name)
            link.type, link.linkname = kind, "0.png"
            tar.addfile(link)
    assert import_all(tmp_path / "a.tar").left_out == {"a link in an archive": 2}


def test_tars_of_several_splits_are_not_mixed(put, png, import_all, tmp_path):
    (tmp_path / "s").mkdir()
    for n, name in enumerate(("train-0", "train-1", "val-0")):
        put("tar", tmp_path / "s" / f"{name}.tar", {f"{n}.png": png(n)})
    with pytest.raises(BadInput, match="has the splits train, val: pick one"):
        import_all(tmp_path / "s")
    got = import_all(tmp_path / "s", split="train")
    assert (levels(got), got.left_out) == ([0, 1], {"a file of another split": 1})


def test_a_store_inside_a_folder_is_no_part_of_it(put, png, import_all, tmp_path):
    """`sims data import .` where the store is the folder's own ./store, twice."""
    source = put("folder", tmp_path, {"a.png": png(3), "b.png": png(4)})
    first = import_all(source)
    again = import_all(source)
    assert again.plan.config == first.plan.config
    assert again.left_out == {"a store of this program": 1}
