"""With whom a worker of the pool shares what it makes, before it makes anything."""

from __future__ import annotations

import pytest

pytest.importorskip("obstore", reason="the extra sims-loop[remote] is not installed")

from flows.pool import _check_shares
from sims_core.common.errors import SimsError
from sims_core.store.marks import leave_mark, place_of
from sims_core.store.remote.bucket import attach
from sims_core.store.store import Store

MARK = "0" * 64


@pytest.fixture
def store(tmp_path):
    """Makes a store of this name, with a bucket behind it or none."""

    def make(name, bucket=None):
        made = Store.open(tmp_path / name)
        if bucket is not None:
            url = f"file://{tmp_path}/{bucket}"
            attach(made, url, lease_s=60, upload_s=60, cache_bytes=None)
        return made

    return make


def test_a_folder_is_shared_whatever_it_is_called(store, tmp_path):
    leave_mark(store("run"), MARK)
    (tmp_path / "mounted").symlink_to(tmp_path / "run")
    _check_shares(store("mounted"), "", MARK, recomputes=True)


def test_a_bucket_is_shared_by_stores_that_share_no_folder(store):
    run, worker = store("run", "bucket"), store("worker", "bucket")
    assert place_of(run) == place_of(worker)
    with pytest.raises(SimsError):
        _check_shares(worker, "", MARK, recomputes=False)
    leave_mark(run, MARK)
    _check_shares(worker, "", MARK, recomputes=False)
    with pytest.raises(SimsError, match="`recompute` with arms=pool wants workers that share the"):
        _check_shares(worker, "", MARK, recomputes=True)


@pytest.mark.parametrize(("run", "worker"), [(None, None), ("one", "two"), ("one", None)])
def test_where_neither_is_shared_the_worker_says_what_both_have(store, tmp_path, run, worker):
    leave_mark(store("run", run), MARK)
    with pytest.raises(SimsError, match="shares neither store nor bucket") as refused:
        _check_shares(store("worker", worker), "that of the run", MARK, recomputes=False)
    assert f"it has the store {tmp_path}/worker" in str(refused.value)
    assert "the run has that of the run" in str(refused.value)
    assert (f"file://{tmp_path}/{worker}" in str(refused.value)) == (worker is not None)


def test_a_run_that_left_no_mark_shares_nothing(store):
    with pytest.raises(SimsError, match="shares neither store nor bucket"):
        _check_shares(store("worker", "bucket"), "another", "", recomputes=False)
