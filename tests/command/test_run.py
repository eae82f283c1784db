"""What `sims run` promises to people and to programs."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pyarrow.parquet as pq

from sims_core.store.artifacts import ArtifactRef
from sims_core.store.store import Store

PROBE = """
import json, sys
from infra.cli.main import main
try:
    main()
finally:
    heavy = [name for name in ("torch", "torchvision", "diffusers") if name in sys.modules]
    print("imported:", json.dumps(heavy), file=sys.stderr)
"""


def _refs(summary: dict) -> set[str]:
    return {
        location
        for arm in summary["arms"]
        for generation in arm["generations"]
        for location in generation["artifacts"].values()
    }


def test_standard_output_is_one_json_object(tiny_run):
    assert tiny_run.stdout.count("\n") == 1
    summary = tiny_run.summary
    assert set(summary) == {
        *("run", "flow", "preset", "store", "report", "stages", "arms", "provenance")
    }
    assert (summary["flow"], summary["preset"]) == ("sims-loop", "digits")
    assert summary["store"] == str(tiny_run.store)
    assert set(summary["stages"]) == {"computed", "cached", "seconds"}
    assert [arm["name"] for arm in summary["arms"]] == [
        "standard |D_s|=32",
        "sims omega=1 |D_s|=32",
    ]
    for arm in summary["arms"]:
        assert [generation["t"] for generation in arm["generations"]] == [1, 2]
        for generation in arm["generations"]:
            assert set(generation) == {"t", "metrics", "artifacts"}
            assert {"fid", "kid", "precision", "recall"} <= set(generation["metrics"])
            assert generation["metrics"]["n_generated"] == 64


def test_progress_goes_to_standard_error_one_line_a_stage(tiny_run):
    stages = tiny_run.summary["stages"]
    total = stages["computed"] + stages["cached"]
    lines = [line for line in tiny_run.stderr.splitlines() if line.startswith("[")]
    assert len(lines) == total
    assert lines[-1].startswith(f"[{total}/{total}] sims omega=1 |D_s|=32: t=02 evaluate: ")
    assert sum(line.endswith(": cached") for line in lines) == stages["cached"]
    assert "Traceback" not in tiny_run.stderr


def test_what_was_computed_is_what_the_store_holds(tiny_run):
    """Stages that two arms share are computed once: t=01's mix and base."""
    store = Store(tiny_run.store)
    refs = store.artifacts()
    assert tiny_run.summary["stages"]["computed"] == len(refs)
    assert tiny_run.summary["stages"]["cached"] == 2
    assert _refs(tiny_run.summary) < {ref.location for ref in refs}
    assert all(store.is_whole(ref) for ref in refs)
    assert list((tiny_run.store / "progress").iterdir()) == []
    assert {path.name for path in (tiny_run.store / "results").iterdir()} == {
        ref.digest for ref in refs
    }, "Prefect's cache key of a stage is its artifact's digest"


def test_metrics_parquet_holds_the_figures_of_the_json(tiny_run):
    folder = tiny_run.store / "runs" / tiny_run.summary["run"]
    rows = {
        (row["arm"], row["t"]): row for row in pq.read_table(folder / "metrics.parquet").to_pylist()
    }
    expected = {
        (arm["name"], generation["t"]): generation["metrics"]
        for arm in tiny_run.summary["arms"]
        for generation in arm["generations"]
    }
    assert set(rows) == set(expected)
    for key, metrics in expected.items():
        columns = {name: "metric_seed" if name == "seed" else name for name in metrics}
        assert {name: rows[key][column] for name, column in columns.items()} == metrics
        assert rows[key]["seed"] == 0, "that of the run"
    assert json.loads((folder / "run.json").read_bytes()) == tiny_run.summary


def test_the_run_folder_leads_into_the_store(tiny_run):
    folder = tiny_run.store / "runs" / tiny_run.summary["run"]
    assert Path(tiny_run.summary["report"]) == folder / "report" / "index.html"
    page = Path(tiny_run.summary["report"]).read_text()
    assert all(arm["name"] in page for arm in tiny_run.summary["arms"])
    links = re.findall(r'<a href="([^"]*)">', page)
    assert len(links) == 8
    assert all((folder / "report" / link).is_file() for link in links)


def test_the_runs_latex_table_holds_its_figures(tiny_run):
    folder = tiny_run.store / "runs" / tiny_run.summary["run"]
    table = (folder / "report" / "table.tex").read_text()
    for arm in tiny_run.summary["arms"]:
        fids = [each["metrics"]["fid"] for each in arm["generations"]]
        (row,) = [line for line in table.splitlines() if line.strip().startswith(arm["name"][:4])]
        assert [float(number) for number in re.findall(r"\d+\.\d{3}", row)] == [
            float(f"{fid:.3f}") for fid in fids
        ]
    references = (folder / "report" / "references.bib").read_text()
    assert "alemohammad2024self" in references
    links = {path for path in folder.rglob("*") if path.is_symlink()}
    targets = {path.resolve().relative_to(tiny_run.store).as_posix() for path in links}
    assert targets == _refs(tiny_run.summary)
    base = folder / "arms" / "sims_omega1_D_s32" / "t=02" / "train_base"
    assert (base / "manifest.json").is_file()
    assert not base.readlink().is_absolute(), "a moved store would lose it"


def test_the_same_command_computes_nothing_without_torch_and_with_another_prefect(
    python, sims, tiny_store, tiny_run, prefect_url, monkeypatch
):
    """The store is moved and Prefect's database is new: neither matters to the cache."""
    monkeypatch.setenv("PREFECT_API_URL", prefect_url)
    before = {path: path.stat().st_mtime_ns for path in (tiny_store / "artifacts").rglob("*")}
    done = python(PROBE, *sims.run_arguments(tiny_store, "--json"))
    assert done.returncode == 0, done.stderr
    again = json.loads(done.stdout)
    assert again["stages"] == {"computed": 0, "cached": 33, "seconds": 0.0}
    assert again["arms"] == tiny_run.summary["arms"]
    assert again["run"] == tiny_run.summary["run"]
    assert "imported: []" in done.stderr.splitlines()
    after = {path: path.stat().st_mtime_ns for path in (tiny_store / "artifacts").rglob("*")}
    assert after == before


def test_a_third_generation_is_all_that_a_longer_run_would_compute(sims, tiny_run):
    done = sims(*sims.run_arguments(tiny_run.store, "--dry-run", "--json", generations="3"))
    planned = json.loads(done.stdout)
    labels = [row["stage"] for row in planned["plan"] if row["state"] == "compute"]
    assert len(labels) == planned["stages"]["computed"] == 6 + 9
    assert all(label.startswith("t=03 ") for label in labels)


def test_store_ls_lists_every_artifact(sims, tiny_run):
    listed = json.loads(sims("store", "ls", "--store", str(tiny_run.store), "--json").stdout)
    assert [(row["kind"], row["digest"]) for row in listed["artifacts"]] == [
        (ref.kind, ref.digest) for ref in Store(tiny_run.store).artifacts()
    ]
    row = next(row for row in listed["artifacts"] if row["stage"] == "prepare")
    folder = tiny_run.store / ArtifactRef(kind=row["kind"], digest=row["digest"]).location
    files = [path for path in folder.iterdir() if path.name != "manifest.json"]
    assert row["bytes"] == sum(path.stat().st_size for path in files)
    lines = sims("store", "ls", "--store", str(tiny_run.store)).stdout.splitlines()
    assert len(lines) == len(listed["artifacts"]) + 1
