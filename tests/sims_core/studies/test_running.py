"""The one runner: order, batches, what is told to whom, and going on after a failure."""

from __future__ import annotations

import shutil

import pytest

from sims_core import catalog
from sims_core.common.digest import digest_of
from sims_core.data.config import GaussianData
from sims_core.engine.execution import Execution
from sims_core.evaluation.config import PointEvaluationConfig
from sims_core.methods.sims import Sims
from sims_core.methods.standard import Standard
from sims_core.nets.config import ExactGaussianConfig, ModelConfig
from sims_core.store.store import Store
from sims_core.studies.experiment import Experiment
from sims_core.studies.loop import Arm, LoopKind, plan_loop
from sims_core.studies.running import Batch, Runner, batches

EXPERIMENT = Experiment(
    data=GaussianData(num_points=50, replicates=2),
    model=ModelConfig(net=ExactGaussianConfig()),
    sims=Sims(n_s=50),
    point_evaluation=PointEvaluationConfig(num_points=50, empirical_points=10, bootstrap=100),
)
ARMS = tuple(
    Arm(method=method, loop=LoopKind.fresh_data, pollution_size=20)
    for method in (Standard(), EXPERIMENT.sims)
)


@pytest.fixture
def plan():
    return plan_loop(EXPERIMENT, ARMS, generations=2, seed=0)


class Told:
    """An observer that writes down what it is told."""

    def __init__(self):
        self.started_, self.finished_, self.advanced_ = [], [], []

    def started(self, arm, label):
        self.started_.append((arm, label))

    def advanced(self, label, done, total, unit, **figures):
        self.advanced_.append((label, done, total, unit))

    def finished(self, arm, label, cached, seconds):
        self.finished_.append((arm, label, cached))


def labels(plan):
    return [(name, stage.label) for name, stages in plan.groups for stage in stages]


def test_every_stage_is_made_once_in_the_plans_order(store, plan):
    told = Told()
    whole, outcomes = Runner(store, Execution(), told).run_plan(plan)
    assert whole == plan
    assert [(each.arm, each.stage.label) for each in outcomes] == labels(plan)
    assert told.started_ == labels(plan)
    assert told.finished_ == [(each.arm, each.stage.label, each.cached) for each in outcomes]
    shared = [each for each in outcomes if each.cached]
    assert [each.stage.label for each in shared] == [
        *("t=01 mix", "t=01 train base", "t=02 fresh data")
    ]
    assert len(outcomes) - len(shared) == len(store.artifacts()) == len({s.ref for s in plan})
    assert all(store.is_whole(stage.ref) for stage in plan)
    _, again = Runner(store, Execution()).run_plan(plan)
    assert all(each.cached for each in again)
    assert [each.seconds for each in again] == [
        store.record(each.stage.ref).seconds for each in again
    ]


def test_a_generation_of_points_is_one_batch_and_images_are_many(plan, tiny_run):
    found = [(batch.t, len(batch.stages)) for batch in batches(plan.arms[1].stages)]
    assert found == [(1, 7 - 1), (2, 7)]  # t = 2 draws fresh data too
    assert [len(batch.stages) for batch in batches(plan.setup)] == [1] * len(plan.setup)
    images = tiny_run.plan.arms[1].stages
    assert [batch.stages for batch in batches(images)] == [(stage,) for stage in images]


def test_a_batch_says_what_it_is(plan):
    first, second = batches(plan.arms[0].stages)
    assert first.label == "t=01 mix to evaluate"
    assert second.label == "t=02 fresh data to evaluate"
    assert (first.name, second.name) == ("generation", "generation")
    assert first.digest == digest_of([stage.ref.digest for stage in first.stages])
    made = {stage.ref for stage in second.stages}
    given = {ref for stage in second.stages for ref in stage.request.inputs.values()}
    assert set(second.inputs) == given - made
    assert len(second.inputs) == len(set(second.inputs))
    sampled = next(s.ref for s in first.stages if s.role == "generate")
    assert sampled in second.inputs
    assert second.accelerated
    single = Batch((plan.setup[0],))
    assert (single.label, single.name) == (plan.setup[0].label, plan.setup[0].request.stage)
    assert single.digest == plan.setup[0].ref.digest
    assert not single.accelerated


def test_a_step_may_know_that_the_store_has_everything(store, plan):
    Runner(store, Execution()).run_plan(plan)
    told, asked = Told(), []
    runner = Runner(store, Execution(), told, lambda batch, work: asked.append(batch))
    _, outcomes = runner.run_plan(plan)
    assert len(asked) == len(plan.setup) + 4
    assert len(outcomes) == len(told.finished_) == len(labels(plan))
    assert all(each.cached for each in outcomes)


def test_a_batch_that_failed_goes_on_at_the_stage_that_failed(store, plan, monkeypatch):
    """As a retry of its task does: no stage is told of twice, but the one that failed."""
    real, failures = catalog.run_stage, ["once"]

    def fails_once(store, request, *arguments, **options):
        if request.stage == "generate_points" and failures:
            raise OSError(failures.pop())
        return real(store, request, *arguments, **options)

    monkeypatch.setattr(catalog, "run_stage", fails_once)
    told = Told()

    def retrying(batch, work):
        try:
            work("first")
        except OSError:
            work("second")

    _, outcomes = Runner(store, Execution(), told, retrying).run_plan(plan)
    assert [(each.arm, each.stage.label) for each in outcomes] == labels(plan)
    assert [each[:2] for each in told.finished_] == labels(plan)
    assert len(told.started_) == len(labels(plan)) + 1
    by_whom = {
        each.stage.label: store.record(each.stage.ref).computed_by
        for each in outcomes
        if each.stage.t == 1 and each.arm == "standard |D_s|=20"
    }
    assert by_whom == {
        "t=01 mix": "first",
        "t=01 train base": "first",
        "t=01 generate": "second",
        "t=01 evaluate": "second",
    }


def test_one_missing_stage_of_a_generation_is_all_that_is_computed(store, plan):
    Runner(store, Execution()).run_plan(plan)
    lost = next(s for s in plan.arms[1].stages if (s.t, s.role) == (2, "evaluate"))
    shutil.rmtree(store.path(lost.ref))
    _, outcomes = Runner(Store.open(store.root), Execution()).run_plan(plan)
    assert [each.stage for each in outcomes if not each.cached] == [lost]


def test_after_each_generation_it_says_so(store, plan):
    seen = []
    runner = Runner(store, Execution())
    runner.run("", plan.setup)
    stages = plan.arms[1].stages

    def after(t):
        seen.append((t, sum(store.is_whole(stage.ref) for stage in stages)))

    runner.run("sims", stages, after)
    assert seen == [(1, 6), (2, 13)]


def test_a_steps_progress_and_the_observers_are_told_alike(store, plan, monkeypatch):
    told, shown = Told(), []

    def computing(store, request, execution, *, computed_by, progress, anew):
        progress(1, 2, request.stage, loss=0.5)

    def step(batch, work):
        work("x", lambda done, total, unit, **figures: shown.append((unit, done, total, figures)))

    monkeypatch.setattr(catalog, "run_stage", computing)
    Runner(store, Execution(), told, step).run("", plan.setup)
    assert shown == [(s.request.stage, 1, 2, {"loss": 0.5}) for s in plan.setup]
    assert told.advanced_ == [(s.label, 1, 2, s.request.stage) for s in plan.setup]


def test_what_a_plan_adds_after_its_findings_runs_too(store, plan):
    """As a study that chooses its finals."""

    class Growing:
        groups = [("", plan.setup)]

        def __iter__(self):
            return iter([stage for _, stages in self.groups for stage in stages])

        def completed(self, store):
            grown = Growing()
            grown.groups = plan.groups[:2]
            return grown

    whole, outcomes = Runner(store, Execution()).run_plan(Growing())
    assert whole.groups == plan.groups[:2]
    assert [each.stage for each in outcomes] == [*plan.setup, *plan.arms[0].stages]
    names = []
    Runner(store, Execution()).run_plan(
        Growing(), lambda plan, groups: names.extend(name for name, _ in groups) or []
    )
    assert names == ["", plan.arms[0].arm.name]
