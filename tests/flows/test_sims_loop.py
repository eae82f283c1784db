"""The flow in this process: what the cache does, and what Prefect is shown."""

from __future__ import annotations

import base64
import io
import json
import re
import shutil
from dataclasses import dataclass
from uuid import UUID

import pytest
from PIL import Image
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterId,
    LogFilter,
    LogFilterFlowRunId,
)
from prefect.client.schemas.objects import Artifact, FlowRun, TaskRun

from sims_core.store.store import Store


@pytest.fixture
def verify(sims):
    def run(store):
        done = sims("store", "verify", "--store", str(store))
        return done.returncode, done.stdout.splitlines()

    return run


def _artifacts(store):
    return {ref.location for ref in Store(store).artifacts()}


def _location(tiny_run, arm, t, role):
    generation = tiny_run.summary["arms"][arm]["generations"][t - 1]
    return generation["artifacts"][role]


def _figures(summary):
    return [arm.model_dump(mode="json", exclude_defaults=True) for arm in summary.arms]


def test_one_more_generation_computes_that_generation_alone(
    run_here, tiny_plan, tiny_store, tiny_run
):
    before = _artifacts(tiny_store)
    summary = run_here(tiny_store, generations="3")
    new = {stage.ref.location for stage in tiny_plan(generations="3") if stage.t == 3}
    assert _artifacts(tiny_store) - before == new
    assert summary.stages.computed == len(new)
    for arm, earlier in zip(summary.arms, tiny_run.summary["arms"], strict=True):
        first_two = [generation.model_dump() for generation in arm.generations[:2]]
        assert first_two == earlier["generations"]


def test_one_more_omega_computes_that_arm_alone(run_here, tiny_plan, tiny_store, tiny_run):
    before = _artifacts(tiny_store)
    summary = run_here(tiny_store, omegas="1,2")
    added = tiny_plan(omegas="1,2").arms[2]
    assert added.arm.name == "sims omega=2 |D_s|=32"
    new = {stage.ref.location for stage in added.stages} - before
    assert _artifacts(tiny_store) - before == new
    assert summary.stages.computed == len(new)
    # Of generation 1 it shares all training: G^1 is the first that omega changes.
    assert {stage.role for stage in added.stages if stage.ref.location in new and stage.t == 1} == {
        "generate",
        "preview",
        "features",
        "evaluate",
    }
    assert _figures(summary)[:2] == tiny_run.summary["arms"]


def test_deleted_and_damaged_artifacts_are_made_again_in_the_same_bytes(
    run_here, verify, bytes_of, tiny_store, tiny_run
):
    whole = bytes_of(tiny_store)
    deleted = _location(tiny_run, arm=0, t=1, role="train base")
    damaged = _location(tiny_run, arm=1, t=2, role="generate")
    assert (tiny_store / "results" / deleted.rpartition("/")[2]).exists(), "Prefect remembers it"
    assert (tiny_store / "results" / damaged.rpartition("/")[2]).exists()
    shutil.rmtree(tiny_store / deleted)
    shard = tiny_store / damaged / "images-00000.tar"
    content = bytearray(shard.read_bytes())
    content[1000] ^= 1
    shard.write_bytes(content)
    problem = f"{damaged}/images-00000.tar: content differs from its SHA-256"
    code, problems = verify(tiny_store)
    assert code == 1
    assert problem in problems
    record = f"records/{deleted.rpartition('/')[2]}.json"
    assert [line for line in problems if "missing" in line and record in line]
    assert [line for line in problems if line.endswith("leads to nothing")]

    summary = run_here(tiny_store)
    assert summary.stages.computed == 2
    assert _figures(summary) == tiny_run.summary["arms"]
    assert bytes_of(tiny_store) == whole
    assert verify(tiny_store) == (0, [f"31 artifacts in {tiny_store}: all whole"])


def test_the_store_does_not_depend_on_prefects_memory(run_here, tiny_store, tiny_run):
    for number, record in enumerate(sorted((tiny_store / "results").iterdir())):
        if number % 2:
            record.unlink()
        else:
            record.write_bytes(b"{")
    summary = run_here(tiny_store)
    assert summary.stages.computed == 0
    assert _figures(summary) == tiny_run.summary["arms"]


@dataclass(frozen=True)
class Seen:
    """A cached run as Prefect's API tells it."""

    flow_runs: dict[UUID, FlowRun]
    task_runs: list[TaskRun]
    artifacts: list[Artifact]

    @property
    def whole(self) -> str:
        """The name of the run, which is no arm."""
        (name,) = (run.name for run in self.flow_runs.values() if " of " not in run.name)
        return name

    def of(self, flow_run: str) -> dict[str, TaskRun]:
        """Task runs of the flow run of that name, by name; an arm's without its run's."""
        named = {run.name.split(" of ")[0]: run.id for run in self.flow_runs.values()}
        wanted = named[flow_run]
        return {task.name: task for task in self.task_runs if task.flow_run_id == wanted}


@pytest.fixture(scope="module")
def seen(run_here, wait_for, tiny_run, tmp_path_factory):
    store = tmp_path_factory.mktemp("seen") / "store"
    shutil.copytree(tiny_run.store, store, symlinks=True)
    with get_client(sync_client=True) as client:
        before = {run.id for run in client.read_flow_runs()}
        run_here(store)
        flow_runs = {run.id: run for run in client.read_flow_runs() if run.id not in before}
        of_these = FlowRunFilter(id=FlowRunFilterId(any_=list(flow_runs)))

        def task_runs():
            # 33 stages, the report and the two sub-flows; written down a moment after the run.
            found = client.read_task_runs(flow_run_filter=of_these, limit=200)
            return found if len(found) == 36 else None

        artifacts = client.read_artifacts(flow_run_filter=of_these, limit=200)
        return Seen(flow_runs, wait_for(task_runs, 30, interval=0.5), artifacts)


def test_each_arm_is_a_sub_flow_run_with_its_name_and_the_runs(seen, tiny_run):
    of_run = f"of {tiny_run.summary['run']}"
    arms = [f"sims omega=1 |D_s|=32 {of_run}", f"standard |D_s|=32 {of_run}"]
    parents = {run.name: run.parent_task_run_id for run in seen.flow_runs.values()}
    assert sorted(parents) == [seen.whole, *arms]
    assert seen.whole.startswith("digits generations=2 pollution_sizes=32 seed=0 training.kimg=0.5")
    assert parents[seen.whole] is None
    assert {parents[arm] for arm in arms} < {task.id for task in seen.of(seen.whole).values()}


def test_task_runs_carry_their_generation_in_name_and_tag(seen, tiny_plan):
    plan = tiny_plan()
    for arm in plan.arms:
        tasks = seen.of(arm.arm.name)
        assert set(tasks) == {stage.label for stage in arm.stages}
        for stage in arm.stages:
            assert set(tasks[stage.label].tags) == {f"generation:{stage.t}"}
    assert "t=01 train base" in seen.of("standard |D_s|=32")
    setup = seen.of(seen.whole)
    assert {stage.label for stage in plan.setup} < set(setup)
    assert set(setup["prepare data"].tags) == set()


def test_edges_join_the_stages_and_the_generations(seen, tiny_plan):
    """A task's inputs are the tasks that made its artifacts, also of the generation before."""
    arm = tiny_plan().arms[1]
    tasks = seen.of(arm.arm.name)
    names = {task.id: name for name, task in tasks.items()}
    maker = {stage.ref: stage.label for stage in arm.stages}
    drawn = {
        (names[source.id], name)
        for name, task in tasks.items()
        for sources in task.task_inputs.values()
        for source in sources
        if source.input_type == "task_run"
    }
    assert drawn == {
        (maker[ref], stage.label)
        for stage in arm.stages
        for ref in stage.request.inputs.values()
        if ref in maker
    }
    assert ("t=01 generate", "t=02 mix") in drawn
    assert ("t=01 train base", "t=01 fine-tune auxiliary") in drawn


def test_prefect_answers_from_its_cache(seen):
    stages = [task for task in seen.task_runs if task.name.startswith("t=")]
    assert {task.state.name for task in stages} == {"Cached"}


def test_results_are_shown_though_every_stage_was_in_the_store(seen, tiny_run):
    shown = {}
    for artifact in seen.artifacts:
        run = seen.flow_runs[artifact.flow_run_id].name
        shown.setdefault((run, artifact.key), []).append(artifact)
    name = tiny_run.summary["run"]
    whole = seen.whole
    expected = {(whole, f"{name}-{what}"): 1 for what in ("curves", "metrics", "report")}
    expected[whole, f"{name}-so-far"] = 4  # after each generation of each arm
    arms = {
        f"standard |D_s|=32 of {name}": "standard-ds-32",
        f"sims omega=1 |D_s|=32 of {name}": "sims-omega-1-ds-32",
    }
    for arm, slug in arms.items():
        expected |= {(arm, f"{name}-{slug}-{what}"): 2 for what in ("samples", "metrics")}
    assert {key: len(found) for key, found in shown.items()} == expected
    for number, (arm, slug) in enumerate(arms.items()):
        table = sorted(shown[arm, f"{name}-{slug}-metrics"], key=lambda row: row.created)[-1]
        rows = json.loads(table.data)
        generations = tiny_run.summary["arms"][number]["generations"]
        assert [row["t"] for row in rows] == [1, 2]
        for row, generation in zip(rows, generations, strict=True):
            assert row["fid"] == float(f"{generation['metrics']['fid']:.4g}")
        samples = shown[arm, f"{name}-{slug}-samples"][0].data
        png = base64.b64decode(re.search(r"base64,([^\"]+)", samples)[1])
        assert Image.open(io.BytesIO(png)).width > 300
    so_far = shown[whole, f"{name}-so-far"][0].data
    assert "All arms have ended." in so_far
    fids = [g["metrics"]["fid"] for arm in tiny_run.summary["arms"] for g in arm["generations"]]
    assert all(f"| {float(f'{fid:.4g}')} |" in so_far for fid in fids)
    png = base64.b64decode(re.search(r"base64,([^\"]+)", so_far)[1])
    assert Image.open(io.BytesIO(png)).width == 640
    (run,) = [run for run in seen.flow_runs.values() if run.name == whole]
    assert {"seed:0", "method:standard", "method:sims", "training.kimg=0.5"} <= set(run.tags)


def test_the_figures_stand_in_the_runs_log_and_in_the_arms(seen, tiny_run, wait_for):
    said = [
        f"{arm['name']}, t = {t} of 2: fid {generation['metrics']['fid']:.4g}"
        for arm in tiny_run.summary["arms"]
        for t, generation in enumerate(arm["generations"], 1)
    ]
    with get_client(sync_client=True) as client:

        def log_of(run):
            of_it = LogFilter(flow_run_id=LogFilterFlowRunId(any_=[run.id]))
            lines = [log.message.split(", kid")[0] for log in client.read_logs(of_it, limit=200)]
            return sorted(line for line in lines if ": fid " in line)

        for run in seen.flow_runs.values():
            arm, of_run, _ = run.name.partition(" of ")
            expected = sorted(line for line in said if not of_run or line.startswith(f"{arm}, "))
            assert len(expected) == (2 if of_run else 4)
            assert wait_for(lambda run=run, lines=expected: log_of(run) == lines, 30, interval=0.5)
