"""The report of a run on points: figure files, verdicts, scan, the same bytes twice."""

import pytest

from sims_core.catalog import run_stage
from sims_core.data.config import GaussianData
from sims_core.engine.execution import Execution
from sims_core.evaluation.config import PointEvaluationConfig
from sims_core.methods.sims import Sims
from sims_core.methods.standard import Standard
from sims_core.nets.config import ExactGaussianConfig, ModelConfig
from sims_core.reports.base import RunDetails, report_of
from sims_core.reports.page import render_report
from sims_core.reports.summary import RunSummary, arm_line, count_stages
from sims_core.store.store import Store
from sims_core.studies.experiment import Experiment
from sims_core.studies.loop import Arm, LoopKind, plan_loop
from sims_core.studies.running import Outcome

LOOP = LoopKind.synthetic_augmentation
EXPERIMENT = Experiment(
    data=GaussianData(covariance=((2.0, 1.0), (1.0, 2.0)), num_points=50, replicates=4),
    model=ModelConfig(net=ExactGaussianConfig(sampling_bias=0.8)),
    sims=Sims(omega=1.0, n_s=200),
    point_evaluation=PointEvaluationConfig(num_points=200, empirical_points=20, bootstrap=200),
)


@pytest.fixture(scope="module")
def rendered(tmp_path_factory):
    root = tmp_path_factory.mktemp("points")
    store = Store.open(root / "store")
    guided = EXPERIMENT.sims
    scan = [Standard(), guided, guided.model_copy(update={"omega": 3.0})]
    plan = plan_loop(
        EXPERIMENT,
        tuple(
            Arm(method=method, loop=LOOP, pollution_size=size)
            for size in (20, 50)
            for method in (Standard(), guided)
        ),
        3,
        0,
        tuple(Arm(method=method, loop=LOOP, pollution_size=20) for method in scan),
    )
    outcomes = []
    for stage in plan:
        run_stage(store, stage.request, Execution())
        outcomes.append(Outcome("", stage, False, 0.1))
    summary = RunSummary(
        run="a-run",
        flow="sims-loop",
        preset="some<preset",
        store=str(store.root),
        report="index.html",
        stages=count_stages(outcomes),
        **report_of(plan).findings(store, plan),
    )
    details = RunDetails("A title", {"seed": 0, "preset": "p"}, plan, outcomes)
    return store, summary, details, render_report(store, summary, details, root), root


def test_the_figure_is_there_as_png_svg_and_pdf(rendered):
    root = rendered[-1]
    for name in ("figure", "clouds"):
        assert (root / f"{name}.png").read_bytes().startswith(b"\x89PNG")
        assert "<svg" in (root / f"{name}.svg").read_text()
        assert (root / f"{name}.pdf").read_bytes().startswith(b"%PDF")


def test_the_page_holds_every_verdict_and_the_floor(rendered):
    _, summary, _, page, _ = rendered
    for arm in summary.arms:
        assert arm.convergence.verdict in page
        assert f"{arm.convergence.ratio_standard[0]:.3f}" in page
    assert f"{summary.arms[0].generations[0].metrics['w2_floor']:.3f}" in page
    assert "some&lt;preset" in page
    assert page.count("<svg") == 4 + 6  # panels; clouds of two arms and three generations


def test_rendering_twice_gives_the_same_bytes(rendered):
    store, summary, details, page, _ = rendered
    assert render_report(store, summary, details) == page


def test_scan_and_arms_share_what_is_the_same(rendered):
    _, summary, details, _, _ = rendered
    plan = details.plan
    assert [point.omega for point in summary.scan] == [0, 1, 3]
    assert summary.scan[0].ratio == (1, 1, 1)
    assert summary.scan[0].metrics == summary.arms[0].generations[0].metrics
    assert plan.scan[1].artifacts(1) == plan.arms[1].artifacts(1)
    refs = [stage.ref for stage in plan.scan_stages]
    assert len(refs) == len(set(refs)) < sum(len(arm.stages) for arm in plan.scan)


def test_ratios_are_over_the_standard_arm_of_the_same_size(rendered):
    _, summary, _, _, _ = rendered
    for standard, guided in (summary.arms[:2], summary.arms[2:]):
        first = standard.generations[0].metrics["w2"]
        end = guided.convergence
        assert end.first == end.last == 3
        assert end.distance[0] == pytest.approx(guided.generations[-1].metrics["w2"])
        assert end.ratio_standard[0] == pytest.approx(end.distance[0] / first)
        own = guided.generations[0].metrics["w2"]
        assert end.ratio_own[0] == pytest.approx(end.distance[0] / own)
        assert standard.convergence.verdict == "standard"
        assert f"{end.ratio_standard[0]:.2f}" in arm_line(guided, "w2")
