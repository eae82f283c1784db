"""A loop over seeds: figures with intervals, paired differences, the page and the lines."""

from __future__ import annotations

import json

import numpy as np
import pytest
from scipy import stats

from sims_core.data.config import GaussianData
from sims_core.engine.execution import Execution
from sims_core.evaluation.config import PointEvaluationConfig
from sims_core.methods.sims import Sims
from sims_core.methods.standard import Standard
from sims_core.nets.config import ExactGaussianConfig, ModelConfig
from sims_core.reports.bands import differences
from sims_core.reports.base import RunDetails, report_of
from sims_core.reports.curves import curves
from sims_core.reports.estimates import estimate
from sims_core.reports.loop import LOOP
from sims_core.reports.over_seeds import as_row, verdict
from sims_core.reports.page import metric_rows, render_report
from sims_core.reports.summary import (
    ArmSummary,
    GenerationSummary,
    RunSummary,
    count_stages,
    result_lines,
)
from sims_core.store.store import Store
from sims_core.studies.experiment import Experiment
from sims_core.studies.loop import Arm, LoopKind, plan_loop
from sims_core.studies.running import Runner

EXPERIMENT = Experiment(
    data=GaussianData(covariance=((2.0, 1.0), (1.0, 2.0)), num_points=50, replicates=3),
    model=ModelConfig(net=ExactGaussianConfig()),
    sims=Sims(omega=1.0, n_s=100),
    point_evaluation=PointEvaluationConfig(num_points=100, empirical_points=20, bootstrap=100),
)
SEEDS = (4, 9, 2)


def arm(method, size=50):
    return Arm(method=method, loop=LoopKind.fully_synthetic, pollution_size=size)


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """(store, plan, outcomes, summary) of two arms, two scanned generations, three seeds."""
    store = Store.open(tmp_path_factory.mktemp("seeds") / "store")
    arms = arm(Standard()), arm(EXPERIMENT.sims)
    plan = plan_loop(EXPERIMENT, arms, 2, SEEDS[0], scan=arms, further_seeds=SEEDS[1:])
    plan, outcomes = Runner(store, Execution(threads=1)).run_plan(plan)
    summary = RunSummary(
        **{"run": "s", "flow": "sims-loop", "preset": "g", "store": str(store.root), "report": "r"},
        stages=count_stages(outcomes),
        **report_of(plan).findings(store, plan),
    )
    return store, plan, outcomes, summary


def w2(rows, name, t):
    """The figure of each seed in the run's order."""
    by_seed = {row["seed"]: row["w2"] for row in rows if (row["arm"], row["t"]) == (name, t)}
    return [by_seed[seed] for seed in SEEDS]


def test_every_seed_has_its_row_and_the_curves_are_over_them(done):
    store, plan, _, summary = done
    rows = metric_rows(store, summary, plan)
    assert len(rows) == 2 * 2 * 3
    assert summary.seeds == SEEDS
    assert [curve.name for curve in summary.curves] == [
        "standard |D_s|=50",
        "sims omega=1 |D_s|=50",
    ]
    for curve in summary.curves:
        for point in curve.points:
            values = w2(rows, curve.name, point.x)
            assert len(set(values)) == 3, "models of different seeds differ"
            found = point.figures["w2"]
            assert found == estimate(values)
            low, high = stats.t.interval(
                0.95, 2, loc=np.mean(values), scale=stats.sem(values, ddof=1)
            )
            assert (found.low, found.high) == pytest.approx((low, high))
            assert found.std == pytest.approx(np.std(values, ddof=1))


def test_a_difference_is_paired_with_the_baseline_of_the_same_seed_and_generation(done):
    store, plan, _, summary = done
    rows = metric_rows(store, summary, plan)
    standard, guided = summary.curves
    assert [point.change for point in standard.points] == [None, None]
    for point in guided.points:
        ours, theirs = (w2(rows, curve.name, point.x) for curve in (guided, standard))
        expected = stats.ttest_rel(ours, theirs).confidence_interval(0.95)
        assert (point.change.low, point.change.high) == pytest.approx(tuple(expected))
        assert point.change.mean == pytest.approx(np.mean(ours) - np.mean(theirs))


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ([-1.0, -1.2, -0.9], "better"),
        ([1.0, 1.2, 0.9], "worse"),
        ([-1.0, 1.2, -0.9], "no difference shown"),
        ([-5.0], "one seed shows no interval"),
    ],
)
def test_a_verdict_is_what_the_interval_shows(values, words):
    assert verdict(estimate(values)) == words


def test_the_answer_and_the_lines_carry_intervals(done):
    _, _, _, summary = done
    change = summary.curves[1].points[-1].change
    assert summary.answer.startswith("sims omega=1 |D_s|=50: W2 ")
    assert f"at t = 2, {change.signed} against standard |D_s|=50" in summary.answer
    assert verdict(change) in summary.answer
    answer, standard, guided = result_lines(summary)
    assert answer == summary.answer
    found = summary.curves[0].points[1].figures["w2"]
    assert f"{found.mean:.3f} [{found.low:.3f}, {found.high:.3f}] over 3 seeds at 2" in standard
    assert "(n = 100, " in guided


def test_the_page_shows_bands_changes_and_every_seed(done, tmp_path):
    store, plan, outcomes, summary = done
    details = RunDetails("Seeds", {"seeds": list(SEEDS)}, plan, outcomes)
    page = render_report(store, summary, details, tmp_path)
    assert (tmp_path / "over_seeds.png").read_bytes().startswith(b"\x89PNG")
    assert "Over 3 seeds" in page
    assert "seeds 4, 9, 2" in page
    assert summary.answer in page
    for curve in summary.curves:
        for point in curve.points:
            found = point.figures["w2"]
            assert f"{found.mean:.3f} [{found.low:.3f}, {found.high:.3f}]" in page
            for value in found.values:
                assert f"{value:.3f}" in page
    assert page == render_report(store, summary, details)


def test_a_panel_of_differences_is_drawn_where_an_arm_has_a_baseline(done):
    curves = done[3].curves
    assert [len(differences(some, "w2").axes) for some in (curves, curves[:1])] == [2, 1]


def test_scans_are_of_each_seed_against_the_standard_of_the_same(done):
    _, _, _, summary = done
    assert [(point.seed, point.omega) for point in summary.scan] == [
        (seed, omega) for seed in SEEDS for omega in (0, 1)
    ]
    for standard, guided in zip(summary.scan[::2], summary.scan[1::2], strict=True):
        assert standard.ratio == (1, 1, 1)
        ratio = guided.metrics["w2"] / standard.metrics["w2"]
        assert guided.ratio[0] == pytest.approx(ratio)


def test_arms_of_a_seed_are_those_of_a_run_with_that_seed_alone_on_the_same_data(done):
    _, plan, _, _ = done
    alone = plan_loop(EXPERIMENT, (arm(Standard()), arm(EXPERIMENT.sims)), 2, SEEDS[0])
    assert plan.of_seed(SEEDS[0]).setup == alone.setup
    for ours, theirs in zip(plan.of_seed(SEEDS[0]).arms, alone.arms, strict=True):
        assert ours.stages == theirs.stages
        assert (ours.name, theirs.name) == (f"{theirs.arm.name} seed=4", theirs.arm.name)


def test_of_a_run_that_goes_on_a_point_is_over_the_seeds_that_are_so_far(done, tmp_path):
    store, plan, outcomes, whole = done
    ends = (2, 2, 1, 2, 1, 1)  # standard and SIMS of each seed
    made = {stage.ref for stage in plan.setup}
    for planned, end in zip(plan.arms, ends, strict=True):
        made |= {stage.ref for stage in planned.stages if stage.t <= end}
    so_far = LOOP.so_far(plan, made)
    assert so_far is not None
    found = report_of(so_far).findings(store, so_far)
    summary = whole.model_copy(update={"scan": (), "unfinished": "some", **found})
    assert len(metric_rows(store, summary, so_far)) == sum(ends)
    standard, guided = (curve.points for curve in summary.curves)
    before, sims_before = (curve.points for curve in whole.curves)
    assert (standard[0], guided[0]) == (before[0], sims_before[0])
    assert standard[1].figures["w2"].values == before[1].figures["w2"].values[:1]
    assert guided[1].figures["w2"].values == sims_before[1].figures["w2"].values[:2]
    assert guided[1].change.values == sims_before[1].change.values[:1]
    ends_at = [arm.convergence.last for arm in summary.arms]
    assert ends_at == [2, 2, 1, 1, 1, 1], "what both the arm and its baseline have"
    page = render_report(store, summary, RunDetails("x", {}, so_far, outcomes), tmp_path)
    assert "each point is over those seeds that have ended" in page
    assert "mean of 1 seed<" in page
    assert len(differences(summary.curves, "w2").axes[1].lines[0].get_xdata()) == 2


def test_one_seed_says_nothing_of_seeds(tmp_path):
    plan = plan_loop(EXPERIMENT, (arm(Standard()),), 1, 3)
    store = Store.open(tmp_path / "store")
    plan, _ = Runner(store, Execution(threads=1)).run_plan(plan)
    findings = report_of(plan).findings(store, plan)
    assert set(findings) == {"figure", "arms", "scan"}
    (found,) = findings["arms"]
    assert "seed" not in json.loads(found.model_dump_json(exclude_defaults=True))
    assert found.name == "standard |D_s|=50"


def test_the_metrics_own_seed_is_not_taken_for_the_runs():
    row = as_row(5, {"fid": 1.0, "seed": 77, "n_generated": 3})
    assert row == {"seed": 5, "fid": 1.0, "metric_seed": 77, "n_generated": 3}


def test_a_ratio_to_nothing_is_not_drawn():
    def of_seed(seed, recalls):
        metrics = {"fid": 2.0, "kid": 0.1, "kid_std": 0.1, "precision": 0.5}
        generations = tuple(
            GenerationSummary(t=t, metrics={**metrics, "recall": recall}, artifacts={})
            for t, recall in enumerate(recalls, start=1)
        )
        return ArmSummary(name=f"standard seed={seed}", seed=seed, generations=generations)

    figure = curves([of_seed(0, (0.5, 0.25)), of_seed(1, (0.0, 0.1))])
    by_title = {axes.get_title().split(" (")[0]: axes for axes in figure.axes[:4]}
    ratios = dict(zip(by_title, figure.axes[4:], strict=True))
    (line,) = by_title["Recall"].get_lines()
    assert list(line.get_ydata()) == pytest.approx([0.25, 0.175])
    assert [each.get_linestyle() for each in ratios["Recall"].get_lines()] == ["--"], "of 1 only"
    (line, _) = ratios["FID"].get_lines()
    assert list(line.get_ydata()) == [1, 1]
