"""The store of a run of points, which takes seconds."""

from __future__ import annotations

import shutil

import pytest
from typer.testing import CliRunner

from infra.cli.main import app
from sims_core.store.store import Store

POINTS = {
    **{"generations": "1", "pollution_sizes": "50", "omegas": "1", "run_name": "points"},
    **{"scan_omegas": "[]", "scan_budgets": "[]"},
    "model.net": '{"kind": "exact_gaussian"}',
    "data.num_points": "50",
    "data.replicates": "2",
    "point_evaluation.num_points": "50",
    "point_evaluation.empirical_points": "10",
    "point_evaluation.bootstrap": "100",
}


@pytest.fixture(scope="session")
def arguments():
    """What `sims` is given to run it in a store."""

    def words(store, *options):
        parameters = [word for name, value in POINTS.items() for word in ("-p", f"{name}={value}")]
        run = ["run", "sims-loop/gaussian2d-quick", *parameters, "--direct", *options]
        return [*run, "--store", str(store)]

    return words


@pytest.fixture
def environment(monkeypatch):
    """What commands set here is gone after the test."""
    for name in ("SIMS_STORE", "SIMS_RECOMPUTE"):
        monkeypatch.setenv(name, "")


@pytest.fixture(scope="session")
def made(arguments, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SIMS_STORE", "")
        patch.setenv("SIMS_THREADS", "1")
        root = tmp_path_factory.mktemp("made") / "store"
        done = CliRunner().invoke(app, arguments(root))
        assert done.exit_code == 0, done.output
    return root


@pytest.fixture
def store(made, environment, tmp_path):
    """A copy that a test may damage."""
    shutil.copytree(made, tmp_path / "store", symlinks=True)
    return Store.open(tmp_path / "store")
