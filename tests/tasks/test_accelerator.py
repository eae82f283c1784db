"""Runs that share an accelerator take turns."""

from __future__ import annotations

import pytest
from prefect.client.orchestration import get_client
from prefect.settings import PREFECT_API_URL, temporary_settings

from infra.server.setup import set_up
from sims_core.catalog import STAGES
from sims_core.common.errors import BadInput
from sims_core.settings import Settings
from tasks.accelerator import GPU_LIMIT, accelerator_slot, needs_slot


def test_stages_that_compute_on_the_device_are_marked():
    marked = {stage.name for stage in STAGES.values() if stage.accelerated}
    assert {"train", "generate", "classifier", "features"} <= marked
    assert not marked & {"prepare", "mix", "evaluate", "reference", "evaluate_points"}


@pytest.mark.parametrize(
    ("slots", "device", "server", "needed"),
    [
        ("auto", "cuda", True, True),
        ("auto", "cpu", True, False),
        ("auto", "cuda", False, False),
        ("always", "cpu", True, True),
        ("always", "cpu", False, False),
        ("never", "cuda", True, False),
    ],
)
def test_who_needs_a_slot(slots, device, server, needed, monkeypatch, tmp_path):
    monkeypatch.setattr("sims_core.settings.NVIDIA_FILES", (tmp_path,))  # a driver is there
    url = "http://127.0.0.1:4200/api" if server else None
    with temporary_settings({PREFECT_API_URL: url}):
        assert needs_slot(Settings(gpu_slots=slots, device=device)) is needed


def test_set_up_makes_what_is_missing_and_leaves_what_is_there(prefect_url, tmp_path, monkeypatch):
    monkeypatch.setenv("SIMS_STORE", str(tmp_path / "store"))
    settings = Settings(gpu_slots="always", device="cpu")
    missing = pytest.raises(BadInput, match="no concurrency limit gpu: run `sims setup`")
    with missing, accelerator_slot(settings):
        pytest.fail("went on without a slot")
    with get_client(sync_client=True) as client:

        def limit():
            return client.read_global_concurrency_limit_by_name(GPU_LIMIT)

        assert set_up(None)["concurrency limit"] == "gpu (1 at once)"
        assert set_up(3)["concurrency limit"] == "gpu (3 at once)"
        assert set_up(None)["concurrency limit"] == "gpu (3 at once)"
        assert limit().limit == 3
        assert client.read_work_pool("sims").type == "process"
        name = "sims: a run without a heartbeat has crashed"
        assert len(client.read_automations_by_name(name)) == 1
        assert (tmp_path / "store" / "artifacts").is_dir()
        with accelerator_slot(settings):
            assert limit().active_slots == 1
        assert limit().active_slots == 0
