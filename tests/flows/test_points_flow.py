"""A loop of points in Prefect: a generation is one task, whose stages are resumed one by one."""

from __future__ import annotations

import shutil

import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId

from infra.cli.runs import check_run
from sims_core.store.store import Store

TEXTS = [
    *("generations=3", "omegas=1", "pollution_sizes=20", "scan_omegas=[]", "run_name=points"),
    *('model.net={"kind":"exact_gaussian"}', "data.replicates=2", "data.num_points=50"),
    *("sims.n_s=50", "point_evaluation.num_points=50", "point_evaluation.empirical_points=10"),
]
ARMS = ["standard |D_s|=20", "sims omega=1 |D_s|=20"]


@pytest.fixture(scope="module")
def checked():
    return check_run("sims-loop/gaussian2d-quick", TEXTS)


@pytest.fixture(scope="module")
def run_points(prefect_url, checked, wait_for):
    """Runs the flow; returns its summary and the new task runs of each flow run by its name."""
    from flows.sims_loop import sims_loop

    def run(store):
        with pytest.MonkeyPatch.context() as patch, get_client(sync_client=True) as client:
            patch.setenv("SIMS_STORE", str(store))
            before = {run.id for run in client.read_flow_runs()}
            summary = sims_loop(**checked.parameters)
            found = [run for run in client.read_flow_runs() if run.id not in before]
            runs = {run.id: run.name.removesuffix(" of points") for run in found}
            of_these = FlowRunFilter(id=FlowRunFilterId(any_=list(runs)))

            def settled():
                # Two of the setup, three generations of two arms, two sub-flows, the report.
                found = client.read_task_runs(flow_run_filter=of_these, limit=200)
                return found if len(found) == 2 + 6 + 2 + 1 else None

            tasks = {name: [] for name in runs.values()}
            for task in wait_for(settled, 30, interval=0.5):
                tasks[runs[task.flow_run_id]].append(task)
        return summary, tasks

    return run


@pytest.fixture(scope="module")
def done(run_points, tmp_path_factory):
    store = tmp_path_factory.mktemp("points") / "store"
    return store, *run_points(store)


def test_a_generation_is_one_task_that_says_which(done):
    _, _, tasks = done
    for arm in ARMS:
        assert {task.name for task in tasks[arm]} == {
            f"t={t:02d} mix to evaluate" for t in (1, 2, 3)
        }
        for task in tasks[arm]:
            assert set(task.tags) == {f"generation:{int(task.name[2:4])}"}
    (whole,) = tasks.keys() - set(ARMS)
    assert whole.startswith("gaussian2d-quick generations=3 omegas=1 pollution_sizes=20 ")
    setup = {task.name for task in tasks[whole]}
    assert {"prepare data", "reference"} < setup


def test_the_graph_has_edges_from_generation_to_generation(done):
    _, _, tasks = done
    for arm in ARMS:
        names = {task.id: task.name for task in tasks[arm]}
        edges = {
            (names[source.id], task.name)
            for task in tasks[arm]
            for sources in task.task_inputs.values()
            for source in sources
            if source.input_type == "task_run" and source.id in names
        }
        first, second, third = (f"t={t:02d} mix to evaluate" for t in (1, 2, 3))
        assert edges == {(first, second), (second, third)}


def test_the_report_counts_stages_not_tasks(done, checked):
    store, summary, _ = done
    stages = list(checked.plan)
    assert summary.stages.computed + summary.stages.cached == len(stages)
    assert summary.stages.computed == len({stage.ref for stage in stages})
    assert all(Store(store).is_whole(stage.ref) for stage in stages)


def test_a_lost_stage_is_made_alone_and_the_other_generations_are_prefects(
    done, run_points, checked, tmp_path
):
    store = tmp_path / "store"
    shutil.copytree(done[0], store, symlinks=True)
    lost = next(
        stage for stage in checked.plan.arms[1].stages if (stage.t, stage.role) == (2, "evaluate")
    )
    shutil.rmtree(Store(store).path(lost.ref))
    summary, tasks = run_points(store)
    assert summary.stages.computed == 1
    assert summary.arms == done[1].arms
    states = {task.name[:4]: task.state.name for task in tasks[ARMS[1]]}
    assert states == {"t=01": "Cached", "t=02": "Completed", "t=03": "Cached"}


def test_what_is_to_be_computed_anew_is_not_taken_from_prefects_memory(
    done, run_points, checked, tmp_path, monkeypatch
):
    store, first, _ = done
    copy = tmp_path / "store"
    shutil.copytree(store, copy, symlinks=True)
    trained = {stage.ref for stage in checked.plan if stage.request.stage == "train"}
    before = {ref: Store(copy).record(ref).finished for ref in trained}
    monkeypatch.setenv("SIMS_RECOMPUTE", "train")
    summary, _ = run_points(copy)
    assert summary.stages.computed == len(trained)  # the same bytes: nothing follows
    assert all(Store(copy).record(ref).finished > finished for ref, finished in before.items())
    assert summary.arms == first.arms
