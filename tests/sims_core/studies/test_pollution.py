"""Pollution: what is shared, what is hidden from training, what the report says."""

from __future__ import annotations

import json
from collections import Counter

import pytest
import torch

from sims_core.catalog import run_stage
from sims_core.common.errors import BadInput
from sims_core.data.config import GaussianData
from sims_core.engine.execution import Execution
from sims_core.methods.standard import Standard
from sims_core.nets.config import ExactGaussianConfig, ModelConfig
from sims_core.nets.exact_gaussian import load_gaussian
from sims_core.reports.base import RunDetails, report_of
from sims_core.reports.estimates import estimate
from sims_core.reports.page import metric_rows, render_report
from sims_core.reports.summary import RunSummary, count_stages
from sims_core.store.store import Store
from sims_core.studies.experiment import Experiment
from sims_core.studies.pollution import plan_pollution
from sims_core.studies.running import Outcome


@pytest.fixture
def methods(tiny_experiment):
    return (Standard(), tiny_experiment.sims)


def _stages(plan, role):
    return [stage for stage in plan if stage.role == role]


def test_no_stage_is_planned_twice(tiny_experiment, methods):
    plan = plan_pollution(tiny_experiment, methods, (16, 32, 48), (7, 8))
    counts = Counter(stage.ref for stage in plan)
    assert set(counts.values()) == {1}
    # One first generation a seed; one base a seed and |D_p| (0 among them), for both methods.
    assert len(_stages(plan, "train base")) == 2 * (1 + 4)
    assert len(_stages(plan, "fine-tune auxiliary")) == 2 * 4
    assert len({stage.ref for stage in plan if stage.t == 0}) == 3, "data and evaluation: once"


def test_smaller_sets_are_the_beginnings_of_the_largest(tiny_experiment, methods):
    plan = plan_pollution(tiny_experiment, methods, (16, 100), (7,))
    (generated,) = {each["generate"] for each in plan.first}
    first = next(s for s in plan.first[0].stages if s.role == "generate")
    assert first.request.config["count"] == 100, "more than are measured"
    mixes = {s.request.digest: s.request for s in _stages(plan, "mix")}
    polluted = [r for r in mixes.values() if "synthetic" in r.inputs]
    assert {r.inputs["synthetic"] for r in polluted} == {generated}
    assert sorted(r.config["parts"][1]["count"] for r in polluted) == [16, 100]


def test_what_is_added_computes_only_its_own(tiny_experiment, methods):
    before = {stage.ref for stage in plan_pollution(tiny_experiment, methods, (16, 32), (7,))}

    def new(*changed):
        return [s for s in plan_pollution(tiny_experiment, *changed) if s.ref not in before]

    another_size = new(methods, (16, 24, 32), (7,))
    assert [s.role for s in another_size if s.role.startswith("train")] == ["train base"]
    assert {s.t for s in another_size} == {2}
    another_seed = new(methods, (16, 32), (7, 8))
    assert {s.t for s in another_seed} == {1, 2}, "data and evaluation are shared"
    stronger = tiny_experiment.sims.model_copy(update={"omega": 2.0})
    another_method = new((*methods, stronger), (16, 32), (7,))
    assert {s.request.stage for s in another_method} == {"generate", "features", "evaluate"}


def test_nothing_of_the_provenance_reaches_training(tiny_experiment, methods):
    """A training's configuration and inputs name the mix only; the same mix of data that are all
    called real gives the same batches (test_mixing holds what a training reads of a mix)."""
    plan = plan_pollution(tiny_experiment, methods, (16,), (7,))
    for stage in plan:
        if stage.request.stage != "train":
            continue
        assert set(stage.request.inputs) <= {"data", "initial"}
        assert "synthetic" not in json.dumps(stage.request.config)


def test_mistakes_are_named(tiny_experiment, methods):
    with pytest.raises(BadInput, match=r"seeds must be at least one and all different, got \[1, 1"):
        plan_pollution(tiny_experiment, methods, (16,), (1, 1))
    with pytest.raises(BadInput, match="methods must be at least one"):
        plan_pollution(tiny_experiment, (), (16,), (1,))
    with pytest.raises(BadInput, match=r"pollution_sizes must be from 0 to .*got -1"):
        plan_pollution(tiny_experiment, methods, (-1,), (1,))


@pytest.fixture(scope="module")
def gaussian_run(tmp_path_factory):
    """Exact models of a Gaussian: what training does is known."""
    experiment = Experiment(
        data=GaussianData(num_points=400, replicates=24),
        model=ModelConfig(net=ExactGaussianConfig()),
        sims={"n_s": 400, "budget_mimg": 0.001, "omega": 1.0},
        point_evaluation={"num_points": 2000, "empirical_points": 50},
    )
    plan = plan_pollution(experiment, (Standard(), experiment.sims), (400, 1600), (1, 2, 3))
    store, outcomes = Store.open(tmp_path_factory.mktemp("pollution") / "store"), []
    for stage in plan:
        run_stage(store, stage.request, Execution(threads=1))
        outcomes.append(Outcome("", stage, False, 0.1))
    summary = RunSummary(
        **{"run": "p", "flow": "pollution", "preset": "g", "store": str(store.root), "report": "r"},
        stages=count_stages(outcomes),
        **report_of(plan).findings(store, plan),
    )
    return store, plan, outcomes, summary


def test_each_figure_is_the_mean_of_its_seeds(gaussian_run):
    store, plan, _, summary = gaussian_run
    rows = metric_rows(store, summary, plan)
    assert len(rows) == 3 + 3 * 3 * 2
    for curve in summary.curves[1:]:
        for point in curve.points:
            values = [
                row["w2"]
                for row in rows
                if (row["model"], row["pollution"]) == (curve.name, point.x)
                and row["scenario"] != "first generation"
            ]
            assert point.figures["w2"] == estimate(values)
    assert {row["seed"] for row in rows} == {1, 2, 3}


def test_pollution_adds_the_noise_of_one_more_estimate(gaussian_run):
    """The oracle. The maximum-likelihood Gaussian of n real points has a mean that is off by
    tr(C) / n on average (squared). With m points of *its own* distribution added, the fit's mean is
    off by tr(C) (1 / n + w^2 / m) with w = m / (n + m): more points, and still further away."""
    store, plan, _, summary = gaussian_run
    n = plan.experiment.data.num_points

    def off(each) -> float:
        model = load_gaussian(store.open_artifact(each["train base"]))
        return float((model.mean**2).sum(-1).mean())

    for size in (0, 400, 1600):
        w = size / (n + size)
        expected = 2 * (1 / n + (w**2 / size if size else 0))
        chosen = [
            off(each)
            for each in plan.second
            if each.scenario.pollution == size and each.scenario.method.IS_BASELINE
        ]
        # 3 seeds share their real data: 24 independent draws of it.
        assert sum(chosen) / 3 == pytest.approx(expected, rel=0.45), size
    ideal, *_, worst = (point.figures["w2"].mean for point in summary.curves[1].points)
    assert worst > ideal


def test_the_slope_of_polluted_standard_training(tmp_path):
    """The exact-model oracle. To first order the squared W2 of a Gaussian fitted to k points of
    N(0, I) in d dimensions is E |mean|^2 + E |covariance - I|^2 / 4 = (d + (d^2 + d) / 4) / k.
    With m samples of the first model beside the n real points the fit has the error of the first
    one and, with weight w = m / (n + m), that of one more fit to m points: ST-P rises by w^2 / m =
    m / (n + m)^2 times the same constant, which is steepest at m = 0 and highest at m = n."""
    n, sizes, d = 400, (100, 400, 1600), 2
    experiment = Experiment(
        data=GaussianData(num_points=n, replicates=1200),
        model=ModelConfig(net=ExactGaussianConfig()),
        sampler={"num_steps": 64},  # the sampler's own error is none of this
        point_evaluation={"num_points": 100, "empirical_points": 10},
    )
    plan = plan_pollution(experiment, (Standard(),), sizes, (5,))
    store = Store.open(tmp_path / "store")
    models = ("prepare data", "mix", "train base")
    for stage in plan:
        if stage.role in models or (stage.t, stage.role) == (1, "generate"):
            run_stage(store, stage.request, Execution(threads=1))

    def squared_w2(each) -> torch.Tensor:
        model = load_gaussian(store.open_artifact(each["train base"]))
        roots = torch.linalg.eigvalsh(model.covariance).sqrt()
        return (model.mean**2).sum(-1) + ((roots - 1) ** 2).sum(-1)

    found = {each.scenario.pollution: squared_w2(each) for each in plan.second}
    constant = d + (d**2 + d) / 4
    assert float(found[0].mean()) == pytest.approx(constant / n, rel=0.1)
    for m in sizes:
        rise = found[m] - found[0]  # the same real data: what both share drops out
        error = float(rise.std()) / len(rise) ** 0.5
        expected = constant * m / (n + m) ** 2
        assert float(rise.mean()) == pytest.approx(expected, abs=4 * error + 0.05 * expected), m
        assert 4 * error < 0.7 * expected, "it could fail"


def test_the_page_shows_every_curve_and_change(gaussian_run):
    store, plan, outcomes, summary = gaussian_run
    details = RunDetails("Pollution", {"seeds": [1, 2, 3], "seed": 1}, plan, outcomes)
    page = render_report(store, summary, details)
    assert page == render_report(store, summary, details)
    for curve in summary.curves:
        assert curve.name in page
        for point in curve.points:
            assert f"{point.figures['w2'].mean:.3f}" in page
    assert summary.curves[1].points[0].change is None, "the ideal baseline itself"
    assert summary.answer in page.replace("&#39;", "'")
    printed = json.loads(summary.model_dump_json(exclude_defaults=True))
    assert [len(curve["points"]) for curve in printed["curves"]] == [1, 3, 3]
