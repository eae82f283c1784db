"""`sims evaluate` as a user types it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from infra.cli.main import app
from sims_core import api
from sims_core.data.config import DigitsData
from sims_core.data.digits import load_digits_uint8
from sims_core.data.image_set import read_index


@pytest.fixture
def evaluate(monkeypatch):
    """The command in this process."""

    def run(*words, store):
        monkeypatch.setenv("SIMS_STORE", str(store))
        return CliRunner().invoke(app, ["evaluate", *map(str, words)])

    return run


def generated(store: Path) -> Path:
    """What the tiny run shows of an arm's second generation."""
    (link,) = store.glob("runs/*/arms/standard_D_s32/t=02/generate")
    return link


WORDS = ("--features", "classifier", "--allow-small-n")


def test_a_runs_images_against_real_ones(sims, evaluate, tiny_store):
    """Real process, then again in this one: all figures with both n, then nothing is computed."""
    store = ("--store", str(tiny_store))
    arguments = (str(generated(tiny_store)), "--against", "digits", *WORDS, "--count", "40")
    done = sims("evaluate", *arguments, *store, "--json")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("\n") == 1
    row = json.loads(done.stdout)
    assert row["stages"]["computed"] == 4  # the digits are those of the run
    assert row["stages"]["cached"] == 1
    assert row["against"]["name"] == "digits:train"
    assert (row["features"], row["kid_subset_size"]) == ("classifier", 40)
    metrics = row["metrics"]
    assert (metrics["n_generated"], metrics["n_real"]) == (40, 1797)
    stored = Path(row["store"], row["artifact"], "metrics.json").read_bytes()
    assert json.loads(stored) == metrics
    lines = [line for line in done.stderr.splitlines() if line.startswith("[")]
    assert lines[0] == "[1/5] prepare reference: cached"
    assert lines[-1].startswith("[5/5] evaluate: ")
    again = evaluate(*arguments, store=tiny_store)
    assert again.exit_code == 0, again.stderr
    assert all(line.endswith(": cached") for line in again.stderr.splitlines())
    first, second = again.stdout.splitlines()
    assert first.startswith(
        f"FID {metrics['fid']:.4f}, "
        f"KID {metrics['kid']:.6f} +- {metrics['kid_std']:.6f} (100 subsets of 40), "
        f"Precision (k = 3) {metrics['precision']:.4f}, "
        f"Recall (k = 3) {metrics['recall']:.4f}: n = 40"
    )
    assert (
        f"n = 40 of {generated(tiny_store)} (a random sample, seed 0) against 1797 of "
        "digits:train, classifier"
    ) in first
    assert second == f"metrics: {tiny_store / row['artifact']}"


def test_a_further_metric_computes_nothing_else(evaluate, tiny_store):
    arguments = (generated(tiny_store), "--against", "digits", *WORDS, "--count", "40")
    before = evaluate(*arguments, "--json", store=tiny_store)
    assert before.exit_code == 0, before.stderr
    more = (*arguments, "--metric", "density_coverage")
    after = evaluate(*more, "--json", store=tiny_store)
    assert after.exit_code == 0, after.stderr
    row, with_it = json.loads(before.stdout), json.loads(after.stdout)
    added = {name: with_it["metrics"].pop(name) for name in ("density", "coverage")}
    assert with_it["metrics"] == row["metrics"]
    assert with_it["artifact"] == row["artifact"]
    assert with_it["stages"]["computed"] == 1
    assert min(added.values()) >= 0
    text = evaluate(*more, store=tiny_store).stdout
    values = f"Density (k = 5) {added['density']:.4f}, Coverage (k = 5) {added['coverage']:.4f}"
    assert f", {values}: n = 40" in text


def save_digits(folder: Path, count: int) -> Path:
    images, labels = load_digits_uint8(DigitsData(num_images=count))
    api.save_images(images, folder, labels)
    return folder


def test_folders_of_pictures_are_measured_as_the_api_measures_them(evaluate, tmp_path):
    real, few = save_digits(tmp_path / "real", 90), save_digits(tmp_path / "few", 60)
    (few / "0" / "notes.txt").write_text("no picture")
    store, words = tmp_path / "store", (few, "--against", real, *WORDS)
    done = evaluate(*words, "--json", store=store)
    assert done.exit_code == 0, done.stderr
    row = json.loads(done.stdout)
    asked = {"features": "classifier", "allow_small_n": True, "store": tmp_path / "other"}
    with pytest.warns(UserWarning, match="not imported: 1 x"):
        found = api.evaluate(few, real, **asked)
    assert row["metrics"] == found
    assert (found["n_generated"], found["n_real"]) == (60, 90)
    assert row["images"]["name"] == str(few)
    assert f"warning: {few}: not imported: 1 x" in done.stderr
    again = evaluate(*words, store=store)
    assert f"n = 60 of {few} against 90 of {real}, classifier features" in again.stdout
    lines = [line for line in again.stderr.splitlines() if line.startswith("[")]
    assert len(lines) > 2
    assert all(line.endswith(": cached") for line in lines)
    smaller = evaluate(few, "--against", few, *WORDS, "--size", "5", "--json", store=store)
    assert smaller.exit_code == 0, smaller.stderr
    artifact = json.loads(smaller.stdout)["images"]["artifact"]
    assert read_index(store / artifact).contents.width == 5


def test_a_broken_picture_is_left_to_the_import(evaluate, tmp_path):
    (tmp_path / "few").mkdir()
    (tmp_path / "few" / "a.png").write_bytes(b"no picture")
    done = evaluate(tmp_path / "few", "--against", "digits", *WORDS, store=tmp_path / "store")
    assert (done.exit_code, done.stdout) == (2, "")
    line = done.stderr.splitlines()[-1]
    assert line.startswith("error: ")
    assert "a.png" in line
    assert line.endswith("`sims data import` has more options, and its names are IMAGES too")


def test_a_folder_in_a_store_is_no_folder_of_pictures(evaluate, tiny_store, tmp_path):
    """Its pictures are those of reports."""
    run = next(tiny_store.glob("runs/*"))
    for store in (tiny_store, tmp_path / "other"):
        done = evaluate(run, "--against", "digits", *WORDS, store=store)
        assert (done.exit_code, done.stdout) == (2, "")
        assert "is no images artifact of the store" in done.stderr
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (
            ("digits", "--against", "digits", *WORDS, "--metric", "nope"),
            "no metric 'nope'; metrics: density_coverage",
        ),
        (("digits", "--against", "nope"), "no images 'nope': want digits, cifar10, cifar10:test"),
        (("digits", "--against", "digits"), "1797 images of digits:train are too few"),
        (
            ("digits", "--against", "digits", *WORDS, "--size", "8"),
            "--size and --channels are for pictures at a path",
        ),
        ((Path(__file__).parent, "--against", "nope", *WORDS), "no images 'nope': want digits"),
        (("digits",), "Missing option '--against'"),
        (("digits", "--against", "digits", "--features", "vgg"), "'vgg' is not one of"),
    ],
)
def test_a_mistake_writes_nothing(words, named, evaluate, tmp_path):
    done = evaluate(*words, store=tmp_path / "store")
    assert (done.exit_code, done.stdout) == (2, "")
    assert named in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_set_is_a_failure(evaluate, tiny_store):
    shard = next(generated(tiny_store).resolve().glob("*.tar"))
    shard.write_bytes(shard.read_bytes()[:-1])
    done = evaluate(generated(tiny_store), "--against", "digits", *WORDS, store=tiny_store)
    assert (done.exit_code, done.stdout) == (1, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: artifacts/images/")


@pytest.mark.slow
def test_cifar10_in_inceptions_features(sims, data_folder, tmp_path):
    """The command that the documentation has, on a few images."""
    few = ("--count", "20", "--reference-count", "20", "--allow-small-n")
    arguments = ("evaluate", "cifar10", "--against", "cifar10:test", *few)
    store = ("--store", str(tmp_path / "store"))
    done = sims(*arguments, *store, "--json", SIMS_DATA=str(data_folder))
    assert done.returncode == 0, done.stderr
    row = json.loads(done.stdout)
    assert row["weights_sha256"].startswith("bdd5391f")
    assert row["metrics"]["fid"] > 50  # of so few it is mostly bias
