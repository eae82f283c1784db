"""Arms of workers that share nothing with their run but a bucket, of a real S3 server."""

from __future__ import annotations

import json

import pytest

pytestmark = pytest.mark.slow


def test_hosts_that_share_a_bucket_alone_make_what_one_process_makes(
    deployed, listening, seaweed, sims, started, bytes_of, tmp_path
):
    parent, alone, *own = (tmp_path / name for name in ("parent", "alone", "one", "two"))
    changes = {"seeds": "21", "generations": "1"}
    bucket = {**deployed.settings, **seaweed.settings}
    arguments = sims.run_arguments(parent, "--json", arms="pool", **changes)
    with (
        listening(1, SIMS_STORE=str(own[0]), **bucket),
        listening(1, SIMS_STORE=str(own[1]), **bucket),
    ):
        run = started(*arguments, PREFECT_API_URL=deployed.url, **bucket)
        out, err = run.communicate(timeout=300)
    assert run.returncode == 0, err
    assert "secret-of-the-test" not in out + err
    quiet = sims(*sims.run_arguments(alone, "--json", "--direct", **changes), **deployed.settings)
    assert quiet.returncode == 0, quiet.stderr
    found, expected = json.loads(out), json.loads(quiet.stdout)
    assert (found["run"], found["arms"]) == (expected["run"], expected["arms"])
    computed = [{**each["stages"], "seconds": 0} for each in (found, expected)]
    assert computed[0] == computed[1], "all of it computed, and none twice"
    assert bytes_of(parent) == bytes_of(alone)
    # Mostly each worker has an arm of its own, and takes from the bucket what both need.
    hosts = [bytes_of(store).items() for store in own]
    assert hosts[0] | hosts[1] == bytes_of(alone).items()
    # Another host that has the bucket finds all of it.
    again = sims.run_arguments(tmp_path / "later", "--json", "--direct", **changes)
    later = sims(*again, **bucket)
    assert later.returncode == 0, later.stderr
    assert json.loads(later.stdout)["stages"]["computed"] == 0


def test_a_worker_that_shares_neither_folder_nor_bucket_refuses_before_it_works(
    deployed, listening, sims, started, tmp_path
):
    worker, parent = tmp_path / "worker", tmp_path / "parent"
    done = sims("setup", SIMS_STORE=str(worker), PREFECT_API_URL=deployed.url)
    assert done.returncode == 0, done.stderr
    arguments = sims.run_arguments(parent, arms="pool", seeds="22", methods="standard")
    with listening(1, SIMS_STORE=str(worker)):
        run = started(*arguments, PREFECT_API_URL=deployed.url, **deployed.settings)
        _, err = run.communicate(timeout=300)
    assert run.returncode == 1
    assert "this worker shares neither store nor bucket with the run" in err
    assert f"it has the store {worker}, the run has the store {parent}; start" in err
    assert not list((worker / "artifacts").glob("*/*"))
