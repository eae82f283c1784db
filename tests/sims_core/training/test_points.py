"""Replicates: trained together as if alone, resumed to the same bytes."""

import pytest
import torch

from sims_core.common.errors import BadInput
from sims_core.diffusion.denoiser import EDMDenoiser, squared_errors
from sims_core.diffusion.noise import generator
from sims_core.nets.build import build_net, initialise
from sims_core.nets.config import MLPConfig, ModelConfig
from sims_core.training.config import TrainingConfig
from sims_core.training.points import CHUNK_STEPS, ReplicatedTraining
from sims_core.training.trainer import train

RECIPE = TrainingConfig(kimg=3.2, batch_size=32, learning_rate=2e-3, ema_halflife_kimg=0.3)


def model(replicates: int) -> ModelConfig:
    net = MLPConfig(replicates=replicates, hidden_features=16, hidden_layers=2)
    return ModelConfig(net=net, sigma_data=1.4)


def data(replicates: int) -> torch.Tensor:
    return torch.stack(
        [1.4 * torch.randn(60, 2, generator=generator(1, "data", r)) for r in range(replicates)]
    )


def trained(replicates: int, seed: int = 3) -> EDMDenoiser:
    return train(ReplicatedTraining(model(replicates), RECIPE, data(replicates), seed))


def denoised(denoiser: EDMDenoiser, replicates: int) -> torch.Tensor:
    x = torch.randn(1, 40, 2, generator=generator(5, "x")).expand(replicates, -1, -1)
    with torch.no_grad():
        return denoiser(x, torch.tensor(0.8))


def test_a_replicate_does_not_depend_on_how_many_there_are():
    few, many = denoised(trained(2), 2), denoised(trained(5), 5)
    # float32: sums in another order over 100 steps.
    torch.testing.assert_close(few, many[:2], rtol=1e-4, atol=1e-5)
    assert (many[0] - many[1]).abs().max() > 1e-2  # and each is another model
    other_seed = denoised(trained(2, seed=4), 2)
    assert (few - other_seed).abs().max() > 1e-2


def test_data_of_one_replicate_reach_no_other():
    changed = data(3)
    changed[1] *= 3
    training = ReplicatedTraining(model(3), RECIPE, changed, 3)
    after, before = denoised(train(training), 3), denoised(trained(3), 3)
    torch.testing.assert_close(after[[0, 2]], before[[0, 2]], rtol=1e-5, atol=1e-6)
    assert (after[1] - before[1]).abs().max() > 0.1


def test_f_s_plain_error_is_the_weighted_error_of_d():
    net = build_net(model(3).net)
    denoiser = EDMDenoiser(net, 1.4)
    initialise(net, *(generator(2, "init", r) for r in range(3)))
    torch.nn.init.normal_(net.out.weight, generator=generator(2, "out"))
    clean = data(3)
    sigma = (torch.randn(3, 60, generator=generator(4, "sigma")) - 0.5).exp()
    noise = torch.randn(3, 60, 2, generator=generator(4, "noise"))
    inputs, c_noise, targets = denoiser.training_pairs(clean, sigma, noise)
    plain = (net(inputs, c_noise) - targets) ** 2
    weighted = squared_errors(denoiser, clean, sigma, noise)
    torch.testing.assert_close(plain, weighted, rtol=1e-3, atol=1e-4)
    assert float(weighted.detach().mean()) > 0.1


def test_a_replicate_is_a_plain_perceptron():
    config = MLPConfig(replicates=3, hidden_features=8, hidden_layers=2)
    net = build_net(config)
    x, c_noise = torch.randn(3, 7, 2), torch.randn(3, 7)
    for r in range(3):
        features = torch.cat([x[r], c_noise[r, :, None]], dim=1)
        for layer in net.hidden:
            linear = features @ layer.weight[r] + layer.bias[r]
            features = linear * torch.sigmoid(linear)
        expected = features @ net.out.weight[r] + net.out.bias[r]
        torch.testing.assert_close(net(x, c_noise)[r], expected, rtol=1e-5, atol=1e-5)


def test_killed_in_the_middle_of_a_chunk_it_ends_in_the_same_bytes(tmp_path):
    whole = ReplicatedTraining(model(2), RECIPE, data(2), 3)
    cut = ReplicatedTraining(model(2), RECIPE, data(2), 3)
    assert CHUNK_STEPS < 90 < RECIPE.num_steps
    for _ in range(90):
        cut.advance()
    cut.save(tmp_path / "checkpoint.pt")
    resumed = ReplicatedTraining(model(2), RECIPE, data(2), 3)
    end, straight = train(resumed, tmp_path / "checkpoint.pt"), train(whole)
    for mine, other in zip(end.parameters(), straight.parameters(), strict=True):
        assert torch.equal(mine, other)


def test_training_learns_the_distribution():
    # Far from what D = c_skip x, where training starts, can say.
    points = data(2) / 30 + 1
    recipe = RECIPE.model_copy(update={"kimg": 12.8, "learning_rate": 1e-2})
    training = ReplicatedTraining(model(2), recipe, points, 3)
    losses = [float(training.advance()) for _ in range(recipe.num_steps)]
    assert sum(losses[-20:]) < 0.8 * sum(losses[:20])


def test_replicates_of_data_and_model_must_agree():
    with pytest.raises(BadInput, match="2 models for 3 replicates"):
        ReplicatedTraining(model(2), RECIPE, data(3), 0)
