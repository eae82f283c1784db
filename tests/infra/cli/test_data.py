"""`sims data` as a user types it, and runs on what it brought."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

from infra.cli import data
from infra.cli.main import app
from sims_core import api
from sims_core.data.config import DigitsData
from sims_core.data.digits import load_digits_uint8
from sims_core.data.grid import encode_png

SMALL = {
    "generations": "1",
    "pollution_sizes": "32",
    "training.kimg": "0.3",
    "sims.n_s": "32",
    "sims.budget_mimg": "0.0003",
    "sampler.num_steps": "3",
    "evaluation.num_images": "64",
    "evaluation.allow_small_n": "true",
    "evaluation.kid_subset_size": "16",
    "evaluation.num_preview": "4",
    "evaluation.classifier.kimg": "1",
}


def words(**changes):
    values = {**SMALL, **{key.replace("__", "."): value for key, value in changes.items()}}
    return [word for key, value in values.items() for word in ("-p", f"{key}={value}")]


@pytest.fixture
def digits_folder(tmp_path):
    """200 digits in a sub-folder for each class."""
    images, labels = load_digits_uint8(DigitsData(num_images=200))
    for number, (image, label) in enumerate(zip(images, labels, strict=True)):
        path = tmp_path / "digits" / f"{label}" / f"{number:04d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encode_png(image))
    return tmp_path / "digits"


def data_import(sims, store, source, *options):
    return sims("data", "import", str(source), "--store", str(store), *options)


def test_import_list_and_plan(sims, digits_folder, tmp_path):
    store = tmp_path / "store"
    first = data_import(sims, store, digits_folder, "--name", "own", "--json")
    assert first.returncode == 0, first.stderr
    row = json.loads(first.stdout)
    assert {key: row[key] for key in ("name", "count", "channels", "height", "num_classes")} == {
        **{"name": "own", "count": 200, "channels": 1, "height": 8, "num_classes": 10}
    }
    assert row["classes"] == [str(digit) for digit in range(10)]
    assert not row["cached"]
    again = json.loads(data_import(sims, store, digits_folder, "--name", "b", "--json").stdout)
    assert (again["artifact"], again["cached"]) == (row["artifact"], True)
    listed = json.loads(sims("data", "ls", "--store", str(store), "--json").stdout)
    assert [r["name"] for r in listed["datasets"]] == ["b", "own"]
    for_people = sims("data", "ls", "--store", str(store)).stdout
    assert "own: 200 images of 1 x 8 x 8, 10 classes, from folder" in for_people
    run = ("run", "sims-loop/own-images", "--store", str(store), "--dry-run", "--json")
    planned = json.loads(sims(*run, *words()).stdout)["plan"]
    prepared = next(stage for stage in planned if stage["stage"] == "prepare data")
    assert (prepared["artifact"], prepared["state"]) == (row["artifact"], "cached")


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (("--name", "Own"), "--name: string should match pattern"),
        (("--name", "own", "--labels", "absent.csv"), "--labels absent.csv: no such file"),
        (("--name", "own"), "3/0003.png: "),
    ],
)
def test_a_mistake_is_one_line_and_imports_nothing(options, named, sims, digits_folder, tmp_path):
    (digits_folder / "3" / "0003.png").write_bytes(b"nothing")
    store = tmp_path / "store"
    done = data_import(sims, store, digits_folder, *options)
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: ")
    assert named in line
    assert list(store.glob("artifacts/*/*")) == list(store.glob("datasets/*")) == []


def test_skipped_images_are_named(sims, digits_folder, tmp_path):
    (digits_folder / "3" / "0003.png").write_bytes(b"nothing")
    options = ("--name", "own", "--skip-broken", "--json")
    done = data_import(sims, tmp_path / "store", digits_folder, *options)
    assert (json.loads(done.stdout)["count"], json.loads(done.stdout)["skipped"]) == (199, 1)
    assert "skipped 3/0003.png: no image of a known format" in done.stderr


@pytest.mark.slow
def test_a_whole_run_on_own_images(sims, digits_folder, tmp_path):
    store = tmp_path / "store"
    assert data_import(sims, store, digits_folder, "--name", "own").returncode == 0
    run = ("run", "sims-loop/own-images", "--store", str(store), "--json", "--direct")
    done = sims(*run, *words(model__net__block_out_channels="[8,16]"))
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    assert [arm["name"].split()[0] for arm in summary["arms"]] == ["standard", "sims"]
    assert "own, 200 real images of 8 x 8" in Path(summary["report"]).read_text()


def data_encode(sims, store, images, folder, *options):
    words = ("--autoencoder", str(folder), "--store", str(store), *options)
    return sims("data", "encode", images, *words)


def test_encode_list_and_refusals(sims, digits_folder, autoencoder_folder, tmp_path):
    store = tmp_path / "store"
    assert data_import(sims, store, digits_folder, "--name", "own").returncode == 0
    first = data_encode(sims, store, "own", autoencoder_folder, "--name", "latents", "--json")
    assert first.returncode == 0, first.stderr
    row = json.loads(first.stdout)
    assert row["latents"] == {"channels": 2, "height": 4, "width": 4}
    assert (row["count"], row["height"], row["num_classes"], row["cached"]) == (200, 8, 10, False)
    assert row["psnr"] > 0
    again = data_encode(sims, store, "own", autoencoder_folder, "--name", "b", "--json")
    assert json.loads(again.stdout)["artifact"] == row["artifact"]
    assert json.loads(again.stdout)["cached"]
    listed = sims("data", "ls", "--store", str(store)).stdout
    assert (
        "latents: 200 images of 1 x 8 x 8, 10 classes, from folder, as latents of 2 x 4 x 4;"
        in (listed)
    )
    for images, name, message in (
        ("latents", "c", "error: latents is encoded already"),
        ("own", "own", "error: --name own is the images' own"),
        ("owl", "c", "error: no data set 'owl' in the store"),
        ("own", "C", "error: --name: string should match pattern"),
    ):
        done = data_encode(sims, store, images, autoencoder_folder, "--name", name)
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr.startswith(message)
        assert len(done.stderr.splitlines()) == 1
    assert len(list((store / "datasets").glob("*"))) == 3
    (shard,) = (store / sims_images(sims, store)).glob("*.tar")
    content = bytearray(shard.read_bytes())
    content[2000] ^= 1
    shard.write_bytes(content)
    done = data_encode(sims, store, "own", autoencoder_folder, "--name", "c", "--seed", "1")
    assert done.returncode == 2
    assert "run the `sims data import` again that made own" in done.stderr
    absent = data_encode(sims, tmp_path / "absent", "own", autoencoder_folder, "--name", "c")
    assert (absent.returncode, (tmp_path / "absent").exists()) == (1, False)


def sims_images(sims, store):
    rows = json.loads(sims("data", "ls", "--store", str(store), "--json").stdout)["datasets"]
    return next(row["artifact"] for row in rows if row["name"] == "own")


@pytest.mark.slow
def test_a_whole_run_on_latents(sims, digits_folder, autoencoder_folder, tmp_path):
    store = tmp_path / "store"
    assert data_import(sims, store, digits_folder, "--name", "px").returncode == 0
    assert data_encode(sims, store, "px", autoencoder_folder, "--name", "own").returncode == 0
    net = {"model__net__image_size": "4", "model__net__channels": "2"}
    run = ("run", "sims-loop/own-images", "--store", str(store), "--json")
    done = sims(*run, *words(**net, generations="2", model__net__block_out_channels="[8,16]"))
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    assert all(arm["generations"][1]["metrics"]["fid"] > 0 for arm in summary["arms"])
    report = Path(summary["report"]).read_text()
    assert "own, 200 real images of 8 x 8, as latents of 2 x 4 x 4" in report
    again = json.loads(
        sims(
            *run, *words(**net, generations="2", **{"model__net__block_out_channels": "[8,16]"})
        ).stdout
    )
    assert again["stages"]["computed"] == 0


@pytest.mark.slow
def test_a_whole_run_on_real_cifar10_images(sims, data_folder, tmp_path):
    run = ("run", "sims-loop/cifar10-smoke", "--store", str(tmp_path / "store"), "--json")
    cheaper = {
        "data__num_images": "128",
        "training__kimg": "0.1",
        "evaluation__classifier__channels": "[8,8]",
        "evaluation__classifier__kimg": "0.2",
        "model__net__block_out_channels": "[8,8,8]",
    }
    done = sims(*run, "--direct", *words(**cheaper), SIMS_DATA=str(data_folder))
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    assert all(arm["generations"][0]["metrics"]["fid"] > 0 for arm in summary["arms"])
    assert "cifar10 (train), 128 real images of 32 x 32" in Path(summary["report"]).read_text()


def test_the_last_lines_say_what_was_not_imported_and_what_the_classes_are(
    sims, digits_folder, tmp_path
):
    (digits_folder / "notes.avif").write_bytes(b"x")
    (digits_folder / "b\x1b[2J.md").write_text("x")
    done = data_import(sims, tmp_path / "store", digits_folder, "--name", "own", "--json")
    lines = done.stderr.splitlines()
    assert "classes in order: 0 = 0, 1 = 1, 2 = 2" in lines[-3]
    assert lines[-2:] == [
        "not imported: 1 x no picture: b\\x1b[2J.md",
        "not imported: 1 x a picture of a kind that is not read (.avif): notes.avif",
    ]
    row = json.loads(done.stdout)
    assert row["left_out"]["no picture"] == {"count": 1, "first": ["b\\x1b[2J.md"]}
    assert (row["notes"], row["remarks"], row["formats"]) == ([], {}, {"PNG": 200})
    again = data_import(sims, tmp_path / "store", digits_folder, "--name", "own", "--json")
    assert json.loads(again.stdout)["left_out"] == row["left_out"], "also where it was there"


@pytest.fixture
def in_process(monkeypatch):
    """`sims data import` in this process."""

    def run(store, source, *options):
        monkeypatch.setenv("SIMS_STORE", str(store))
        return CliRunner().invoke(app, ["data", "import", str(source), *options])

    return run


def test_a_name_that_is_given_to_something_else(in_process, digits_folder, tmp_path):
    """It says what the name stood for and what it stands for now; the same set is no change."""
    store = tmp_path / "store"
    first = json.loads(in_process(store, digits_folder, "--name", "own", "--json").stdout)
    assert "stood_for" not in first
    again = in_process(store, digits_folder, "--name", "own", "--json")
    assert "stood" not in again.stdout + again.stderr
    done = in_process(store, digits_folder, "--name", "own", "--size", "4", "--json")
    row = json.loads(done.stdout)
    assert row["stood_for"]["artifact"] == first["artifact"] != row["artifact"]
    said = [line for line in done.stderr.splitlines() if line.startswith("own ")]
    was = f"200 images of 1 x 8 x 8, 10 classes, from folder; {first['artifact']}"
    now = f"200 images of 1 x 4 x 4, 10 classes, from folder; {row['artifact']}"
    assert said == [f"own stood for {was}", f"own stands for {now} now"]


def test_colours_of_another_profile_are_converted_and_counted(in_process, tmp_path):
    (tmp_path / "s").mkdir()
    Image.new("L", (8, 8), 100).save(tmp_path / "s" / "a.png")
    Image.new("L", (8, 8), 100).save(tmp_path / "s" / "b.png", icc_profile=grey_profile())
    done = in_process(tmp_path / "store", tmp_path / "s", "--name", "own", "--json")
    assert done.exit_code == 0, done.stderr
    row = json.loads(done.stdout)
    assert [each["count"] for each in row["remarks"].values()] == [1]
    assert "imported: 1 x a colour profile other than sRGB, converted to sRGB: b.png" in done.stderr
    assert row["mean"][0] > 100 / 127.5 - 1, "linear light of 100 is a brighter sRGB"
    again = in_process(tmp_path / "store", tmp_path / "s", "--name", "own", "--json")
    assert json.loads(again.stdout)["cached"]


def grey_profile():
    """A grey profile of gamma 1, written by hand (ICC.1:2001-04)."""
    tags = [
        (b"wtpt", b"XYZ " + bytes(4) + struct.pack(">3i", 0xF6D6, 0x10000, 0xD32D)),
        (b"kTRC", b"curv" + bytes(4) + struct.pack(">I", 0)),
        (b"desc", b"desc" + bytes(4) + struct.pack(">I", 2) + b"g\0" + bytes(78)),
        (b"cprt", b"text" + bytes(4) + b"none\0\0\0\0"),
    ]
    table, data = b"", b""
    for name, content in tags:
        table += name + struct.pack(">II", 132 + 12 * len(tags) + len(data), len(content))
        data += content + bytes(-len(content) % 4)
    size = 132 + len(table) + len(data)
    header = struct.pack(">I4sI4s4s4s", size, b"none", 0x02400000, b"mntr", b"GRAY", b"XYZ ")
    header += bytes(12) + b"acsp" + bytes(28) + struct.pack(">3i", 0xF6D6, 0x10000, 0xD32D)
    return header.ljust(128, b"\0") + struct.pack(">I", len(tags)) + table + data


def test_a_name_that_another_import_gave_meanwhile(
    in_process, digits_folder, tmp_path, monkeypatch
):
    """The later of two imports with other options under one name does not win in silence."""
    store = tmp_path / "store"
    assert in_process(store, digits_folder, "--name", "x", "--size", "4").exit_code == 0
    first = (store / "datasets" / "x.json").read_text()
    (store / "datasets" / "x.json").unlink()
    whole = data._import

    def slowly(*arguments):
        done = whole(*arguments)
        (store / "datasets" / "own.json").write_text(first)  # what another process does
        return done

    monkeypatch.setattr(data, "_import", slowly)
    done = in_process(store, digits_folder, "--name", "own")
    assert done.exit_code == 2
    assert "--name own: another import has given this name to artifacts/images/" in done.stderr
    assert (store / "datasets" / "own.json").read_text() == first
    done = in_process(store, digits_folder, "--name", "own", "--size", "4")
    assert done.exit_code == 0, "the same set"


@pytest.mark.parametrize("thing", ["datasets/own.json", "locks/dataset-own.lock"])
def test_things_in_the_way_of_a_name(thing, in_process, digits_folder, tmp_path):
    store = tmp_path / "store"
    (store / thing).mkdir(parents=True)
    done = in_process(store, digits_folder, "--name", "own")
    assert done.exit_code == 1
    assert done.stderr.splitlines()[-1].startswith("error: ")
    assert thing in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr


def test_a_lock_that_is_a_link_is_not_followed(in_process, digits_folder, tmp_path):
    store, precious = tmp_path / "store", tmp_path / "precious"
    precious.write_text("content")
    (store / "locks").mkdir(parents=True)
    (store / "locks" / "dataset-own.lock").symlink_to(precious)
    assert in_process(store, digits_folder, "--name", "own").exit_code == 1
    assert precious.read_text() == "content"


def test_one_image_is_not_images(tmp_path, monkeypatch):
    monkeypatch.setenv("SIMS_STORE", str(tmp_path / "store"))
    api.save_images(load_digits_uint8(DigitsData(num_images=1))[0], tmp_path / "one")
    for words, told in (
        (["import", str(tmp_path / "one"), "--name", "own"], "own: 1 image of 1 x 8 x 8"),
        (["ls"], f"1 data set in {tmp_path / 'store'}"),
    ):
        done = CliRunner().invoke(app, ["data", *words])
        assert done.exit_code == 0, done.stderr
        assert told in done.stdout
