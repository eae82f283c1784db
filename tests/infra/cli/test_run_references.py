"""Runs whose reference is a file: `-p evaluation.reference=FILE.npz`."""

from __future__ import annotations

import numpy as np
import pytest
from safetensors.numpy import load_file

from infra.cli.runs import check_run, execute_directly
from sims_core.common import roles
from sims_core.common.errors import BadInput
from sims_core.evaluation.images import STATISTICS_FILE
from sims_core.evaluation.reference_files import write_reference
from sims_core.settings import open_store

ONE_MODEL = {"generations": "1", "methods": "standard", "pollution_sizes": "32"}
RESNET = {"evaluation.features": "resnet20", "evaluation.allow_small_n": "true"}


@pytest.fixture(scope="module")
def shared_store(tmp_path_factory):
    return tmp_path_factory.mktemp("shared") / "store"


@pytest.fixture
def check(shared_store, monkeypatch, data_folder, tiny_texts):
    """A tiny checked run, measured in a ResNet's features."""
    monkeypatch.setenv("SIMS_STORE", str(shared_store))
    monkeypatch.setenv("SIMS_DATA", str(data_folder))
    monkeypatch.setenv("SIMS_DEVICE", "cpu")

    def checked(name="sims-loop/digits", parameters=(), **overrides):
        given = dict(parameters or ONE_MODEL)
        return check_run(name, tiny_texts(given, **{**RESNET, **overrides}))

    return checked


def figures(run):
    summary = execute_directly(run)
    return summary, summary.arms[0].generations[0].metrics


def test_a_run_against_the_file_of_its_real_images_finds_the_same_fid(check, tmp_path, caplog):
    run = check()
    _, by_images = figures(run)
    (real,) = [stage.ref for stage in run.plan if stage.role == roles.REAL_FEATURES]
    statistics = load_file(open_store().open_artifact(real) / STATISTICS_FILE)
    file = tmp_path / "real.npz"
    write_reference(file, {name: array.astype(np.float64) for name, array in statistics.items()})
    against = check(**{"evaluation.reference": str(file)})
    assert "KID, precision and recall need images" in caplog.text
    planned = [stage.role for stage in against.plan]
    assert roles.IMPORT_REFERENCE in planned
    assert roles.REAL_FEATURES not in planned
    summary, by_file = figures(against)
    assert by_file.keys() == {"fid", "n_generated"}
    assert by_file["n_generated"] == by_images["n_generated"]
    # The square root of a singular matrix product keeps half of the digits.
    assert by_file["fid"] == pytest.approx(by_images["fid"], rel=1e-4)
    page = (open_store().root / summary.report).read_text()
    assert "against the file real.npz: KID, precision and recall need images" in page
    # Nothing but the reference and its FID was computed again.
    assert summary.stages.computed == 2


def wrong(tmp_path, mu, sigma):
    file = tmp_path / "wrong.npz"
    np.savez(file, mu=mu, sigma=sigma)
    return str(file)


def test_what_is_no_reference_is_refused_before_any_work(check, tmp_path, monkeypatch):
    monkeypatch.setenv("SIMS_STORE", str(tmp_path / "store"))
    with pytest.raises(BadInput, match=r"nowhere\.npz is no file: want an \.npz"):
        check(**{"evaluation.reference": str(tmp_path / "nowhere.npz")})
    other = wrong(tmp_path, np.zeros(5), np.eye(5))
    with pytest.raises(BadInput, match="is of 5 features, resnet20 has 64: set"):
        check(**{"evaluation.reference": other})
    skewed = wrong(tmp_path, np.zeros(64), np.eye(64) + np.eye(64, k=1))
    with pytest.raises(BadInput, match="sigma is not symmetric"):
        check(**{"evaluation.reference": skewed})
    good = wrong(tmp_path, np.zeros(64), np.eye(64))
    with pytest.raises(BadInput, match="reference_sha256 is not that of"):
        check(**{"evaluation.reference": good, "evaluation.reference_sha256": "0" * 64})
    assert open_store().artifacts() == []


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"evaluation.features": "classifier"}, "reference needs features=inception, resnet20"),
        ({"evaluation.metrics": '["density_coverage"]'}, "metrics cannot be measured against"),
    ],
)
def test_what_needs_images_is_refused(check, overrides, message):
    with pytest.raises(BadInput, match=message):
        check(**{"evaluation.reference": "any.npz", **overrides})


def test_a_study_against_a_file_answers(check, tmp_path):
    file = wrong(tmp_path, np.zeros(64), np.eye(64))
    sweep = {"omegas": "1", "budgets": "0.000256", "n_s": "32", "select_images": "64"}
    sweep |= {"final_images": "64", "finalists": "1"}
    run = check("self-improvement/digits", sweep, **{"evaluation.reference": file})
    summary = execute_directly(run)
    assert "n = 64 generated, on seeds that" in summary.answer
