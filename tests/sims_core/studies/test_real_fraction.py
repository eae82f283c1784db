"""`real_fraction` of a loop: its ends are loops without a part, and what is between is weighted."""

from __future__ import annotations

import pytest
import torch

from sims_core.common.errors import BadInput
from sims_core.data.config import GaussianData
from sims_core.data.epochs import Shares
from sims_core.data.points import read_points
from sims_core.engine.execution import Execution
from sims_core.methods.autoguidance import Autoguidance
from sims_core.methods.self_synthetic import AuxData
from sims_core.methods.standard import Standard
from sims_core.nets.config import ExactGaussianConfig, MLPConfig, ModelConfig
from sims_core.nets.exact_gaussian import load_gaussian
from sims_core.store.store import Store
from sims_core.studies.experiment import Experiment
from sims_core.studies.loop import Accumulation, Arm, LoopKind, plan_loop
from sims_core.studies.running import Runner
from sims_core.training.config import TrainingConfig
from sims_core.training.images import train_image_model
from sims_core.training.points import CHUNK_STEPS, ReplicatedTraining
from sims_core.training.trainer import Training

AUGMENT, FULL = LoopKind.synthetic_augmentation, LoopKind.fully_synthetic


def plan(experiment, share, loop=AUGMENT, method=None, generations=3, **fields):
    arm = Arm(
        method=method or Standard(), loop=loop, pollution_size=48, real_fraction=share, **fields
    )
    return plan_loop(experiment, (arm,), generations, seed=3)


def refs(loop_plan):
    return [stage.ref for stage in loop_plan]


@pytest.mark.parametrize("accumulation", list(Accumulation))
@pytest.mark.parametrize("guided", [False, True])
def test_zero_is_the_fully_synthetic_loop(tiny_experiment, accumulation, guided):
    """Every stage: the same artifacts."""
    method = tiny_experiment.sims if guided else Standard()
    nothing_real = plan(tiny_experiment, 0.0, method=method, accumulation=accumulation)
    whole = plan(tiny_experiment, None, FULL, method, accumulation=accumulation)
    assert refs(nothing_real) == refs(whole)


def test_one_is_a_model_of_real_data_in_each_generation(tiny_experiment):
    found = plan(tiny_experiment, 1.0)
    (arm,) = found.arms
    mixes = {t: arm.artifacts(t)["mix"] for t in (1, 2, 3)}
    assert len(set(mixes.values())) == 1, "that of the first, which sees real data only"
    bases = [arm.artifacts(t)["train base"] for t in (1, 2, 3)]
    assert len(set(bases)) == 3, "each trained anew, with seeds of its own"


def test_between_the_first_generation_is_as_it_was(tiny_experiment):
    """There is nothing to weigh without a synthetic part: trained by counts."""
    plain, weighted = plan(tiny_experiment, None), plan(tiny_experiment, 0.618)
    assert plain.arms[0].artifacts(1) == weighted.arms[0].artifacts(1)
    assert plain.arms[0].artifacts(2)["mix"] != weighted.arms[0].artifacts(2)["mix"]
    (mix,) = [s.request for s in weighted if (s.t, s.role) == (2, "mix")]
    assert mix.config["real_fraction"] == 0.618
    assert [part["synthetic"] for part in mix.config["parts"]] == [False, True]
    assert weighted.arms[0].arm.name == "standard |D_s|=48 real_fraction=0.618"


def test_autoguidance_draws_as_the_base_does(tiny_experiment):
    found = plan(tiny_experiment, 0.618, method=Autoguidance(kimg=0.5))
    own = {s.role: s.request for s in found if s.t == 2}
    assert own["train auxiliary"].inputs == own["train base"].inputs == {"data": own["mix"].ref}


def test_the_exact_gaussian_is_the_weighted_one(tmp_path):
    data = GaussianData(covariance=((2, 1), (1, 2)), num_points=100, replicates=3)
    experiment = Experiment(
        data=data,
        model=ModelConfig(net=ExactGaussianConfig()),
        point_evaluation={"num_points": 50, "empirical_points": 10, "bootstrap": 100},
    )
    store, found = Store.open(tmp_path / "store"), plan(experiment, 0.25, generations=2)
    Runner(store, Execution()).run_plan(found)
    first, second = (found.arms[0].artifacts(t) for t in (1, 2))
    real = read_points(store.path(found.setup[0].ref)).double()
    drawn = read_points(store.path(first["generate"])).double()[:, :48]
    fitted = load_gaussian(store.open_artifact(second["train base"]))
    torch.testing.assert_close(fitted.mean, 0.25 * real.mean(1) + 0.75 * drawn.mean(1))
    square = [torch.einsum("rnd,rne->rde", x, x) / x.shape[1] for x in (real, drawn)]
    centre = torch.einsum("rd,re->rde", fitted.mean, fitted.mean)
    torch.testing.assert_close(fitted.covariance, 0.25 * square[0] + 0.75 * square[1] - centre)


def test_points_are_drawn_with_that_probability():
    """With replacement, so binomial: 12,800 draws, five deviations; within a part all equally."""
    net = MLPConfig(replicates=2, hidden_features=4, hidden_layers=1)
    shares = Shares(0.618, torch.arange(100) >= 20)
    recipe = TrainingConfig(kimg=6.4, batch_size=200)
    training = ReplicatedTraining(
        ModelConfig(net=net), recipe, torch.zeros(2, 100, 2), 3, shares=shares
    )
    own = torch.Generator().manual_seed(0)
    indices = training._indices(100, (CHUNK_STEPS, 200), own)
    real = (indices < 20).double().mean()
    assert abs(float(real) - 0.618) < 5 * (0.618 * 0.382 / indices.numel()) ** 0.5
    times = torch.bincount(indices.flatten(), minlength=100).double() / indices.numel()
    torch.testing.assert_close(times, shares.weights, rtol=0, atol=5 * 0.0309**0.5 / 12800**0.5)


def test_a_killed_training_goes_on_with_the_same_images(tmp_path):
    shares = Shares(0.3, torch.arange(40) >= 25)
    data = torch.randn(40, 2, generator=torch.Generator().manual_seed(1))
    recipe = TrainingConfig(kimg=0.2, batch_size=10)
    model = ModelConfig(net=MLPConfig(hidden_features=8, hidden_layers=1))

    def training():
        return Training(model, recipe, data, 3, shares=shares)

    whole, cut = training(), training()
    for _ in range(recipe.num_steps):
        whole.advance()
    for _ in range(7):
        cut.advance()
    cut.save(tmp_path / "checkpoint.pt")
    again = training()
    again.load(tmp_path / "checkpoint.pt")
    while again.step < recipe.num_steps:
        again.advance()
    plain = Training(model, recipe, data, 3)
    while plain.step < recipe.num_steps:
        plain.advance()
    ends = [each.finish().net.state_dict() for each in (whole, again, plain)]
    assert all(torch.equal(a, ends[1][name]) for name, a in ends[0].items())
    assert any(not torch.equal(a, ends[2][name]) for name, a in ends[0].items()), "it matters"


def test_a_stage_that_trains_is_told_of_the_shares(tiny_experiment, tmp_path, monkeypatch):
    training = tiny_experiment.training.model_copy(update={"kimg": 0.064})
    experiment = tiny_experiment.model_copy(update={"training": training})
    seen = []

    class Watched(Training):
        def __init__(self, *arguments, **options):
            super().__init__(*arguments, **options)
            seen.append(self.shares)

    monkeypatch.setitem(train_image_model.__globals__, "Training", Watched)
    found = plan(experiment, 0.618, generations=2)
    wanted = ("prepare data", "mix", "train base", "generate")
    Runner(Store.open(tmp_path / "store"), Execution(threads=1)).run(
        "", [stage for stage in found if stage.role in wanted]
    )
    assert seen[0] is None
    assert seen[1].real_fraction == 0.618
    assert seen[1].synthetic.tolist() == [False] * 256 + [True] * 48


def test_what_cannot_be_weighed_is_refused_in_the_plan(tiny_experiment):
    with pytest.raises(BadInput, match="loop fully_synthetic has no real part"):
        plan(tiny_experiment, 0.5, FULL)
    both = tiny_experiment.sims.model_copy(update={"aux_data": AuxData.real_and_synthetic})
    with pytest.raises(BadInput, match=r"aux_data real\+synthetic is not defined where"):
        plan(tiny_experiment, 0.5, method=both)
    plan(tiny_experiment, 0.5, method=both, generations=1)
