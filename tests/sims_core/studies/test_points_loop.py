"""Loops of points: what each generation is made of, and what theory says becomes of it."""

import json

import numpy as np
import pytest
import torch

from sims_core.catalog import run_stage
from sims_core.data.config import GaussianData
from sims_core.data.mixing import read_training_set
from sims_core.data.points import read_points
from sims_core.diffusion.config import SamplerConfig
from sims_core.engine.execution import Execution
from sims_core.evaluation.config import PointEvaluationConfig
from sims_core.methods.sims import Sims
from sims_core.methods.standard import Standard
from sims_core.nets.config import ExactGaussianConfig, MLPConfig, ModelConfig
from sims_core.nets.exact_gaussian import load_gaussian
from sims_core.reports.base import report_of
from sims_core.reports.convergence import converged_generations, verdict
from sims_core.store.store import Store
from sims_core.studies.experiment import Experiment
from sims_core.studies.loop import Accumulation, Arm, LoopKind, plan_loop
from sims_core.studies.running import Runner
from sims_core.training.config import TrainingConfig

EVALUATION = PointEvaluationConfig(num_points=200, empirical_points=20, bootstrap=200)


def exact(data: GaussianData, sims: Sims | None = None, **model) -> Experiment:
    return Experiment(
        data=data,
        model=ModelConfig(net=ExactGaussianConfig(**model)),
        sims=sims or Sims(n_s=400),
        point_evaluation=EVALUATION,
    )


def arm(loop, size, accumulation=Accumulation.replace_, method=None):
    return Arm(
        method=method or Standard(), loop=loop, pollution_size=size, accumulation=accumulation
    )


def run(tmp_path, experiment, arms, generations, seed=0):
    store = Store.open(tmp_path / "store")
    plan = plan_loop(experiment, tuple(arms), generations, seed)
    Runner(store, Execution()).run_plan(plan)
    return store, plan


def fitted(store, plan, t):
    return load_gaussian(store.open_artifact(plan.arms[0].artifacts(t)["train base"]))


def composition(store, plan, t):
    """(synthetic, count) of each part of D^t."""
    folder = store.open_artifact(plan.arms[0].artifacts(t)["mix"])
    return [(part.synthetic, part.count) for part in read_training_set(folder).parts]


@pytest.mark.parametrize(
    ("loop", "accumulation", "expected"),
    [
        ("fully_synthetic", "replace", [(True, 10)]),
        ("fully_synthetic", "accumulate", [(True, 10)] * 3),
        ("fully_synthetic", "fixed_budget", [(True, 3), (True, 3), (True, 4)]),
        ("synthetic_augmentation", "replace", [(False, 30), (True, 10)]),
        ("synthetic_augmentation", "accumulate", [(False, 30), *[(True, 10)] * 3]),
        ("synthetic_augmentation", "fixed_budget", [(False, 30), (True, 3), (True, 3), (True, 4)]),
        ("fresh_data", "replace", [(False, 20), (True, 10)]),
        ("fresh_data", "accumulate", [(False, 20), *[(True, 10)] * 3]),
        ("fresh_data", "fixed_budget", [(False, 20), (True, 3), (True, 3), (True, 4)]),
    ],
)
def test_the_fourth_generation_is_made_of(tmp_path, loop, accumulation, expected):
    data = GaussianData(num_points=30, fresh_points=20, replicates=2)
    chosen = arm(LoopKind(loop), 10, Accumulation(accumulation))
    store, plan = run(tmp_path, exact(data), [chosen], 4)
    assert composition(store, plan, 1) == [(False, 30)]
    assert composition(store, plan, 4) == expected


def test_fresh_data_are_new_in_each_generation(tmp_path):
    data = GaussianData(num_points=30, fresh_points=20, replicates=2)
    store, plan = run(tmp_path, exact(data), [arm(LoopKind.fresh_data, 10)], 3)
    drawn = [
        read_points(store.open_artifact(plan.arms[0].artifacts(t)["fresh data"])) for t in (2, 3)
    ]
    drawn.append(read_points(store.open_artifact(plan.setup[0].ref))[:, :20])
    assert all((a - b).abs().max() > 0.1 for a, b in zip(drawn, drawn[1:], strict=False))


def test_points_need_no_classifier_and_images_need_one():
    data = GaussianData(num_points=30, replicates=2)
    plan = plan_loop(exact(data), (arm(LoopKind.synthetic_augmentation, 10),), 2, 0)
    assert {stage.request.stage for stage in plan} == {
        *("prepare_points", "reference", "mix", "train", "generate_points", "evaluate_points")
    }
    images = plan_loop(Experiment(), (arm(LoopKind.synthetic_augmentation, 10),), 1, 0)
    assert "classifier" in {stage.request.stage for stage in images}


def test_a_network_must_fit_the_data():
    with pytest.raises(ValueError, match="cannot model gaussian data"):
        Experiment(data=GaussianData())
    with pytest.raises(ValueError, match=r"model\.net\.dim is 3"):
        Experiment(data=GaussianData(), model=ModelConfig(net=MLPConfig(dim=3)))


def test_fully_synthetic_covariance_goes_to_zero_at_the_rate_of_theory(tmp_path):
    """The fit over n of n points has (1 - 1/n) of the covariance on average: (1 - 1/n)^t."""
    n, t, replicates = 20, 40, 400
    data = GaussianData(num_points=n, replicates=replicates)
    store, plan = run(tmp_path, exact(data), [arm(LoopKind.fully_synthetic, n)], t)
    traces = {
        now: torch.diagonal(
            load_gaussian(
                store.open_artifact(plan.arms[0].artifacts(now)["train base"])
            ).covariance,
            dim1=-2,
            dim2=-1,
        ).sum(-1)
        for now in (1, 10, t)
    }
    for now, trace in traces.items():
        standard_error = float(trace.std()) / replicates**0.5
        assert float(trace.mean()) == pytest.approx(2 * (1 - 1 / n) ** now, abs=4 * standard_error)
    # Almost surely to zero: the typical replicate is far below the mean.
    assert float(traces[t].median()) < 0.1 * 2 < 0.5 * float(traces[1].median())


def test_the_limit_of_the_fresh_data_loop_does_not_depend_on_n_ini(tmp_path):
    ends, firsts = [], []
    for n_ini in (10, 2000):
        data = GaussianData(num_points=n_ini, fresh_points=50, replicates=150)
        chosen = arm(LoopKind.fresh_data, 100)
        store, plan = run(tmp_path, exact(data), [chosen], 25)
        metrics = [g.metrics for g in report_of(plan).findings(store, plan)["arms"][0].generations]
        firsts.append(metrics[0])
        ends.append(metrics[-1])
    assert firsts[0]["w2_low"] > 2 * firsts[1]["w2_high"]
    assert ends[0]["w2_low"] < ends[1]["w2_high"]
    assert ends[1]["w2_low"] < ends[0]["w2_high"]
    # It is no trivial limit: worse than 2,000 points, better than 10.
    assert firsts[1]["w2_high"] < ends[1]["w2"] < firsts[0]["w2_low"]


def test_sampling_bias_scales_the_covariance(tmp_path):
    data = GaussianData(num_points=5000, replicates=2)
    traces = []
    for bias in (1.0, 0.8):
        experiment = exact(data, sampling_bias=bias)
        store, plan = run(tmp_path, experiment, [arm(LoopKind.fully_synthetic, 5000)], 1)
        points = read_points(store.open_artifact(plan.arms[0].artifacts(1)["generate"]))
        centred = points - points.mean(1, keepdim=True)
        traces.append((centred**2).mean())
    assert float(traces[1] / traces[0]) == pytest.approx(0.8, rel=1e-3)  # the same noise


def test_exact_sims_undoes_a_known_bias(tmp_path):
    """Base variance v, refit v * lambda: guidance gives v * lambda^(-omega), the way back."""
    data = GaussianData(num_points=4000, replicates=8)
    sims = Sims(omega=1.0, n_s=4000)
    experiment = exact(data, sims, sampling_bias=0.8)
    guided = arm(LoopKind.fully_synthetic, 100, method=sims)
    experiment = experiment.model_copy(
        update={
            "point_evaluation": EVALUATION.model_copy(update={"num_points": 4000}),
            "sampler": SamplerConfig(num_steps=150),
        }
    )
    plain = arm(LoopKind.fully_synthetic, 100)
    store, plan = run(tmp_path, experiment, [plain, guided], 1)
    standard, improved = (
        a.generations[0].metrics for a in report_of(plan).findings(store, plan)["arms"]
    )
    assert standard["trace"] == pytest.approx(0.8, abs=0.03)
    # S has 0.8 of the base's variance; guided variance is 1 / 0.8, times lambda 0.8 again.
    assert improved["trace"] == pytest.approx(1.0, abs=0.05)
    assert improved["w2_high"] < standard["w2_low"]


def test_a_part_of_the_budget_goes_a_part_of_the_way(tmp_path):
    data = GaussianData(num_points=50, replicates=2)
    models = {}
    for budget in (0.25, 1.0):
        sims = Sims(omega=1.0, n_s=60)
        chosen = arm(LoopKind.fully_synthetic, 50, method=sims)
        store, plan = run(tmp_path, exact(data, sims, budget=budget), [chosen], 1)
        artifacts = plan.arms[0].artifacts(1)
        base = load_gaussian(store.open_artifact(artifacts["train base"]))
        models[budget] = load_gaussian(store.open_artifact(artifacts["fine-tune auxiliary"]))
        shift = models[budget].covariance - base.covariance
        models[budget] = (models[budget].mean - base.mean, shift)
    for quarter, whole in zip(models[0.25], models[1.0], strict=True):
        torch.testing.assert_close(quarter, whole / 4)
        assert whole.abs().max() > 0.01


def test_a_loop_of_networks_and_its_summary(tmp_path):
    """Every stage of a small run with SIMS; the same replicate whatever their number."""
    metrics = {}
    for replicates in (2, 3):
        experiment = Experiment(
            data=GaussianData(num_points=60, replicates=replicates),
            model=ModelConfig(net=MLPConfig(hidden_features=8, hidden_layers=2), sigma_data=1.0),
            training=TrainingConfig(kimg=3.2, batch_size=32, ema_halflife_kimg=0.1),
            sims=Sims(n_s=100, budget_mimg=0.00032, batch_size=32),
            sampler=SamplerConfig(num_steps=4),
            point_evaluation=EVALUATION,
        )
        arms = [
            arm(LoopKind.synthetic_augmentation, 30),
            arm(LoopKind.synthetic_augmentation, 30, method=experiment.sims),
        ]
        store, plan = run(tmp_path, experiment, arms, 2)
        last = plan.arms[1].artifacts(2)
        metrics[replicates] = read_points(store.open_artifact(last["generate"]))
        summaries = report_of(plan).findings(store, plan)["arms"]
        assert summaries[0].convergence.verdict == "standard"
        assert summaries[1].convergence.ratio_own[0] > 0
        json.loads(summaries[1].model_dump_json())
    torch.testing.assert_close(metrics[2], metrics[3][:2], rtol=1e-3, atol=1e-4)
    assert not np.allclose(metrics[3][0], metrics[3][1], atol=0.1)


@pytest.mark.parametrize(
    ("ratio", "expected"),
    [(0.9, "prevention"), (1.3, "strong mitigation"), (1.7, "weak mitigation"), (2.1, "none")],
)
def test_verdicts_by_the_definitions(ratio, expected):
    assert verdict(ratio, standard=2.0) == expected


def test_the_last_fifth_counts_as_converged():
    assert list(converged_generations(30)) == [25, 26, 27, 28, 29, 30]
    assert list(converged_generations(3)) == [3]


def test_small_matrices_get_one_thread_and_the_manifest_says_so(tmp_path):
    store = Store.open(tmp_path)
    data = GaussianData(num_points=16, replicates=2)
    plan = plan_loop(exact(data), (arm(LoopKind.fully_synthetic, 8),), 1, 0)
    threads = {}
    for stage in plan:
        run_stage(store, stage.request, Execution(threads=2))
        threads[stage.request.stage] = store.manifest(stage.ref).execution["threads"]
    torch.set_num_threads(1)  # as conftest set it
    assert (threads["train"], threads["generate_points"], threads["mix"]) == (1, 1, 2)
