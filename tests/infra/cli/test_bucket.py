"""`sims store push`, `pull`, `verify --remote`, `du --remote`, `sims runs ls --remote`."""

import json
import shutil

import pytest

pytest.importorskip("obstore", reason="the extra sims-loop[remote] is not installed")


@pytest.fixture
def remote(tmp_path):
    return {"SIMS_REMOTE": f"file://{tmp_path}/bucket"}


def test_a_store_goes_to_a_bucket_and_comes_back_whole(
    sims, tiny_store, remote, bytes_of, tmp_path
):
    done = sims("store", "push", "--store", str(tiny_store), "--json", **remote)
    artifacts = len(list(tiny_store.glob("artifacts/*/*")))
    assert (done.returncode, json.loads(done.stdout)) == (
        0,
        {"artifacts": artifacts, "runs": 1, "damaged": 0},
    ), done.stderr

    done = sims("runs", "ls", "--remote", "--json", **remote)
    here = sims("runs", "ls", "--store", str(tiny_store), "--json")
    (there,), (run,) = (json.loads(each.stdout)["runs"] for each in (done, here))
    same = ("run", "state", "preset", "differs", "seeds", "figure")
    assert [there[name] for name in same] == [run[name] for name in same]

    used = json.loads(sims("store", "du", "--remote", "--json", **remote).stdout)
    assert sum(count for count, _ in used["kind"].values()) == artifacts
    assert used["unneeded"] == used["unfinished"] == 0

    other = tmp_path / "other"
    done = sims("store", "pull", run["run"], "--store", str(other), **remote)
    assert done.returncode == 0, done.stderr
    assert bytes_of(other) == bytes_of(tiny_store)
    assert sims("store", "verify", "--store", str(other)).returncode == 0
    report = f"runs/{run['run']}/report/index.html"
    assert (other / report).read_bytes() == (tiny_store / report).read_bytes()

    blob = max((tmp_path / "bucket/blobs").iterdir(), key=lambda path: path.stat().st_size)
    blob.write_bytes(blob.read_bytes()[:-1])
    done = sims("store", "verify", "--remote", **remote)
    assert done.returncode == 1
    assert f"blobs/{blob.name} is missing, cut or altered" in done.stdout
    shutil.rmtree(other)
    done = sims("store", "pull", "--store", str(other), **remote)
    assert done.returncode == 2
    assert "damaged or missing in the bucket" in done.stderr


def test_what_needs_a_bucket_says_how_one_is_named(sims, tmp_path):
    done = sims("store", "verify", "--remote")
    assert done.returncode == 2
    assert done.stderr == (
        "error: SIMS_REMOTE is not set: name a bucket as s3://bucket/prefix, gs://, az:// or "
        "file:///folder\n"
    )


WITHOUT = """
import sys
sys.modules["obstore"] = None
from infra.cli.main import main
main()
"""


def test_without_the_extra_the_setting_says_what_to_install(python, remote, monkeypatch):
    for name, value in remote.items():
        monkeypatch.setenv(name, value)
    done = python(WITHOUT, "store", "verify", "--remote")
    assert done.returncode == 2
    assert done.stderr == (
        "error: SIMS_REMOTE is set, and a bucket needs obstore: pip install 'sims-loop[remote]'\n"
    )


CACHED = """
import sys
from infra.cli.runs import check_run, execute
summary = execute(check_run(sys.argv[1], sys.argv[2:]))
names = ("obstore", "sims_core.store.remote", "sims_core.reports.remote_runs")
print(summary.stages.computed, [name for name in names if name in sys.modules])
"""


def test_without_the_setting_a_cached_run_imports_nothing_of_it(
    python, tiny_store, sims, monkeypatch
):
    monkeypatch.setenv("SIMS_STORE", str(tiny_store))
    preset, *words = sims.run_arguments(tiny_store)[1:-2]
    done = python(CACHED, preset, *[word for word in words if word != "-p"])
    assert done.stdout.splitlines()[-1] == "0 []", done.stderr


def test_the_command_line_starts_without_it(python):
    done = python(
        "import sys, infra.cli.main; print([n for n in sys.modules if 'obstore' in n or"
        " n.startswith(('sims_core.store', 'sims_core.reports'))])"
    )
    assert done.stdout.strip() == "[]", done.stderr
