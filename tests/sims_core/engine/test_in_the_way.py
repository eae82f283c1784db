"""Killed between the rename and the record, and things that lie where the store's own should be."""

from __future__ import annotations

import os
import shutil
import stat

import pytest
from safetensors.numpy import save_file

from sims_core.catalog import STAGES, run_stage
from sims_core.common.errors import StoreError
from sims_core.common.frozen import Frozen
from sims_core.data.names import DATASETS
from sims_core.engine import run
from sims_core.engine.execution import Execution
from sims_core.engine.stage import Stage
from sims_core.reports.past_runs import PastRun
from sims_core.reports.verify import problems
from sims_core.store.store import RECORD_FILE, Store

EXECUTION = Execution(threads=1)


class PartsConfig(Frozen):
    """Of the stage below."""


def compute(context):
    import numpy as np

    save_file({"x": np.zeros(3)}, context.directory / "weights.safetensors")
    (context.directory / "deep").mkdir()
    (context.directory / "deep" / "text").write_text("text")
    return {}


@pytest.fixture
def request_(monkeypatch):
    """Of a stage that takes no time."""
    stage = Stage("parts", 1, "parts", PartsConfig, "unused:unused")
    monkeypatch.setitem(STAGES, "parts", stage)
    monkeypatch.setattr(Stage, "compute", property(lambda self: compute))
    return stage.request(PartsConfig())


class Killed(Exception):
    """Stands for a kill."""


@pytest.mark.parametrize("moment", ["before the record", "before the progress goes"])
def test_killed_after_the_rename_the_next_run_ends_what_was_begun(
    store, request_, monkeypatch, moment
):
    def killed(*arguments):
        raise Killed

    what = (Store, "write_record") if moment == "before the record" else (run.shutil, "rmtree")
    with monkeypatch.context() as patch:
        patch.setattr(*what, killed)
        with pytest.raises(Killed):
            run_stage(store, request_, EXECUTION, computed_by="me")
    ref = request_.ref
    assert store.is_whole(ref)
    assert (store.progress_path(ref) / RECORD_FILE).exists()
    assert run_stage(store, request_, EXECUTION, computed_by="another") == ref
    record = store.record(ref)
    assert (record.computed_by, record.content) == ("me", store.manifest(ref).content)
    assert list((store.root / "progress").iterdir()) == []
    assert list((store.root / "locks").iterdir()) == []


def test_a_record_that_is_lost_is_told_again_by_the_manifest(store, request_):
    run_stage(store, request_, EXECUTION, computed_by="me")
    before = store.record(request_.ref)
    store.record_path(request_.ref).unlink()
    run_stage(store, request_, EXECUTION)
    record = store.record(request_.ref)
    assert (record.origin, record.content) == (before.origin, before.content)
    assert record.computed_by == "unknown"


@pytest.mark.parametrize("name", ["", "execution.json", "state", "artifact"])
def test_what_is_in_the_way_of_unfinished_work_is_removed(store, request_, name, tmp_path):
    place = store.progress_path(request_.ref) / name
    if name == "execution.json":
        place.mkdir(parents=True)
    else:
        place.parent.mkdir(exist_ok=True)
        place.write_text("in the way")
    run_stage(store, request_, EXECUTION)
    assert store.is_whole(request_.ref)
    assert list((store.root / "progress").iterdir()) == []


def test_a_link_in_the_way_is_removed_and_what_it_leads_to_stays(store, request_, tmp_path):
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "file").write_text("mine")
    store.progress_path(request_.ref).symlink_to(tmp_path / "precious")
    run_stage(store, request_, EXECUTION)
    assert (tmp_path / "precious" / "file").read_text() == "mine"
    assert not (tmp_path / "precious" / "state").exists()


@pytest.mark.parametrize("place", ["records/{}.json", "locks/{}.lock"])
def test_a_folder_in_the_way_is_one_clear_error_and_no_work_is_lost(store, request_, place):
    path = store.root / place.format(request_.digest)
    path.mkdir()
    with pytest.raises(StoreError, match=rf"{path.name} is in the way"):
        run_stage(store, request_, EXECUTION)
    path.rmdir()
    run_stage(store, request_, EXECUTION)
    assert store.is_whole(request_.ref)
    assert store.record(request_.ref) is not None


def test_whoever_may_read_the_manifest_may_read_everything(store, request_):
    """Libraries that write weights make them private."""
    old = os.umask(0o022)
    try:
        run_stage(store, request_, EXECUTION)
    finally:
        os.umask(old)
    files = [path for path in store.path(request_.ref).rglob("*") if path.is_file()]
    assert len(files) == 3
    assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o644}


@pytest.mark.parametrize("folder", [".", "progress"])
def test_a_store_that_is_removed_under_a_stage_is_one_clear_error(
    store, request_, folder, monkeypatch
):
    def compute_without_it(context):
        shutil.rmtree(store.root / folder)
        return compute(context)

    monkeypatch.setattr(Stage, "compute", property(lambda self: compute_without_it))
    with pytest.raises(StoreError, match=r"the store .* is gone, or parts of it"):
        run_stage(store, request_, EXECUTION)


@pytest.mark.parametrize("name", ["manifest", "record", "execution", "name", "run", "verified"])
def test_a_fifo_in_the_place_of_a_file_is_not_waited_for(store, request_, name):
    run_stage(store, request_, EXECUTION)
    path = {
        "manifest": store.path(request_.ref) / "manifest.json",
        "record": store.record_path(request_.ref),
        "execution": store.progress_path(request_.ref) / "execution.json",
        "name": store.root / "datasets" / "x.json",
        "run": store.root / "runs" / "r" / "run.json",
        "verified": store.root / "verified",
    }[name]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    os.mkfifo(path)
    again = Store.open(store.root)
    assert DATASETS.stands_for(again, "x") is None
    assert PastRun(store.root / "runs" / "r").state == "unfinished"
    assert bool(problems(again)) == (name in ("manifest", "record", "name", "run"))
    run_stage(again, request_, EXECUTION)
    assert again.is_whole(request_.ref)
