"""The flow in this process: two phases, their edges, and the cache, with Prefect and without."""

from __future__ import annotations

import json
import shutil

import pyarrow.parquet as pq
import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterId,
    LogFilter,
    LogFilterFlowRunId,
)

from infra.cli.runs import check_run, dry_run_of, execute_directly

PRESET = "self-improvement/digits"
STUDY = {
    "omegas": "1,2",
    "budgets": "0.00025,0.0005",
    "n_s": "32",
    "select_images": "32",
    "final_images": "48",
    "finalists": "1",
    "run_name": "study",
}
COUNT = 3 + 6 + 7 * 3 + 3 * 4
"""Setup; base to snapshot; base, two contrasts and four cells; three finals."""


@pytest.fixture(scope="module")
def checked(tiny_texts):
    """The tiny study, checked."""

    def check(**changes):
        return check_run(PRESET, tiny_texts(STUDY, **changes))

    return check


@pytest.fixture(scope="module")
def done(prefect_url, checked, tmp_path_factory):
    """Through the flow, in an empty store: (store, summary, Prefect's new flow runs)."""
    from flows.self_improvement import self_improvement

    store = tmp_path_factory.mktemp("study") / "store"
    with pytest.MonkeyPatch.context() as patch, get_client(sync_client=True) as client:
        patch.setenv("SIMS_STORE", str(store))
        before = {run.id for run in client.read_flow_runs()}
        summary = self_improvement(**checked().parameters)
        runs = [run for run in client.read_flow_runs() if run.id not in before]
    return store, summary, runs


def test_the_second_run_computes_nothing_and_finds_the_same(done, checked, monkeypatch):
    """Without Prefect this time: the same artifacts, the same report."""
    store, summary, _ = done
    assert summary.stages.computed == COUNT
    monkeypatch.setenv("SIMS_STORE", str(store))
    page = (store / "runs" / "study" / "report" / "index.html").read_text()
    again = execute_directly(checked())
    assert (again.stages.computed, again.stages.cached) == (0, COUNT)
    assert (again.arms, again.scan, again.answer) == (summary.arms, summary.scan, summary.answer)
    assert summary.answer in page.replace("&#39;", "'")


def test_a_dry_run_knows_the_finals_once_the_selection_is_there(done, checked, monkeypatch):
    store, _, _ = done
    monkeypatch.setenv("SIMS_STORE", str(store))
    planned = json.loads(dry_run_of(checked()).json())
    assert planned["stages"] == {"computed": 0, "cached": COUNT}
    more = json.loads(dry_run_of(checked(omegas="1,2,3")).json())
    assert more["stages"] == {"computed": 2 * 3, "cached": COUNT - 12, "undecided": 12}
    text = "\n".join(dry_run_of(checked(omegas="1,2,3")).lines())
    assert "then 12 stages that depend on what these find" in text


def test_the_files_of_the_run_hold_its_figures(done):
    store, summary, _ = done
    folder = store / "runs" / "study"
    assert json.loads((folder / "run.json").read_text())["answer"] == summary.answer
    rows = pq.read_table(folder / "metrics.parquet").to_pylist()
    finals = {row["model"]: row["fid"] for row in rows if row["phase"] == "final"}
    assert finals == {arm.name: arm.generations[0].metrics["fid"] for arm in summary.arms}
    assert (folder / "training" / "snapshot_B0.25k" / "net").is_dir()
    assert (folder / "final" / "base" / "preview" / "grid.png").is_file()


def test_tasks_have_speaking_names_and_edges_across_the_phases(done, wait_for):
    _, summary, (run,) = done
    assert run.name.startswith("digits omegas=1,2 budgets=0.00025,0.0005 n_s=32 select_images=32 ")
    of_it = FlowRunFilter(id=FlowRunFilterId(any_=[run.id]))
    with get_client(sync_client=True) as client:

        def task_runs():
            found = client.read_task_runs(flow_run_filter=of_it, limit=200)
            return found if len(found) == COUNT + 1 else None

        tasks = wait_for(task_runs, 30, interval=0.5)
    names = {task.id: task.name for task in tasks}
    inputs = {
        (task.name, names.get(each.id))
        for task in tasks
        for group in task.task_inputs.values()
        for each in group
        if hasattr(each, "id")
    }
    finalist = summary.arms[2].name
    assert ("snapshot B=0.25k", "fine-tune auxiliary") in inputs
    assert ("sims omega=1 B=0.25k: generate", "snapshot B=0.25k") in inputs
    assert (f"{finalist}: generate", "train base") in inputs
    assert (f"{finalist}: evaluate", "real features") in inputs


def test_the_page_shows_the_selection_then_the_finals_as_far_as_they_are(done, checked, on_its_way):
    run = on_its_way(done[0], checked(run_name="study-on-its-way"))
    page = run.through("sims omega=1 B=0.25k: evaluate")
    shown = [(row["phase"], row["model"]) for row in run.rows]
    first = ["base", "fine-tuned B=0.25k", "sims omega=1 B=0.25k"]
    assert shown == [("selection", name) for name in first]
    assert "Selection: strength and budget" in page
    assert "At full n" not in page
    final = run.whole.finals[1]
    run.through(f"{final.name}: features")  # the selection's
    page = run.through(f"{final.name}: evaluate")
    assert "At full n" not in page
    run.through("base: preview")
    page = run.through(f"{final.name}: evaluate")
    assert "At full n" in page
    finals = [row["model"] for row in run.rows if row["phase"] == "final"]
    assert finals == ["base", final.name]
    assert (run.folder / "final" / "base" / "preview" / "grid.png").is_file()
    ended = run.finish()
    shutil.rmtree(run.folder)
    assert run.finish() == ended


def test_the_log_has_the_figures_of_each_measurement(done, wait_for):
    store, _, (run,) = done
    of_it = LogFilter(flow_run_id=LogFilterFlowRunId(any_=[run.id]))
    rows = pq.read_table(store / "runs" / "study" / "metrics.parquet").to_pylist()
    expected = {f"{row['phase']}, {row['model']}: fid {row['fid']:.4g}" for row in rows}
    assert len(expected) == 7 + 3
    with get_client(sync_client=True) as client:

        def said():
            logs = client.read_logs(of_it, limit=200)
            found = {log.message.split(", kid")[0] for log in logs}
            return expected <= found

        assert wait_for(said, 30, interval=0.5)
