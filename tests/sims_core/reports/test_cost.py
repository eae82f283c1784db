"""Cost: exact for every method, counted and not believed."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from sims_core.data.config import GaussianData
from sims_core.engine.execution import Execution
from sims_core.methods.autoguidance import Autoguidance
from sims_core.methods.fine_tuned import FineTuned
from sims_core.methods.neon import Neon
from sims_core.methods.sims import Sims
from sims_core.methods.standard import Standard
from sims_core.nets.build import build_net
from sims_core.nets.config import ExactGaussianConfig, MLPConfig, ModelConfig, UNetConfig
from sims_core.reports.base import RunDetails, report_of
from sims_core.reports.cost import arm_cost
from sims_core.reports.page import metric_rows, render_report
from sims_core.reports.summary import RunSummary, arm_line, count_stages, curve_line
from sims_core.store.store import Store
from sims_core.studies.experiment import Experiment
from sims_core.studies.loop import Arm, LoopKind, plan_loop
from sims_core.studies.pollution import plan_pollution
from sims_core.studies.running import Runner
from sims_core.training.config import TrainingConfig

BASE = MLPConfig(replicates=2, hidden_features=8, hidden_layers=2)
SMALL = MLPConfig(replicates=2, hidden_features=4, hidden_layers=1)
RECIPE = {"n_s": 40, "budget_mimg": 0.00064, "batch_size": 32}
EXPERIMENT = Experiment(
    data=GaussianData(covariance=((2, 1), (1, 2)), num_points=60, replicates=2),
    model=ModelConfig(net=BASE, sigma_data=1.4),
    training=TrainingConfig(kimg=3.2, batch_size=32),
    sims=Sims(**RECIPE),
    sampler={"num_steps": 5},
    point_evaluation={"num_points": 50, "empirical_points": 10, "bootstrap": 100},
)
METHODS = (
    Standard(),
    Sims(**RECIPE),
    Sims(**RECIPE, interval=(0.1, 10)),
    Neon(**RECIPE),
    FineTuned(**RECIPE),
    Autoguidance(kimg=0.8),
    Autoguidance(kimg=1.6, net=SMALL, omega=0.5),
    Autoguidance(kimg=3.2, omega=2),
)


def size(net):
    return sum(parameter.numel() for parameter in build_net(net).parameters())


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    store = Store.open(tmp_path_factory.mktemp("cost") / "store")
    loop = LoopKind.synthetic_augmentation
    arms = tuple(Arm(method=method, loop=loop, pollution_size=20) for method in METHODS)
    plan = plan_loop(EXPERIMENT, arms, 2, 3)
    _, outcomes = Runner(store, Execution(threads=1)).run_plan(plan)
    summary = RunSummary(
        **{"run": "cost", "flow": "sims-loop", "preset": "toy", "store": "", "report": ""},
        stages=count_stages(outcomes),
        **report_of(plan).findings(store, plan),
    )
    return store, plan, outcomes, summary


def test_every_method_says_what_it_costs(ran):
    """Heun, 5 steps: 9 evaluations, at 80 once, at 17.5, 2.5, 0.17 and 0.002 twice: of these four
    are in [0.1, 10]."""
    *_, summary = ran
    levels = [level for level in EXPERIMENT.sampler.levels if 0.1 <= level <= 10]
    assert len(levels) == 2
    whole, small = size(BASE), size(SMALL)
    expected = {
        "standard": (9, 0, 0, whole),
        "sims omega=1": (18, 20, 40, 2 * whole),
        "sims omega=1 sigma=0.1..10": (13, 20, 40, 2 * whole),
        "neon w=1": (9, 20, 40, whole),
        "fine-tuned on S": (9, 20, 40, whole),
        "autoguidance omega=1": (18, 25, 0, 2 * whole),
        "autoguidance omega=0.5": (18, 50 * small / whole, 0, whole + small),
        "autoguidance omega=2": (18, 0, 0, 2 * whole),
    }
    found = {arm.name.removesuffix(" |D_s|=20"): arm.cost for arm in summary.arms}
    assert found.keys() == expected.keys()
    for name, (evaluations, extra, samples, weights) in expected.items():
        cost = found[name]
        assert cost.evaluations == evaluations, name
        assert cost.extra_training_percent == pytest.approx(extra), name
        assert (cost.extra_samples, cost.weights) == (samples, weights), name


def test_it_stands_beside_the_figures(ran):
    store, plan, outcomes, summary = ran
    line = arm_line(summary.arms[2], "w2")
    assert "; 13 evaluations a sample, 20 % extra training, 40 extra samples, " in line
    printed = json.loads(summary.model_dump_json(exclude_defaults=True))
    assert printed["arms"][0]["cost"] == {
        "evaluations": 9,
        "extra_training_percent": 0.0,
        "extra_samples": 0,
        "weights": size(BASE),
    }
    rows = metric_rows(store, summary, plan)
    assert [row["nfe"] for row in rows[:6:2]] == [9, 18, 13]
    page = render_report(store, summary, RunDetails("Cost", {"seed": 3}, plan, outcomes))
    assert "What each method costs" in page
    assert f"<td>13</td><td>20 %</td><td>40</td><td>{2 * size(BASE):,}</td>" in page


def test_pollution_says_it_too(tmp_path):
    store = Store.open(tmp_path / "store")
    plan = plan_pollution(EXPERIMENT, (Standard(), Autoguidance(kimg=0.8)), (20,), (0, 1))
    _, outcomes = Runner(store, Execution(threads=1)).run_plan(plan)
    summary = RunSummary(
        **{"run": "cost", "flow": "pollution", "preset": "toy", "store": "", "report": ""},
        stages=count_stages(outcomes),
        **report_of(plan).findings(store, plan),
    )
    first, standard, guided = summary.curves
    assert first.cost == standard.cost
    assert (guided.cost.evaluations, guided.cost.extra_training_percent) == (18, 25)
    assert "18 evaluations a sample, 25 % extra training" in curve_line(guided, "w2")
    assert {row["nfe"] for row in metric_rows(store, summary, plan)} == {9, 18}
    details = RunDetails("Cost", {"seeds": [0, 1]}, plan, outcomes)
    assert "<td>18</td><td>25 %</td>" in render_report(store, summary, details)


def test_images_count_what_they_store(tiny_run):
    standard, sims = (arm_cost(tiny_run.store, arm.stages) for arm in tiny_run.plan.arms)
    net = UNetConfig(block_out_channels=(8, 16), norm_num_groups=4)
    assert standard.weights == size(net)
    assert (sims.weights, sims.evaluations) == (2 * size(net), 14)
    steps = {"base": -(-2000 // 32), "auxiliary": -(-256 // 32)}
    expected = 100 * steps["auxiliary"] / steps["base"]
    assert sims.extra_training_percent == pytest.approx(expected)


def test_what_is_not_known_is_not_said(ran, tmp_path):
    """An exact Gaussian has no network; of an imported base the training is not known."""
    exact = EXPERIMENT.model_copy(update={"model": ModelConfig(net=ExactGaussianConfig())})
    loop = LoopKind.synthetic_augmentation
    plan = plan_loop(exact, (Arm(method=exact.sims, loop=loop, pollution_size=20),), 1, 3)
    store = Store.open(tmp_path / "store")
    Runner(store, Execution(threads=1)).run_plan(plan)
    cost = arm_cost(store, plan.arms[0].stages)
    assert (cost.evaluations, cost.extra_training_percent, cost.weights) == (0, None, 0)
    assert "extra training not known" in str(cost)
    store, plan, *_ = ran
    imported = [
        replace(stage, role="imported base") if stage.role == "train base" else stage
        for stage in plan.arms[1].stages
    ]
    assert arm_cost(store, imported).extra_training_percent is None
    assert arm_cost(store, ()) is None
