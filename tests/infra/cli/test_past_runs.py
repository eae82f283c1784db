"""`sims runs` on what a real run left."""

import json
import shlex

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from infra.cli.past_runs import _comparison_lines, _differs, _given, _line, _row, _shown
from infra.cli.runs import check_run
from sims_core.reports.past_runs import PastRun
from sims_core.reports.side_by_side import compare_runs


def test_a_run_is_listed_and_shown(sims, tiny_run):
    done = sims("runs", "ls", "--store", str(tiny_run.store), "--json")
    assert done.returncode == 0, done.stderr
    (row,) = json.loads(done.stdout)["runs"]
    assert (row["preset"], row["state"]) == ("sims-loop/digits", "finished")
    assert row["seeds"] == [0]
    assert row["differs"]["training.kimg"] == 0.5
    assert (row["differs"]["generations"], row["differs"]["pollution_sizes"]) == (2, [32])
    assert "omegas" not in row["differs"]
    last = tiny_run.summary["arms"][-1]["generations"][-1]["metrics"]["fid"]
    assert f"{last:.3f}" in row["figure"]
    shown = sims("runs", "show", row["run"], "--store", str(tiny_run.store)).stdout
    assert "commit" in shown
    assert "-p training.kimg=0.5" in shown
    assert "-p 'model.net.block_out_channels=[8, 16]'" in shown


def test_the_options_that_are_shown_ask_for_the_same_again(tmp_path):
    preset = "sims-loop/gaussian2d-quick"
    texts = ['model.net={"kind": "exact_gaussian"}', "scan_omegas=[]", "omegas=0.5,1"]
    asked = check_run(preset, [*texts, "run_name=x"]).parameters
    content = {"flow": "sims-loop", "preset": preset.partition("/")[2]}
    content["provenance"] = {"parameters": asked, "seeds": [0]}
    (tmp_path / "run.json").write_text(json.dumps(content))
    dash, *options = shlex.split(_given(_differs(PastRun(tmp_path))))
    assert {dash, *options[1::2]} == {"-p"}
    assert check_run(preset, options[::2]).parameters == asked


def test_an_unfinished_run_has_not_ended(tmp_path):
    times = {"began": "2026-01-01T10:00", "ended": "2026-01-01T11:00", "written": "later"}
    content = {"preset": "digits", "provenance": {"times": times}}
    (tmp_path / "run.json").write_text(json.dumps(content))
    rows = [{"arm": "x", "t": 1, "seed": 0, "metric_seed": 1, "w2": 1.0}]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "metrics.parquet")
    told = "began 2026-01-01T10:00, {} 2026-01-01T11:00, written later"
    assert _shown(PastRun(tmp_path))["times"] == told.format("ended")
    (tmp_path / "run.json").write_text(json.dumps({**content, "unfinished": "2 of 9 stages"}))
    assert _shown(PastRun(tmp_path))["times"] == told.format("latest stage ended")


def test_budgets_are_in_kimg_as_well(tmp_path):
    """Beside the options, which stay as they are typed."""
    preset = "sims-loop/gaussian2d-quick"
    for name, budget in (("a", 0.0064), ("b", 0.012)):
        asked = check_run(preset, [f"sims.budget_mimg={budget}", "scan_budgets=0.0032,1"])
        content = {"flow": "sims-loop", "preset": preset.partition("/")[2]}
        content["provenance"] = {"parameters": asked.parameters, "seeds": [0]}
        (tmp_path / name).mkdir()
        (tmp_path / name / "run.json").write_text(json.dumps(content))
        rows = [{"arm": "x", "t": 1, "seed": 0, "metric_seed": 1, "w2": budget}]
        pq.write_table(pa.Table.from_pylist(rows), tmp_path / name / "metrics.parquet")
    runs = [PastRun(tmp_path / name) for name in "ab"]
    asked, _, told = _line(_row(runs[0])).splitlines()[1].rpartition("; seed 0; ")
    assert told == "scan_budgets is 3.2, 1000 kimg, sims.budget_mimg is 6.4 kimg"
    assert asked.endswith("-p scan_budgets=0.0032,1 -p sims.budget_mimg=0.0064")
    said = _comparison_lines(compare_runs(runs))
    assert "differs: sims.budget_mimg: 0.0064 (6.4 kimg) | 0.012 (12 kimg)" in said


def test_runs_are_compared(sims, tiny_store, tiny_run, tmp_path):
    """A run and a copy that says another seed, as if it had been made with that."""
    (folder,) = (tiny_store / "runs").iterdir()
    copy = tiny_store / "runs" / "copy"
    copy.mkdir()
    content = json.loads((folder / "run.json").read_text())
    content["provenance"]["seeds"] = content["provenance"]["parameters"]["seeds"] = [1]
    (copy / "run.json").write_text(json.dumps(content))
    table = pq.read_table(folder / "metrics.parquet")
    pq.write_table(table, copy / "metrics.parquet")
    out = tmp_path / "out"
    names = (folder.name, "copy", "--store", str(tiny_store), "--out", str(out))
    done = sims("runs", "compare", *names, "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert [path for path in found["files"] if path.endswith("figure.pdf")] == [
        str(out / "figure.pdf")
    ]
    fids = [row["fid"] for row in table.to_pylist()]
    assert [row["fid"] for row in found["table"]] == pytest.approx(fids)
    assert (out / "index.html").read_text().count("data:image/png;base64") == 2
    text = sims("runs", "compare", *names[:-2]).stdout
    assert f"{fids[0]:.3f}" in text


def test_a_run_is_removed_and_its_artifacts_stay(sims, tiny_store, bytes_of):
    (folder,) = (tiny_store / "runs").iterdir()
    before = bytes_of(tiny_store)
    done = sims("runs", "rm", folder.name, "--yes", "--store", str(tiny_store))
    assert done.returncode == 0, done.stderr
    assert not folder.exists()
    assert bytes_of(tiny_store) == before
    done = sims("runs", "rm", folder.name, "--yes", "--store", str(tiny_store))
    assert done.returncode == 2
    assert "runs: none yet" in done.stderr
