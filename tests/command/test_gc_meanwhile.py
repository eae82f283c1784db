"""Tidying up without end beside runs: nothing that they or a name need goes, and all else does."""

from __future__ import annotations

import json
import runpy
from pathlib import Path

import pytest

from sims_core.reports.upkeep import collect
from sims_core.store.store import Store

CHAOS = Path(__file__).parents[1] / "chaos" / "scenarios.py"


@pytest.mark.slow
def test_two_runs_beside_an_endless_gc(sims, started, bytes_of, tmp_path):
    runpy.run_path(str(CHAOS))["write_pictures"](tmp_path / "pictures", 300)
    quiet, busy = tmp_path / "quiet", tmp_path / "busy"
    pictures = ["data", "import", str(tmp_path / "pictures"), "--name", "own", "--store"]

    def runs(store):
        return [
            sims.run_arguments(store, "--direct", "--json", run_name="one"),
            sims.run_arguments(store, "--direct", "--json", run_name="two", omegas="2"),
        ]

    for command in ([*pictures, str(quiet)], [*pictures, str(busy)], *runs(quiet)):
        done = sims(*command)
        assert done.returncode == 0, done.stderr
    store = Store.open(busy)
    rounds = 0
    for _ in range(2):  # computed, then cached
        running = [started(*command) for command in runs(busy)]
        while any(each.poll() is None for each in running):
            collect(store, 0, dry_run=False)
            rounds += 1
        for each in running:
            _, stderr = each.communicate(timeout=20)
            assert each.returncode == 0, stderr
    assert rounds > 20
    assert bytes_of(busy) == bytes_of(quiet)
    again = sims(*runs(busy)[0])
    assert json.loads(again.stdout)["stages"]["computed"] == 0
    assert sims("store", "verify", "--store", str(busy)).returncode == 0
    assert sims("runs", "rm", "one", "two", "--yes", "--store", str(busy)).returncode == 0
    collect(store, 0, dry_run=False)
    assert [store.manifest(ref).request.stage for ref in store.artifacts()] == ["import"]
