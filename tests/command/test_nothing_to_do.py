"""A run that has nothing to do takes no time: no Prefect, no torch, no drawing."""

from __future__ import annotations

import json
import os
import shutil

import pytest

PROBE = """
import json, sys
from infra.cli.main import main
try:
    main()
finally:
    heavy = ("torch", "torchvision", "diffusers", "prefect", "matplotlib", "scipy")
    print("imported:", json.dumps([m for m in heavy if m in sys.modules]), file=sys.stderr)
"""


@pytest.fixture
def cached(python, sims):
    """Runs the tiny run on a store that has all of it; says its summary and what was imported."""

    def run(store, *options, **changes):
        done = python(PROBE, *sims.run_arguments(store, "--json", *options, **changes))
        assert done.returncode == 0, done.stderr
        (line,) = [line for line in done.stderr.splitlines() if line.startswith("imported: ")]
        return json.loads(done.stdout), json.loads(line.removeprefix("imported: "))

    return run


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A Prefect home of its own, in which an API would leave its database."""
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path / "prefect"))
    return tmp_path / "prefect"


def report_of(store, summary):
    folder = store / "runs" / summary["run"]
    return folder, {
        path.relative_to(folder).as_posix(): (path.read_bytes(), path.stat().st_mtime_ns)
        for path in folder.rglob("*")
        if path.is_file() and path.name != "run.json" and "arms" not in path.parts
    }


def test_nothing_heavy_is_imported_and_the_report_is_kept(cached, home, tiny_store, tiny_run):
    first, _ = cached(tiny_store)  # drawn for the store's new place
    folder, drawn = report_of(tiny_store, first)
    again, imported = cached(tiny_store)
    assert imported == []
    assert not home.exists(), "no API was started"
    assert again["stages"] == {"computed": 0, "cached": 33, "seconds": 0.0}
    assert again["arms"] == first["arms"] == tiny_run.summary["arms"]
    assert report_of(tiny_store, again)[1] == drawn
    assert json.loads((folder / "run.json").read_bytes()) == again


@pytest.mark.parametrize("options", [["--direct"], ["--dry-run"]])
def test_no_other_way_imports_more(cached, tiny_store, options):
    cached(tiny_store)
    before = sorted(tiny_store.rglob("*")) if options == ["--dry-run"] else None
    _, imported = cached(tiny_store, *options)
    assert imported == []
    assert before is None or sorted(tiny_store.rglob("*")) == before


def damage_page(folder):
    (folder / "report" / "index.html").write_text("spoilt")


def lose_figure(folder):
    next(folder.glob("report/*.png")).unlink()


def lose_table(folder):
    (folder / "metrics.parquet").unlink()


def lose_link(folder):
    next(path for path in folder.rglob("*") if path.is_symlink()).unlink()


def forget(folder):
    (folder / "report" / "drawn.json").write_text("{}")


@pytest.mark.parametrize("spoil", [damage_page, lose_figure, lose_table, lose_link, forget])
def test_a_report_that_is_not_whole_is_drawn_again(cached, tiny_store, spoil):
    first, _ = cached(tiny_store)
    folder, drawn = report_of(tiny_store, first)
    links = {path for path in folder.rglob("*") if path.is_symlink()}
    spoil(folder)
    again, imported = cached(tiny_store)
    assert "matplotlib" in imported
    assert again["stages"]["computed"] == 0
    found = report_of(tiny_store, again)[1]
    assert {name: content for name, (content, _) in found.items() if name.endswith(".png")} == {
        name: content for name, (content, _) in drawn.items() if name.endswith(".png")
    }
    assert set(found) == set(drawn)
    assert {path for path in folder.rglob("*") if path.is_symlink()} == links


def test_an_artifact_that_was_made_again_has_its_report_drawn_again(cached, tiny_store, tiny_run):
    first, _ = cached(tiny_store)
    lost = tiny_run.summary["arms"][0]["generations"][1]["artifacts"]["evaluate"]
    shutil.rmtree(tiny_store / lost)
    again, imported = cached(tiny_store, "--direct")
    assert again["stages"]["computed"] == 1
    assert "matplotlib" in imported
    assert "prefect" not in imported
    page = (tiny_store / "runs" / again["run"] / "report" / "index.html").read_text()
    assert "1 computed" in page
    assert again["arms"] == first["arms"]


def test_where_a_server_is_named_the_run_is_recorded_there(
    sims, tiny_store, prefect_url, monkeypatch
):
    from prefect.client.orchestration import get_client

    with get_client(sync_client=True) as client:
        before = {run.id for run in client.read_flow_runs()}
        done = sims(*sims.run_arguments(tiny_store, "--json"), PREFECT_API_URL=prefect_url)
        assert done.returncode == 0, done.stderr
        names = {run.name for run in client.read_flow_runs() if run.id not in before}
    assert any(name.startswith("digits generations=2 ") for name in names)
    assert json.loads(done.stdout)["stages"]["computed"] == 0


def test_commands_that_only_list_import_nothing_heavy(python, tiny_store):
    for arguments in (["presets"], ["store", "ls", "--store", str(tiny_store)], ["--help"]):
        done = python(PROBE, *arguments, env={**os.environ})
        assert done.stderr.splitlines()[-1] == "imported: []", arguments
