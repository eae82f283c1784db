"""The pollution flow in this process: shared work, speaking names, the report, with Prefect and
without."""

from __future__ import annotations

import json
import shutil

import pyarrow.parquet as pq
import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId

from infra.cli.runs import check_run, dry_run_of, execute_directly
from sims_core.common.errors import BadInput

STUDY = {
    "pollution_sizes": "16,48",
    "methods": "standard,sims,neon,fine_tuned",
    "omegas": "1",
    "ws": "0.5",
    "seeds": "0,1",
    "run_name": "polluted",
}
METHODS = ("standard", "sims omega=1", "neon w=0.5", "fine-tuned on S")
MODELS = 3 * 2
"""Second-generation bases: 0, 16 and 48 polluting images, two seeds."""


@pytest.fixture(scope="module")
def checked(tiny_texts):
    def check(**changes):
        return check_run("pollution/digits", tiny_texts(STUDY, **changes))

    return check


@pytest.fixture(scope="module")
def done(prefect_url, checked, tmp_path_factory):
    """Through the flow, in an empty store: (store, summary, Prefect's new flow runs)."""
    from flows.pollution import pollution

    store = tmp_path_factory.mktemp("pollution") / "store"
    with pytest.MonkeyPatch.context() as patch, get_client(sync_client=True) as client:
        patch.setenv("SIMS_STORE", str(store))
        before = {run.id for run in client.read_flow_runs()}
        summary = pollution(**checked().parameters)
        runs = [run for run in client.read_flow_runs() if run.id not in before]
    return store, summary, runs


def test_no_stage_is_computed_twice(done, checked):
    store, summary, _ = done
    plan = checked().plan
    assert summary.stages.computed == len(list(plan)) == len({stage.ref for stage in plan})
    assert summary.stages.cached == 0
    manifests = store.glob("artifacts/*/*/manifest.json")
    stages = [json.loads(path.read_text())["request"]["stage"] for path in manifests]
    # A base for each first and second generation, an auxiliary that three methods share.
    assert stages.count("train") == 2 + MODELS + MODELS
    assert stages.count("merge") == MODELS


def test_the_second_run_computes_nothing_and_a_method_only_its_own(done, checked, monkeypatch):
    store, summary, _ = done
    monkeypatch.setenv("SIMS_STORE", str(store))
    again = execute_directly(checked())
    assert again.stages.computed == 0
    assert again.curves == summary.curves
    more = json.loads(dry_run_of(checked(ws="0.5,1")).json())
    # merge, generate, preview, features, evaluate of each
    assert more["stages"]["computed"] == 5 * MODELS


def test_the_files_of_the_run_hold_its_figures(done):
    store, _, _ = done
    folder = store / "runs" / "polluted"
    printed = json.loads((folder / "run.json").read_text())
    assert printed["seeds"] == [0, 1]
    rows = pq.read_table(folder / "metrics.parquet").to_pylist()
    assert len(rows) == 2 + 4 * MODELS
    assert {row["seed"] for row in rows} == {0, 1}
    (standard,) = [curve for curve in printed["curves"] if curve["name"] == "standard"]
    for point in standard["points"]:
        values = [
            row["fid"]
            for row in rows
            if row["model"] == "standard" and row["pollution"] == point["x"]
        ]
        assert point["figures"]["fid"]["values"] == values
        assert point["figures"]["fid"]["n"] == 2
    page = (folder / "report" / "index.html").read_text()
    assert "neon w=0.5" in page
    assert (folder / "report" / "figure.png").is_file()
    assert (folder / "models" / "sims_omega1_D_p48_seed1" / "generate").is_dir()


def test_tasks_have_speaking_names(done, wait_for):
    _, _, (run,) = done
    of_it = FlowRunFilter(id=FlowRunFilterId(any_=[run.id]))
    with get_client(sync_client=True) as client:

        def names():
            found = {task.name for task in client.read_task_runs(flow_run_filter=of_it, limit=200)}
            return found if len(found) > 60 else None

        found = wait_for(names, 30, interval=0.5)
    assert "first generation seed=0: train base" in found
    assert "standard |D_p|=48 seed=1: train base" in found
    assert "neon w=0.5 ideal seed=0: merge" in found


def test_the_pages_have_samples_of_each_model_and_figures_with_their_costs(done):
    _, summary, (run,) = done
    of_it = FlowRunFilter(id=FlowRunFilterId(any_=[run.id]))
    with get_client(sync_client=True) as client:
        found = {each.key: each for each in client.read_artifacts(flow_run_filter=of_it, limit=200)}
    samples = [each for key, each in found.items() if key.endswith("-samples")]
    assert len(samples) == 1 + 3 * 4, "the first seed's"
    assert all("data:image/png;base64," in each.data for each in samples)
    rows = json.loads(found["polluted-metrics"].data)
    assert len(rows) == 1 + 3 * 4
    points = [(curve, point) for curve in summary.curves for point in curve.points]
    for row, (curve, point) in zip(rows, points, strict=True):
        assert (row["model"], row["at"], row["seeds"]) == (curve.name, point.x, 2)
        assert row["fid"] == point.brief("fid")
        assert (row["nfe"], row["n_generated"]) == (curve.cost.evaluations, 64)
        assert row["extra_training_percent"] == curve.cost.extra_training_percent
    assert "neon w=0.5" in found["polluted-curves"].data


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seeds": "1,-2"}, "parameter seeds.1: .*greater than or equal to 0, got -2"),
        ({"pollution_sizes": "-1"}, "parameter pollution_sizes.0: .*got -1"),
        ({"ws": "-1.5"}, "parameter ws.0: must be at least -1, which is the auxiliary .*got -1.5"),
        (
            {"methods": "neon", "sims.auxiliary_net": '{"block_out_channels": [8, 8]}'},
            "neon merges the weights .* one architecture: leave sims.auxiliary_net out",
        ),
        ({"methods": "ddo"}, "parameter methods.0: no method 'ddo'; there are: standard"),
    ],
)
def test_mistakes_are_named_before_any_work(checked, changes, message):
    with pytest.raises(BadInput, match=message):
        checked(**changes)


def test_the_page_is_there_after_each_model_and_the_last_is_as_if_it_were_the_only_one(
    done, checked, on_its_way
):
    run = on_its_way(done[0], checked(run_name="polluted-on-its-way"))
    assert not run.folder.exists()
    page = run.through("sims omega=1 |D_p|=16 seed=0: evaluate")
    assert {(row["model"], row["pollution"], row["seed"]) for row in run.rows} == {
        ("first generation", 0, 0),
        ("first generation", 0, 1),
        *((m, n, 0) for m in METHODS for n in (0, 16)),
    }
    assert "The run goes on" in page
    assert "48</td>" not in page, "no point of it"
    run.through("standard ideal seed=1: evaluate")
    curves = json.loads((run.folder / "run.json").read_text())["curves"]
    seeds = [[point["figures"]["fid"]["n"] for point in curve["points"]] for curve in curves]
    assert seeds == [[2], [2, 1, 1], [1, 1, 1], [1, 1, 1], [1, 1, 1]]
    ended = run.finish()
    shutil.rmtree(run.folder)
    assert run.finish() == ended
