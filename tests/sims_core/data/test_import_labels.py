"""Labels are never lost or invented without a word."""

from __future__ import annotations

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sims_core.common.errors import BadInput

KINDS = ["folder", "zip", "tar"]
PLACES = ["00000/img00000000.png", "00000/img00000001.png", "00001/img00001000.png"]


def edm(png, labels, extra=()):
    """As EDM's and StyleGAN's dataset tools write it."""
    files = {name: png(10 * i) for i, name in enumerate(PLACES)}
    return files | {"dataset.json": json.dumps({"labels": labels}).encode()} | dict(extra)


@pytest.mark.parametrize("kind", KINDS)
def test_the_labels_of_dataset_json_are_used_and_its_folders_are_no_classes(
    kind, put, png, import_all, tmp_path
):
    pairs = [[name, label] for name, label in zip(PLACES, (6, 2, 9), strict=True)]
    source = put(kind, tmp_path / "s", edm(png, pairs))
    got = import_all(source)
    assert got.labels == [6, 2, 9]
    assert got.images[:, 0, 0, 0].tolist() == [0, 10, 20]
    assert "classes: dataset.json; the sub-folders are none" in got.notes
    assert (got.details["classes"], got.left_out) == ([], {})
    given = tmp_path / "given.json"
    given.write_text(json.dumps({"labels": pairs}))
    assert import_all(source, given).plan.config == got.plan.config, "the same set"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("labels", [None, []])
def test_a_dataset_json_without_labels_means_none(kind, labels, put, png, import_all, tmp_path):
    got = import_all(put(kind, tmp_path / "s", edm(png, labels)))
    assert got.labels is None
    assert "no labels: dataset.json says so" in got.notes


@pytest.mark.parametrize("kind", KINDS)
def test_labels_that_are_given_stand_above_dataset_json(kind, put, png, import_all, tmp_path):
    source = put(kind, tmp_path / "s", edm(png, [[name, 0] for name in PLACES]))
    (tmp_path / "l.csv").write_text("\n".join(f"{name},{n}" for n, name in enumerate(PLACES)))
    got = import_all(source, tmp_path / "l.csv")
    assert got.labels == [0, 1, 2]
    assert "dataset.json is not used" in got.notes
    without = import_all(source, "none")
    assert without.labels is None
    assert "`labels` none: the labels of dataset.json are left out" in without.notes


def test_a_dataset_json_of_other_images_is_refused(put, png, import_all, tmp_path):
    source = put("zip", tmp_path / "s", edm(png, [[name, 0] for name in PLACES[:2]]))
    with pytest.raises(BadInput, match=r"dataset\.json: 1 of 3 images have no class"):
        import_all(source)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("folders", [("00000", "00001"), ("00000", "01000")])
def test_folders_that_only_number_the_pictures_are_no_classes(
    kind, folders, put, png, import_all, tmp_path
):
    names = (f"{folders[0]}/img00000007.png", f"{folders[1]}/img00001001.png")
    source = put(kind, tmp_path / "s", {name: png(0) for name in names})
    with pytest.raises(BadInput, match=r"only number the pictures.*`labels` none"):
        import_all(source)
    assert import_all(source, "none").labels is None


METADATA = {
    "metadata.csv": b"file_name,label\nb.png,1\na.png,0\n",
    "metadata.jsonl": b'{"file_name": "a.png", "label": 0}\n{"file_name": "b.png", "label": 1}\n',
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", METADATA)
def test_metadata_beside_the_pictures_has_the_labels(kind, name, put, png, import_all, tmp_path):
    files = {"a.png": png(0), "b.png": png(9), name: METADATA[name]}
    got = import_all(put(kind, tmp_path / "s", files))
    assert got.labels == [0, 1]
    assert f"classes: {name} (column label)" in got.notes


def test_metadata_in_parquet_and_classes_that_are_words(put, png, import_all, tmp_path):
    source = put("folder", tmp_path / "s", {"a.png": png(0), "b.png": png(9)})
    table = pa.table({"file_name": ["a.png", "b.png"], "animal": ["dog", "cat"], "n": [3, 4]})
    pq.write_table(table, source / "metadata.parquet")
    with pytest.raises(BadInput, match=r"metadata\.parquet: n may be classes"):
        import_all(source)
    got = import_all(source, label_column="animal")
    assert (got.labels, got.details["classes"]) == ([1, 0], ["cat", "dog"])
    assert import_all(source, label_column="n").labels == [3, 4]
    with pytest.raises(BadInput, match="has the columns file_name, animal, n"):
        import_all(source, label_column="kind")


def test_metadata_without_classes_leaves_the_folders_to_be_classes(put, png, import_all, tmp_path):
    rows = b'{"file_name": "x/a.png", "text": "one"}\n{"file_name": "y/b.png", "text": "two"}\n'
    files = {"x/a.png": png(0), "y/b.png": png(9), "metadata.jsonl": rows}
    got = import_all(put("folder", tmp_path / "s", files))
    assert got.labels == [0, 1]
    assert "metadata.jsonl: not imported: text" in got.notes


@pytest.mark.parametrize("column", ["cls", "target", "coarse_label", "weather"])
@pytest.mark.parametrize("form", ["parquet", "arrow"])
def test_columns_that_may_be_classes_are_never_left_in_silence(
    column, form, png, import_all, tmp_path
):
    rows = {"image": [png(0), png(9)], column: [4, 2], "width": [4, 4], "caption": ["a", "b"]}
    table = pa.table(rows)
    source = tmp_path / "a.parquet"
    if form == "parquet":
        pq.write_table(table, source)
    else:
        source = put_arrow(tmp_path / "a", table)
    with pytest.raises(BadInput, match=f"{column} may be classes.*`label_column`.*`labels` none"):
        import_all(source)
    got = import_all(source, label_column=column)
    assert got.labels == [4, 2]
    assert f"classes: the column {column}" in got.notes
    assert "columns that are not imported: width, caption" in got.notes
    assert import_all(source, "none").labels is None
    with pytest.raises(BadInput, match="has a column nope not"):
        import_all(source, label_column="nope")


def put_arrow(folder, table):
    folder.mkdir()
    path = str(folder / "d.arrow")
    with pa.OSFile(path, "wb") as file, pa.ipc.new_stream(file, table.schema) as stream:
        stream.write_table(table)
    (folder / "state.json").write_text(json.dumps({"_data_files": [{"filename": "d.arrow"}]}))
    (folder / "dataset_info.json").write_text("{}")
    return folder


def test_a_column_of_words_is_numbered_in_order(png, import_all, tmp_path):
    words = ["b", "a", "b", "10", "9"]
    table = pa.table({"image": [png(i) for i in range(5)], "label": words})
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=2)
    with pytest.raises(BadInput, match="must hold integers: pass `label_column` label to number"):
        import_all(tmp_path / "a.parquet")
    got = import_all(tmp_path / "a.parquet", label_column="label")
    assert got.details["classes"] == ["10", "9", "a", "b"]
    assert got.labels == [3, 2, 3, 0, 1]


def test_the_other_label_of_cifar100_is_named(png, import_all, tmp_path):
    rows = {"img": [png(0), png(9)], "fine_label": [50, 99], "coarse_label": [3, 4]}
    pq.write_table(pa.table(rows), tmp_path / "a.parquet")
    got = import_all(tmp_path / "a.parquet")
    assert got.labels == [50, 99]
    assert "classes: the column fine_label" in got.notes
    assert "not imported: coarse_label" in got.notes


def sample(png, i, **fields):
    return {f"{i}.png": png(i), f"{i}.json": json.dumps(fields).encode()}


def test_labels_in_the_json_of_samples(put, png, import_all, tmp_path):
    files = sample(png, 0, label=7, width=4) | sample(png, 1, label=5, width=4)
    got = import_all(put("tar", tmp_path / "a.tar", files))
    assert got.labels == [7, 5]
    assert "classes: the field label of each sample's JSON" in got.notes
    other = sample(png, 0, kind_id=7, width=4) | sample(png, 1, kind_id=5, width=4)
    source = put("tar", tmp_path / "b.tar", other)
    with pytest.raises(BadInput, match=r"0\.json: kind_id may be classes"):
        import_all(source)
    assert import_all(source, label_column="kind_id").labels == [7, 5]
    assert import_all(source, "none").labels is None
    partly = put("tar", tmp_path / "c.tar", files | sample(png, 2, width=4))
    with pytest.raises(BadInput, match="2 has no class while others have one"):
        import_all(partly)


def test_a_tar_of_class_folders_is_as_the_same_zip(put, png, import_all, tmp_path):
    files = {"dog/0.png": png(0), "cat/1.png": png(1), "dog/2.png": png(2)}
    zipped = import_all(put("zip", tmp_path / "a.zip", files))
    tarred = import_all(put("tar", tmp_path / "a.tar", files))
    assert zipped.details["classes"] == tarred.details["classes"] == ["cat", "dog"]
    assert tarred.labels == [1, 0, 1]
    assert zipped.labels == [0, 1, 1], "a zip is in the order of names"
    flat = {name.replace("/", "-"): content for name, content in files.items()}
    assert import_all(put("tar", tmp_path / "b.tar", flat)).labels is None


def test_backslashes_of_windows_stand_between_folders(put, png, import_all, tmp_path):
    files = {"dog\\0.png": png(0), "cat\\1.png": png(1)}
    got = import_all(put("zip", tmp_path / "a.zip", files))
    assert (got.labels, got.details["classes"]) == ([0, 1], ["cat", "dog"])
    mixed = {"a\\b/0.png": png(0), "c/1.png": png(1)}
    assert import_all(put("zip", tmp_path / "b.zip", mixed)).details["classes"] == ["a\\b", "c"]


@pytest.mark.parametrize(
    "names",
    [
        ("Train", "Test"),
        ("training", "testing"),
        ("train2017", "val2017"),
        ("train_images", "test_images"),
        ("TRAIN", "VAL", "extra"),
        ("trainset", "dev"),
        ("train",),
    ],
)
@pytest.mark.parametrize("kind", KINDS)
def test_folders_that_are_splits_under_any_spelling(names, kind, put, png, import_all, tmp_path):
    files = {f"{name}/{c}/0.png": png(0) for name in names for c in "ab"}
    source = put(kind, tmp_path / "s", files)
    with pytest.raises(BadInput, match=f"has the splits .*{names[0]}.*`split`"):
        import_all(source)
    if kind != "tar":
        assert import_all(source, split=names[0]).labels == [0, 1]


def test_one_class_may_be_called_train(put, png, import_all, tmp_path):
    files = {f"{name}/0.png": png(0) for name in ("bus", "train", "truck")}
    got = import_all(put("folder", tmp_path / "s", files))
    assert got.details["classes"] == ["bus", "train", "truck"]


@pytest.mark.parametrize("kind", KINDS)
def test_one_folder_round_the_class_folders_is_no_class(kind, put, png, import_all, tmp_path):
    files = {"photos/all/dog/0.png": png(0), "photos/all/cat/1.png": png(1)}
    got = import_all(put(kind, tmp_path / "s", files))
    assert got.details["classes"] == ["cat", "dog"]
    assert "all pictures lie in photos/all: its sub-folders are the classes" in got.notes
    only = {"photos/0.png": png(0), "photos/1.png": png(1)}
    assert import_all(put(kind, tmp_path / "t", only)).details["classes"] == ["photos"]
    loose = {"photos/0.png": png(0), "photos/x/1.png": png(1)}
    assert import_all(put(kind, tmp_path / "u", loose)).details["classes"] == ["photos"]


@pytest.mark.parametrize("kind", KINDS)
def test_classes_that_are_numbers_are_in_their_order(kind, put, png, import_all, tmp_path):
    files = {f"{n}/{n:02d}.png": png(n) for n in range(12)}
    got = import_all(put(kind, tmp_path / "s", files))
    assert got.details["classes"] == [str(n) for n in range(12)]
    assert got.labels == got.images[:, 0, 0, 0].tolist()


def test_class_folders_may_be_links(put, png, import_all, tmp_path):
    files = {"dog/0.png": png(0), "cat/1.png": png(1)}
    real = put("folder", tmp_path / "real", files)
    (tmp_path / "s").mkdir()
    for name in ("dog", "cat"):
        (tmp_path / "s" / name).symlink_to(real / name)
    (tmp_path / "s" / "again").symlink_to(tmp_path / "s")
    got = import_all(tmp_path / "s")
    assert (got.labels, got.details["classes"]) == ([0, 1], ["cat", "dog"])
    assert got.left_out == {"a link to a folder that is not followed": 1}


def test_a_label_file_that_names_an_image_twice_is_refused(put, png, import_all, tmp_path):
    source = put("folder", tmp_path / "s", {"a.png": png(0), "b.png": png(1)})
    (tmp_path / "l.json").write_text('{"a.png": 1, "b.png": 2, "a.png": 3}')
    with pytest.raises(BadInput, match=r"l\.json: unreadable: 'a\.png' stands there twice"):
        import_all(source, tmp_path / "l.json")
    (tmp_path / "l.csv").write_text("a.png,1\nb.png,2\na.png,3\n")
    with pytest.raises(BadInput, match=r"a\.png has two classes, 1 and 3"):
        import_all(source, tmp_path / "l.csv")


def test_a_table_of_several_columns_wants_one_to_be_chosen(put, png, import_all, tmp_path):
    source = put("folder", tmp_path / "s", {"a.png": png(0), "b.png": png(1)})
    table = tmp_path / "l.csv"
    table.write_text("file_name,width,kind\na.png,4,7\nb.png,4,8\n")
    with pytest.raises(BadInput, match="has the columns file_name, width, kind: wanted"):
        import_all(source, table)
    assert import_all(source, table, label_column="kind").labels == [7, 8]
    with pytest.raises(BadInput, match=r"`label_column` kind: .*\(folder\) has none"):
        import_all(source, label_column="kind")
    with pytest.raises(BadInput, match="`labels` none leaves them out"):
        import_all(source, "none", label_column="kind")
