"""run.json says what it takes to make the figures again."""

import json
import platform
import shutil
import subprocess
from dataclasses import replace
from datetime import datetime, timedelta

import torch

from sims_core.engine.source import code_commit
from sims_core.reports.run_folder import RunToReport, write_run
from sims_core.settings import Settings
from sims_core.store.store import Store


def git(folder, *arguments):
    identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
    command = ["git", "-C", str(folder), *identity, *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def test_commit_is_that_of_the_clone(tmp_path):
    clone = tmp_path / "clone"
    clone.mkdir()
    git(clone, "init", "--quiet")
    (clone / "a.py").write_text("1")
    git(clone, "add", "a.py")
    git(clone, "commit", "--quiet", "-m", "a")
    git(clone, "tag", "v1")
    commit = git(clone, "rev-parse", "HEAD")
    assert code_commit(clone) == commit
    (clone / "a.py").write_text("2")
    assert code_commit(clone) == f"{commit}-dirty"
    (clone / "installed").mkdir()  # a package in a folder of somebody else's clone
    assert code_commit(clone / "installed") is None
    (clone / ".git" / "HEAD").write_text("garbage")
    assert code_commit(clone) is None


def test_run_json_has_all_of_it(tiny_run, tmp_path, monkeypatch):
    monkeypatch.setenv("SIMS_THREADS", "1")
    store = Store.open(shutil.copytree(tiny_run.store.root, tmp_path / "store", symlinks=True))
    parameters = {"preset": "digits", "seed": 7, "generations": 2}
    run = RunToReport("sims-loop", "tiny", "A run", parameters, tiny_run.plan, tiny_run.outcomes)
    write_run(store, run)
    found = json.loads((store.root / "runs/tiny/run.json").read_text())["provenance"]
    assert found["parameters"] == parameters
    assert found["experiment"] == tiny_run.plan.experiment.model_dump(mode="json")
    assert found["seeds"] == [7]
    assert found["libraries"]["torch"].partition("+")[0] == torch.__version__.partition("+")[0]
    assert found["libraries"]["python"] == platform.python_version()
    machine = found["machine"]
    assert (machine["host"], machine["threads"]) == (platform.node(), 1)
    assert machine["device"] == Settings.read().execution().device != "auto"
    assert machine["memory_bytes"] > 1 << 28
    records = [store.record(each.stage.ref) for each in tiny_run.outcomes]
    assert found["times"]["ended"] == max(record.finished for record in records)
    began, ended, written = (
        datetime.fromisoformat(found["times"][name]) for name in ("began", "ended", "written")
    )
    computed = sum(each.seconds for each in tiny_run.outcomes if not each.cached)
    assert computed - 2 < (ended - began).total_seconds() < (written - began).total_seconds() + 2


def test_times_are_of_what_the_run_computed_itself(tiny_run, tmp_path):
    """What it found in the store is of another day."""
    store = Store.open(shutil.copytree(tiny_run.store.root, tmp_path / "store", symlinks=True))

    def times(name, computed):
        outcomes = [
            replace(each, cached=each.stage.ref not in computed) for each in tiny_run.outcomes
        ]
        run = RunToReport("sims-loop", name, "A", {"preset": "digits"}, tiny_run.plan, outcomes)
        write_run(store, run)
        return json.loads((store.root / f"runs/{name}/run.json").read_text())["provenance"]["times"]

    arm = tiny_run.plan.arms[1]
    refs = {arm.stages[-2].ref, arm.stages[-1].ref}
    records = [store.record(ref) for ref in refs]
    begins = [
        datetime.fromisoformat(each.finished) - timedelta(seconds=each.seconds) for each in records
    ]
    found = times("some", refs)
    off = abs(datetime.fromisoformat(found["began"]) - min(begins))
    assert off < timedelta(milliseconds=1), "written to the millisecond"
    assert found["ended"] == max(each.finished for each in records)
    assert times("none", set()).keys() == {"written"}


def test_it_is_kept_with_the_run(tiny_run, tmp_path):
    """A second look at a run that has not changed says who drew it, and when."""
    store = Store.open(shutil.copytree(tiny_run.store.root, tmp_path / "store", symlinks=True))
    parameters = {"preset": "digits", "seed": 7}
    run = RunToReport("sims-loop", "x", "A", parameters, tiny_run.plan, tiny_run.outcomes)
    first = write_run(store, run)
    assert write_run(store, run).provenance == first.provenance
