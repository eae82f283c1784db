"""References that are files: `sims evaluate --against FILE.npz` and `--reference-out`."""

from __future__ import annotations

import json
import os

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from infra.cli.main import app
from sims_core.common.errors import BadInput
from sims_core.evaluation.reference_files import read_reference, write_reference


@pytest.fixture
def sims_here(tmp_path, monkeypatch, data_folder):
    """The command in this process, with a store of its own and two sets of random pictures."""
    monkeypatch.setenv("SIMS_STORE", str(tmp_path / "store"))
    monkeypatch.setenv("SIMS_DATA", str(data_folder))
    random = np.random.default_rng(0)

    def run(*words):
        return CliRunner().invoke(app, [*map(str, words)])

    for name, low in (("dark", 0), ("bright", 60)):
        (tmp_path / name).mkdir()
        for number in range(12):
            pixels = random.integers(low, low + 190, (32, 32, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / name / f"{number}.png")
        done = run("data", "import", tmp_path / name, "--name", name, "--labels", "none")
        assert done.exit_code == 0, done.output
    return run


def test_a_reference_that_was_written_gives_the_fid_of_its_images(sims_here, tmp_path):
    file = tmp_path / "bright.npz"
    words = ("--features", "resnet20", "--allow-small-n", "--json")
    done = sims_here("evaluate", "bright", "--reference-out", file, *words)
    assert done.exit_code == 0, done.stderr
    assert json.loads(done.stdout)["count"] == 12
    with np.load(file) as found:
        assert (found["mu"].shape, found["sigma"].shape) == ((64,), (64, 64))
        assert found["sigma"].dtype == np.float64
    by_file = json.loads(sims_here("evaluate", "dark", "--against", file, *words).stdout)
    by_images = json.loads(sims_here("evaluate", "dark", "--against", "bright", *words).stdout)
    # The square root of a singular matrix product keeps half of the digits.
    assert by_file["metrics"]["fid"] == pytest.approx(by_images["metrics"]["fid"], rel=1e-4)
    assert by_file["metrics"]["fid"] > 0.5
    assert by_file["metrics"]["n_generated"] == 12
    assert "kid" not in by_file["metrics"]
    text = sims_here("evaluate", "dark", "--against", file, *words[:3]).stdout
    assert "KID, precision and recall need images" in text
    itself = json.loads(sims_here("evaluate", "bright", "--against", file, *words).stdout)
    assert abs(itself["metrics"]["fid"]) < 1e-3


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "Missing option '--against' (or"),
        (("--against", "x.npz", "--reference-out", "y.npz"), "not both"),
        (("--against", "x.npz", "--inception-score"), "needs a reference of images"),
        (("--against", "x.npz", "--features", "classifier"), "a classifier is trained on images"),
        (("--against", "absent.npz"), "absent.npz is no file"),
        (("--reference-out", "x.json"), "must be an .npz"),
    ],
)
def test_what_cannot_be_asked_is_one_line(sims_here, words, message):
    given = words if "--features" in words else (*words, "--features", "resnet20")
    done = sims_here("evaluate", "dark", *given, "--allow-small-n")
    assert done.exit_code == 2
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_features_of_another_network_are_refused(sims_here, tmp_path):
    write_reference(tmp_path / "x.npz", {"mu": np.zeros(3), "sigma": np.eye(3)})
    words = ("--against", tmp_path / "x.npz", "--features", "resnet20", "--allow-small-n")
    done = sims_here("evaluate", "dark", *words)
    assert done.exit_code == 2
    assert "of 3 features, the images' have 64" in done.stderr


def _bad_symmetry():
    sigma = np.eye(4)
    sigma[0, 1] = 0.1
    return sigma


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"mu": np.zeros(4), "sigma": np.eye(3)}, "want mu of shape"),
        ({"mu": np.zeros((4, 1)), "sigma": np.eye(4)}, "want mu of shape"),
        ({"mu": np.zeros(4), "sigma": _bad_symmetry()}, "not symmetric"),
        ({"mu": np.zeros(4), "sigma": np.diag([1, 1, 1, -0.1])}, r"eigenvalue -0\.1"),
        ({"mu": np.zeros(4), "sigma": np.zeros((4, 4))}, "no covariance"),
        ({"mu": np.full(4, np.nan), "sigma": np.eye(4)}, "not finite"),
        ({"mu": np.zeros(4, dtype=int), "sigma": np.eye(4)}, "must be of floats"),
        ({"sigma": np.eye(4)}, r"no 'mu' \(it has sigma\)"),
        ({"mu": np.array([{}], dtype=object), "sigma": np.eye(4)}, "no readable .npz"),
    ],
)
def test_what_is_no_mean_and_covariance_is_refused(tmp_path, arrays, message):
    np.savez(tmp_path / "x.npz", **arrays)
    with pytest.raises(BadInput, match=message):
        read_reference(tmp_path / "x.npz")


def test_float32_and_other_arrays_do(tmp_path):
    random = np.random.default_rng(0)
    rows = random.normal(size=(50, 5))
    moments = {"mu": rows.mean(0), "sigma": np.cov(rows.T)}
    single = {name: value.astype(np.float32) for name, value in moments.items()}
    np.savez(tmp_path / "x.npz", **single, mu_s=rows, sigma_s=rows)
    found = read_reference(tmp_path / "x.npz")
    assert np.allclose(found["sigma"], moments["sigma"], rtol=1e-5, atol=1e-6)


def test_pipes_cut_files_and_claims_are_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe.npz")
    with pytest.raises(BadInput, match="is no file"):
        read_reference(tmp_path / "pipe.npz")
    np.savez_compressed(tmp_path / "big.npz", mu=np.zeros(3), sigma=np.zeros((8200, 8200)))
    with pytest.raises(BadInput, match="more than 8192 features"):
        read_reference(tmp_path / "big.npz")
    (tmp_path / "cut.npz").write_bytes((tmp_path / "big.npz").read_bytes()[:500])
    with pytest.raises(BadInput, match="no readable"):
        read_reference(tmp_path / "cut.npz")
