"""Neon: exact at its ends, shared work with SIMS, and the sign that its theory says."""

from __future__ import annotations

import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file

from sims_core.catalog import run_stage
from sims_core.common.errors import BadInput, SimsError
from sims_core.data.config import GaussianData
from sims_core.engine.execution import Execution
from sims_core.methods.fine_tuned import FineTuned
from sims_core.methods.neon import Neon
from sims_core.methods.standard import Standard
from sims_core.nets.config import ExactGaussianConfig, MergeConfig, ModelConfig
from sims_core.nets.exact_gaussian import GaussianModel, load_gaussian, save_gaussian
from sims_core.nets.merging import extrapolated, merge_weights
from sims_core.nets.stages import MERGE
from sims_core.store.artifacts import StageRequest
from sims_core.store.store import Store
from sims_core.studies.experiment import Experiment
from sims_core.studies.loop import Arm, LoopKind, plan_loop


def arms(*methods):
    loop = LoopKind.synthetic_augmentation
    return tuple(Arm(method=method, loop=loop, pollution_size=32) for method in methods)


def weights_of(store, ref):
    return load_file(next(store.open_artifact(ref).rglob("*.safetensors")))


def test_after_sims_neon_trains_nothing(tiny_experiment):
    """Same S, same auxiliary: what is left is to merge, sample and measure."""
    neon = [tiny_experiment.template("neon").model_copy(update={"w": w}) for w in (0.5, 1.0)]
    plan = plan_loop(tiny_experiment, arms(tiny_experiment.sims, *neon), generations=1, seed=3)
    of_sims = {stage.ref for stage in plan.arms[0].stages}
    for arm in plan.arms[1:]:
        new = {stage.request.stage for stage in arm.stages if stage.ref not in of_sims}
        assert new == {"merge", "generate", "features", "evaluate"}
    assert {s.request.config["omega"] for s in plan.arms[1].stages if s.role == "generate"} == {0}


def test_a_recipe_of_its_own_is_not_shared(tiny_experiment):
    given = {"methods": {"neon": {"kind": "neon", "n_s": 16}}}
    experiment = Experiment.model_validate({**tiny_experiment.model_dump(), **given})
    template = experiment.template("neon")
    assert (template.n_s, template.budget_mimg) == (16, tiny_experiment.sims.budget_mimg)
    plan = plan_loop(experiment, arms(experiment.sims, template), generations=1, seed=3)
    ours, theirs = (arm.artifacts(1)["self-synthetic"] for arm in plan.arms)
    assert ours != theirs


@pytest.fixture
def merged(tiny_run, tmp_path):
    """Weights of the tiny run's base, its auxiliary, and of both merged by w."""
    base, auxiliary = (
        tiny_run.request(1, 1, role).ref for role in ("train base", "fine-tune auxiliary")
    )

    def by(w):
        request = MERGE.request(MergeConfig(w=w), base=base, auxiliary=auxiliary)
        return weights_of(tiny_run.store, run_stage(tiny_run.store, request, Execution(threads=1)))

    return weights_of(tiny_run.store, base), weights_of(tiny_run.store, auxiliary), by


def test_its_ends_are_base_and_auxiliary_bit_for_bit(merged):
    base, auxiliary, by = merged
    assert any(not torch.equal(base[name], auxiliary[name]) for name in base)
    for w, expected in ((0.0, base), (-1.0, auxiliary)):
        found = by(w)
        assert found.keys() == expected.keys()
        assert all(
            torch.equal(found[name].view(torch.int32), expected[name].view(torch.int32))
            for name in found
        )


def test_beyond_the_base_it_goes_as_far_again(merged):
    base, auxiliary, by = merged
    found = by(1.5)
    for name, tensor in found.items():
        wide = base[name].double() + 1.5 * (base[name].double() - auxiliary[name].double())
        torch.testing.assert_close(tensor.double(), wide, rtol=1e-5, atol=1e-6)
    assert any((found[name] - base[name]).abs().max() > 1e-3 for name in found)


def test_buffers_are_the_bases():
    base = {"weight": torch.ones(2), "running": torch.zeros(2)}
    auxiliary = {"weight": torch.full((2,), 3.0), "running": torch.full((2,), 9.0)}
    merged = merge_weights(base, auxiliary, {"weight"}, 0.5)
    assert merged["weight"].tolist() == [0.0, 0.0]
    assert torch.equal(merged["running"], base["running"])


def test_an_auxiliary_of_another_architecture_is_refused(tiny_run):
    base = tiny_run.request(0, 1, "train base")
    config = {**base.config, "model": {**base.config["model"], "sigma_data": 0.7}}
    other = base.model_copy(update={"config": config})
    auxiliary = run_stage(tiny_run.store, StageRequest(**dict(other)), Execution(threads=1))
    request = MERGE.request(MergeConfig(w=1.0), base=base.ref, auxiliary=auxiliary)
    with pytest.raises(BadInput, match="both must have the same network and preconditioning"):
        run_stage(tiny_run.store, request, Execution(threads=1))


def test_below_the_auxiliary_is_refused_with_the_reason():
    with pytest.raises(ValidationError, match="at least -1, which is the auxiliary itself"):
        Neon(w=-1.01)
    assert [arm.w for arm in Neon.arms(Neon(), [1.0, -0.5, 0.0, 1.0])] == [-0.5, 1.0]
    with pytest.raises(ValidationError, match="at least -1"):
        Neon.arms(Neon(), [-2.0])


@pytest.mark.parametrize(("factor", "w"), [(0.8, 0.5556), (1.25, -0.4444)])
def test_the_sign_that_the_theory_says(factor, w):
    """The maximum-likelihood fit of n points has (n - 1) / n of the variance on average. Trained on
    what a sampler draws from it that narrows (factor < 1), it loses more: the way back leads away
    from the auxiliary, w > 0. Of a sampler that spreads mass the auxiliary has what the base lacks:
    the best model lies between both, w in (-1, 0)."""
    n = 10
    truth, base = torch.tensor(1.0).double(), torch.tensor((n - 1) / n).double()
    auxiliary = factor * base
    candidates = torch.arange(-1, 2, 1e-4).double()
    distance = torch.stack(
        [(extrapolated(base, auxiliary, float(c)).sqrt() - truth.sqrt()).abs() for c in candidates]
    )
    assert float(candidates[distance.argmin()]) == pytest.approx(w, abs=2e-4)


def test_exact_gaussians_are_merged_in_mean_and_covariance(tmp_path):
    """A sampler that keeps 0.8 of the covariance: the closed form of the stored model."""
    experiment = Experiment(
        data=GaussianData(num_points=50, replicates=3),
        model=ModelConfig(net=ExactGaussianConfig(sampling_bias=0.8)),
        sims={"n_s": 4000, "budget_mimg": 0.001},
    )
    neon = experiment.template("neon").model_copy(update={"w": 1.0})
    plan = plan_loop(experiment, arms(Standard(), neon), generations=1, seed=1)
    store = Store.open(tmp_path / "store")
    for stage in plan:
        run_stage(store, stage.request, Execution(threads=1))
    found = plan.arms[1].artifacts(1)
    base, auxiliary, merged = (
        load_gaussian(store.open_artifact(found[role]))
        for role in ("train base", "fine-tune auxiliary", "merge")
    )
    torch.testing.assert_close(merged.mean, 2 * base.mean - auxiliary.mean)
    torch.testing.assert_close(merged.covariance, 2 * base.covariance - auxiliary.covariance)
    # S has 0.8 of the base's covariance, so that the merged model has 1.2 of it.
    ratio = torch.diagonal(merged.covariance, dim1=1, dim2=2) / torch.diagonal(
        base.covariance, dim1=1, dim2=2
    )
    torch.testing.assert_close(ratio, torch.full_like(ratio, 1.2), rtol=0.05, atol=0)


def test_a_covariance_that_is_none_is_refused(tmp_path):
    from sims_core.nets.merging import _merge_gaussians

    for name, scale in (("base", 1.0), ("auxiliary", 3.0), ("merged", None)):
        (tmp_path / name).mkdir()
        if scale:
            covariance = scale * torch.eye(2).double()[None]
            save_gaussian(GaussianModel(torch.zeros(1, 2).double(), covariance), tmp_path / name)
    with pytest.raises(SimsError, match="not positive semi-definite: lower w"):
        _merge_gaussians(tmp_path / "base", tmp_path / "auxiliary", tmp_path / "merged", 1.0)


def test_the_contrast_is_the_auxiliary_of_sims(tiny_experiment):
    template = tiny_experiment.template("fine_tuned")
    assert isinstance(template, FineTuned)
    plan = plan_loop(tiny_experiment, arms(tiny_experiment.sims, template), 1, 3)
    sims, contrast = (arm.artifacts(1) for arm in plan.arms)
    sampled = next(s for s in plan.arms[1].stages if s.role == "generate")
    assert sampled.request.inputs == {"base": sims["fine-tune auxiliary"]}
    assert contrast["fine-tune auxiliary"] == sims["fine-tune auxiliary"]
