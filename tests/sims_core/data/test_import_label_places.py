"""Files of labels in every place where people have them: they are used, or named and refused."""

from __future__ import annotations

import json

import pytest

from sims_core.common.errors import BadInput

KINDS = ["folder", "zip", "tar"]
PLACES = ["00000/img00000000.png", "00000/img00000001.png", "00001/img00001000.png"]


def dataset(pairs):
    return json.dumps({"labels": pairs}).encode()


def table(**labels):
    rows = "".join(f"{name}.png,{label}\n" for name, label in labels.items())
    return b"file_name,label\n" + rows.encode()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("wrapper", ["ds", "./ds", "photos/all"])
@pytest.mark.parametrize("places", [PLACES, PLACES[:2], ["x/0.png", "y/1.png", "y/2.png"]])
def test_dataset_json_in_a_folder_round_all_pictures(
    kind, wrapper, places, put, png, import_all, tmp_path
):
    if wrapper == "./ds" and kind == "folder":
        return  # only archives have names so
    pairs = [[name, 7 - n] for n, name in enumerate(places)]
    files = {f"{wrapper}/{name}": png(n) for n, name in enumerate(places)}
    files[f"{wrapper}/dataset.json"] = dataset(pairs)
    got = import_all(put(kind, tmp_path / "s", files))
    assert got.labels == [7, 6, 5][: len(places)]
    assert got.images[:, 0, 0, 0].tolist() == [0, 1, 2][: len(places)]
    inner = wrapper.removeprefix("./")
    assert f"classes: {inner}/dataset.json; the sub-folders are none" in got.notes
    assert (got.details["classes"], got.left_out) == ([], {})


@pytest.mark.parametrize("kind", ["zip", "tar"])
@pytest.mark.parametrize("dotted", ["./", "././", ".//"])
def test_an_archive_of_a_whole_folder_has_the_labels_of_the_folder(
    kind, dotted, put, png, import_all, tmp_path
):
    """All its names begin with ./ where `bsdtar -acf set.zip .` or `tar -cf set.tar .` wrote it."""
    pairs = [[name, 7 - n] for n, name in enumerate(PLACES)]
    files = {name: png(n) for n, name in enumerate(PLACES)} | {"dataset.json": dataset(pairs)}
    source = put(kind, tmp_path / "s", {dotted + name: each for name, each in files.items()})
    got, plain = import_all(source), import_all(put(kind, tmp_path / "t", files))
    assert got.labels == plain.labels == [7, 6, 5]
    assert got.images[:, 0, 0, 0].tolist() == [0, 1, 2]
    assert "classes: dataset.json; the sub-folders are none" in got.notes
    assert got.left_out == {}
    assert import_all(source, "none").labels is None
    (tmp_path / "l.csv").write_text("".join(f"{name},{n}\n" for n, name in enumerate(PLACES)))
    assert import_all(source, tmp_path / "l.csv").labels == [0, 1, 2]
    own = {dotted + "dataset.json": dataset([["./" + name, n] for name, n in pairs])}
    others = {dotted + name: png(n) for n, name in enumerate(PLACES)}
    assert import_all(put(kind, tmp_path / "u", others | own)).labels == [7, 6, 5]


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_class_folders_and_tables_of_an_archive_of_a_whole_folder(
    kind, put, png, import_all, tmp_path
):
    classes = {"./b/x.png": png(1), "./a/y.png": png(0)}
    got = import_all(put(kind, tmp_path / "s", classes))
    found = dict(zip(got.images[:, 0, 0, 0].tolist(), got.labels, strict=True))
    assert (found, got.details["classes"]) == ({0: 0, 1: 1}, ["a", "b"])
    files = {"./a.png": png(0), "./b.png": png(1), "./metadata.csv": table(b="cat", a="dog")}
    got = import_all(put(kind, tmp_path / "t", files))
    assert (got.labels, got.details["classes"]) == ([1, 0], ["cat", "dog"])


def test_a_zip_with_one_name_twice_but_for_its_dot(put, png, import_all, tmp_path):
    source = put("zip", tmp_path / "s", {"./a.png": png(0), "a.png": png(1)})
    with pytest.raises(BadInput, match=r"holds two images of the name a\.png"):
        import_all(source)


@pytest.mark.parametrize("kind", KINDS)
def test_metadata_in_a_folder_round_all_pictures(kind, put, png, import_all, tmp_path):
    files = {"ds/a.png": png(0), "ds/b.png": png(1), "ds/metadata.csv": table(b="cat", a="dog")}
    got = import_all(put(kind, tmp_path / "s", files))
    assert (got.labels, got.details["classes"]) == ([1, 0], ["cat", "dog"])
    none = {**files, "ds/metadata.csv": b"", "ds/dataset.json": dataset(None)}
    without = import_all(put(kind, tmp_path / "t", none))
    assert without.labels is None
    assert "no labels: ds/dataset.json says so" in without.notes
    wrong = {**files, "ds/metadata.csv": table(a=1)}
    with pytest.raises(BadInput, match=r"ds/metadata\.csv: 1 of 2 images have no class: b\.png"):
        import_all(put(kind, tmp_path / "u", wrong))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("file", "content", "why"),
    [
        ("a/metadata.csv", table(x=1), "not all pictures lie beside or below it"),
        ("a/metadata.csv", b"file_name,age\nx.png,3\n", "not all pictures lie beside or below it"),
        ("a/dataset.json", b"{", "not all pictures lie beside or below it"),
        ("Dataset.json", dataset([["a/x.png", 1]]), "its name is not dataset.json"),
        ("METADATA.CSV", table(x=1), "its name is not metadata.csv"),
    ],
)
def test_labels_that_would_be_ignored_are_named(
    kind, file, content, why, put, png, import_all, tmp_path
):
    pictures = {"a/x.png": png(0), "b/y.png": png(1)}
    source = put(kind, tmp_path / "s", {**pictures, file: content})
    mend = "pass `labels` FILE or `labels` none, or move it away"
    with pytest.raises(BadInput) as refused:
        import_all(source)
    assert str(refused.value).endswith(f"{file} may hold classes and is not used ({why}): {mend}")
    assert import_all(source, "none").labels is None
    (tmp_path / "l.csv").write_text("a/x.png,4\nb/y.png,3\n")
    assert import_all(source, tmp_path / "l.csv").labels == [4, 3]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("a/metadata.csv", b"file_name,text\nx.png,one\n"),
        ("a/dataset.json", dataset(None)),
        ("b/dataset.json", b'{"name": "birds"}'),
    ],
)
def test_such_files_without_labels_leave_the_folders_to_be_classes(
    kind, file, content, put, png, import_all, tmp_path
):
    pictures = {"a/x.png": png(0), "b/y.png": png(1)}
    got = import_all(put(kind, tmp_path / "s", {**pictures, file: content}))
    assert (got.labels, got.details["classes"]) == ([0, 1], ["a", "b"])
    assert sum(got.left_out.values()) == 1


@pytest.mark.parametrize("kind", ["folder", "zip"])
@pytest.mark.parametrize("split", ["train", "ds/train"])
@pytest.mark.parametrize("below", ["", "cat/"])
def test_labels_above_the_split_are_named(kind, split, below, put, png, import_all, tmp_path):
    inside, other = f"{split}/{below}", split.replace("train", "val")
    files = {f"{inside}0.png": png(0), f"{other}/1.png": png(1)}
    files[f"{other}/dataset.json"] = dataset([["1.png", 3]])
    assert import_all(put(kind, tmp_path / "s", files), split=split).labels == (
        [0] if below else None
    )
    for place in ("", split.removesuffix("train")):
        for name in ("dataset.json", "metadata.csv"):
            content = dataset([["train/0.png", 2]]) if "json" in name else table(x=1)
            source = put(kind, tmp_path / f"{len(place)}{name}", {**files, place + name: content})
            outside = (
                rf"{place}{name} may hold classes and is not used \(it lies outside the split\)"
            )
            with pytest.raises(BadInput, match=outside):
                import_all(source, split=split)
            assert import_all(source, "none", split=split).labels is None
    own = {**files, "dataset.json": dataset([]), f"{split}/metadata.csv": table(**{f"{below}0": 5})}
    assert import_all(put(kind, tmp_path / "own", own), split=split).labels == [5]


def tar_of(put, png, path, jsons, **more):
    """A tar of pictures 0, 1, ... each with one of these as its JSON."""
    files = {}
    for n, value in enumerate(jsons):
        files |= {f"{n}.json": json.dumps(value).encode(), f"{n}.png": png(n)}
    return put("tar", path, {**more, **files})


def test_every_json_of_the_samples_is_asked_for_labels(put, png, import_all, tmp_path):
    for later in ({"label": 1}, {"cls": 1}, {"category": "cat"}):
        source = tar_of(put, png, tmp_path / "a.tar", [{"text": "x"}, {"text": "y"}, later])
        (field,) = later
        with pytest.raises(
            BadInput, match=rf"2\.json: has the field {field}, which .*0\.json lacks"
        ):
            import_all(source)
        assert import_all(source, "none").labels is None
    source = tar_of(put, png, tmp_path / "b.tar", [{"text": "x"}, {"text": "y", "stars": 3}])
    assert import_all(source).labels is None, "a number under any name may be no class"


@pytest.mark.parametrize("info", [b'{"version": 3}', b"[1, 2]", b"{}"])
def test_json_without_a_picture_is_no_samples(info, put, png, import_all, tmp_path):
    jsons = [{"label": 6}, {"label": 4}]
    got = import_all(tar_of(put, png, tmp_path / "a.tar", jsons, **{"about.json": info}))
    assert got.labels == [6, 4]
    lone = tar_of(put, png, tmp_path / "c.tar", jsons, **{"about.json": b'{"label": 3}'})
    with pytest.raises(BadInput, match=r"about\.json has a class and no picture"):
        import_all(lone)
    plain = tar_of(put, png, tmp_path / "b.tar", [{"text": "x"}] * 2, **{"about.json": info})
    assert import_all(plain).labels is None


def captioned(png, names):
    files = {}
    for n, name in enumerate(names):
        files |= {f"{name}.png": png(n), f"{name}.txt": b"a picture"}
    return files


@pytest.mark.parametrize("extra", ["txt", "json"])
def test_a_tar_of_class_folders_with_captions_is_as_the_same_zip(
    extra, put, png, import_all, tmp_path
):
    files = {}
    for n, name in enumerate(("cat/1", "dog/0", "dog/2")):
        caption = b'{"text": "a picture"}' if extra == "json" else b"a picture"
        files |= {f"{name}.{extra}": caption, f"{name}.png": png(n)}
    zipped = import_all(put("zip", tmp_path / "a.zip", files))
    tarred = import_all(put("tar", tmp_path / "a.tar", files))
    assert zipped.details["classes"] == tarred.details["classes"] == ["cat", "dog"]
    assert zipped.labels == tarred.labels == [0, 1, 1]
    assert tarred.plan.config.layout == "webdataset"
    dotted = put("tar", tmp_path / "d.tar", {f"./{name}": each for name, each in files.items()})
    assert import_all(dotted).labels == [0, 1, 1]
    assert import_all(tmp_path / "a.tar", "none").labels is None
    own = {**files, "cat/1.cls": b"8", "dog/0.cls": b"9", "dog/2.cls": b"7"}
    source = put("tar", tmp_path / "own.tar", dict(sorted(own.items())))
    assert import_all(source).labels == [8, 9, 7], "classes of samples stand above folders"


def test_captions_in_folders_that_are_no_classes(put, png, import_all, tmp_path):
    one = put("tar", tmp_path / "a.tar", captioned(png, ["all/0", "all/1"]))
    assert import_all(one).labels is None, "one folder tells no picture from another"
    indices = ["00000/img00000007", "00001/img00001001"]
    numbered = put("tar", tmp_path / "b.tar", captioned(png, indices))
    with pytest.raises(BadInput, match=r"only number the pictures.*`labels` none"):
        import_all(numbered)
    assert import_all(numbered, "none").labels is None


def test_a_table_beside_pictures_with_captions_is_named(put, png, import_all, tmp_path):
    files = captioned(png, ["0", "1"])
    source = put("tar", tmp_path / "a.tar", {**files, "metadata.csv": table(**{"0": 4, "1": 5})})
    with pytest.raises(BadInput, match=r"metadata\.csv may hold classes.*import the folder, or"):
        import_all(source)
    assert import_all(source, "none").labels is None


def test_tables_in_several_tars_are_named(put, png, import_all, tmp_path):
    (tmp_path / "s").mkdir()
    for n in range(2):
        files = {f"{n}.png": png(n), "metadata.csv": table(**{str(n): n})}
        put("tar", tmp_path / "s" / f"{n}.tar", files)
    with pytest.raises(BadInput, match=r"0\.tar/metadata\.csv may hold classes and is not used"):
        import_all(tmp_path / "s")
    (tmp_path / "l.csv").write_text("0.png,3\n1.png,2\n")
    assert import_all(tmp_path / "s", tmp_path / "l.csv").labels == [3, 2]
