from __future__ import annotations

import json

import pytest

from sims_core.store.store import Store

pytestmark = pytest.mark.slow


def test_two_runs_of_one_command_share_the_work(started, sims, tiny_run, prefect_url, tmp_path):
    arguments = sims.run_arguments(tmp_path / "store", "--json")
    runs = [started(*arguments, PREFECT_API_URL=prefect_url) for _ in range(2)]
    outputs = [run.communicate(timeout=400) for run in runs]
    assert [run.returncode for run in runs] == [0, 0], outputs
    summaries = [json.loads(stdout) for stdout, _ in outputs]
    artifacts = Store(tmp_path / "store").artifacts()
    assert len(artifacts) == tiny_run.summary["stages"]["computed"]
    assert sum(summary["stages"]["computed"] for summary in summaries) == len(artifacts)
    assert summaries[0]["arms"] == summaries[1]["arms"] == tiny_run.summary["arms"]
    assert list((tmp_path / "store" / "progress").iterdir()) == []
