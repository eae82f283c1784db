"""Gradients of the losses, EDM2's weights in training, and what the losses draw."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from scipy import stats
from torch import Tensor, nn

from sims_core.nets.edm2 import MPWeights
from sims_core.nets.edm_config import ADMConfig, EDM2Config, EDMNet, SongUNetConfig
from sims_core.nets.losses import default_loss, denoising_errors, loss_weight, training_sigmas
from sims_core.nets.preconditioning import Preconditioned, iddpm_levels, precondition
from sims_core.nets.preconditioning_config import (
    EDM2Loss,
    EDM2Preconditioning,
    EDMLoss,
    EDMPreconditioning,
    IDDPMLoss,
    IDDPMPreconditioning,
    Loss,
    Preconditioning,
    VELoss,
    VEPreconditioning,
    VPLoss,
    VPPreconditioning,
)

SMALL: dict[str, Any] = {"image_size": 8, "channels": 2, "num_classes": 3, "num_blocks": 1}
FAMILIES: dict[str, tuple[EDMNet, Preconditioning]] = {
    "ddpmpp-edm": (
        SongUNetConfig(**SMALL, model_channels=8, channel_mult=(1, 2), attn_resolutions=(4,),
                       augment_dim=9),
        EDMPreconditioning(),
    ),
    "ddpmpp-vp": (
        SongUNetConfig(**SMALL, model_channels=8, channel_mult=(1, 2), attn_resolutions=(4,)),
        VPPreconditioning(),
    ),
    "ncsnpp-ve": (
        SongUNetConfig(**SMALL, model_channels=8, channel_mult=(1, 2), encoder_type="residual",
                       embedding_type="fourier", resample_filter=(1, 3, 3, 1)),
        VEPreconditioning(),
    ),
    "skip-edm": (
        SongUNetConfig(**SMALL, model_channels=8, channel_mult=(1, 2), encoder_type="skip",
                       decoder_type="skip", resample_filter=(1, 3, 3, 1)),
        EDMPreconditioning(sigma_data=0.7),
    ),
    "adm-iddpm": (
        ADMConfig(**SMALL, model_channels=8, channel_mult=(1, 2), out_channels=4),
        IDDPMPreconditioning(),
    ),
    "edm2": (
        EDM2Config(**SMALL, model_channels=8, channel_mult=(1, 2), channels_per_head=8,
                   attn_resolutions=(4,), logvar_channels=6),
        EDM2Preconditioning(),
    ),
}  # fmt: skip


def training_batch() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Images, noise levels, noise and classes, float64."""
    generator = torch.Generator().manual_seed(3)
    clean = 0.5 * torch.randn(3, 2, 8, 8, generator=generator, dtype=torch.float64)
    noise = torch.randn(3, 2, 8, 8, generator=generator, dtype=torch.float64)
    return clean, torch.tensor([0.05, 0.4, 3.0], dtype=torch.float64), noise, torch.arange(3)


def own_loss(denoiser: Preconditioned, loss: Loss) -> Tensor:
    """The mean of a loss over one batch that is always the same."""
    clean, sigma, noise, labels = training_batch()
    net: Any = denoiser.net
    net.dropout.keys = torch.arange(3, dtype=torch.int32)
    if hasattr(net, "told"):
        net.told.labels = torch.ones(3, 9, dtype=torch.float64)
    return denoising_errors(denoiser, loss, clean, sigma, noise, labels).mean()


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("name", FAMILIES)
def test_gradient_of_the_loss_is_its_finite_difference(
    name: str, training: bool, random_net: Any
) -> None:
    config, preconditioning = FAMILIES[name]
    net = random_net(config).double()
    denoiser = precondition(net, preconditioning).train(training)
    loss = default_loss(preconditioning)
    if isinstance(config, EDM2Config):
        for _ in range(5):  # to the fixed point of forced normalisation
            net.force_norms()
    state = {key: tensor.clone() for key, tensor in net.state_dict().items()}
    own_loss(denoiser, loss).backward()
    # In training EDM2's weights are normalised twice, which hides 1e-4 of their radial part.
    tolerance = 1e-3 if training and isinstance(config, EDM2Config) else 1e-5
    chance = torch.Generator().manual_seed(0)
    named = list(net.named_parameters())
    gradients = {
        key: torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        for key, parameter in named  # None: what tells of augmentation, in evaluation
    }
    scale = max(float(gradient.abs().max()) for gradient in gradients.values())
    for index in torch.randperm(len(named), generator=chance)[:12].tolist():
        key, parameter = named[index]
        place = int(torch.randint(parameter.numel(), (), generator=chance))
        values = []
        for step in (1e-5, -1e-5):
            with torch.no_grad():
                net.load_state_dict(state)
                parameter.view(-1)[place] += step
                values.append(float(own_loss(denoiser, loss)))
        found = float(gradients[key].view(-1)[place])
        expected = (values[0] - values[1]) / 2e-5
        assert math.isclose(found, expected, rel_tol=tolerance, abs_tol=tolerance * 1e-2 * scale), (
            key
        )


@pytest.mark.parametrize("name", FAMILIES)
def test_steps_lower_the_network_s_own_loss(name: str, random_net: Any) -> None:
    config, preconditioning = FAMILIES[name]
    net = random_net(config).double()
    denoiser = precondition(net, preconditioning).train()
    loss = default_loss(preconditioning)
    optimiser = torch.optim.Adam(net.parameters(), lr=3e-3)
    values = []
    for _ in range(15):
        optimiser.zero_grad()
        value = own_loss(denoiser, loss)
        value.backward()
        optimiser.step()
        values.append(float(value.detach()))
    assert values[-1] < 0.9 * values[0]


def magnitudes(net: nn.Module) -> Tensor:
    """Root mean square of the weights of every output of every layer."""
    layers = [module for module in net.modules() if isinstance(module, MPWeights)]
    return torch.cat([m.weight.detach().flatten(1).square().mean(1).sqrt() for m in layers])


def test_weights_of_edm2_stay_normalised(random_net: Any) -> None:
    config, preconditioning = FAMILIES["edm2"]
    net = random_net(config)
    denoiser = precondition(net.double(), preconditioning).train()
    assert float(magnitudes(net).mean()) < 0.5
    optimiser = torch.optim.SGD(net.parameters(), lr=0.1)
    for step in range(20):
        optimiser.zero_grad()
        own_loss(denoiser, EDM2Loss()).backward()
        used = magnitudes(net)  # as the pass in training left them
        torch.testing.assert_close(
            used, torch.ones_like(used), rtol=0, atol=5e-3 if step == 0 else 2e-4
        )
        optimiser.step()
    net.force_norms()
    torch.testing.assert_close(magnitudes(net), torch.ones_like(used), rtol=0, atol=2e-4)


def test_scale_of_edm2_s_weights_means_nothing(random_net: Any) -> None:
    """Which is why they can be normalised at all. Gains are not weights."""
    net = random_net(FAMILIES["edm2"][0]).double().eval()
    clean, sigma, _, labels = training_batch()
    before = net(clean, sigma.log() / 4, labels)
    for module in net.modules():
        if isinstance(module, MPWeights):
            module.weight.data *= 3
    torch.testing.assert_close(net(clean, sigma.log() / 4, labels), before, rtol=2e-2, atol=2e-2)


def test_edm2_s_loss_is_least_where_u_is_the_logarithm_of_the_error() -> None:
    """d/du (E / exp(u) + u) = 0 at u = ln E."""
    _, preconditioning = FAMILIES["edm2"]

    class Fixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.u = nn.Parameter(torch.zeros(1, dtype=torch.float64))

        def forward(self, x: Tensor, c_noise: Tensor, labels: Tensor | None) -> Tensor:
            return torch.zeros_like(x)

        def log_variance(self, c_noise: Tensor) -> Tensor:
            return self.u.expand(len(c_noise))

    clean, sigma, noise, _ = training_batch()
    denoiser = precondition(Fixed(), preconditioning)
    plain = denoising_errors(denoiser, EDMLoss(), clean, sigma, noise).mean()
    denoiser.net.u.data.fill_(float(plain.log()))
    value = denoising_errors(denoiser, EDM2Loss(), clean, sigma, noise).mean()
    assert math.isclose(float(value.detach()), 1 + float(plain.log()), rel_tol=1e-12)
    value.backward()
    assert abs(float(denoiser.net.u.grad)) < 1e-12
    other = precondition(Fixed(), EDMPreconditioning())
    with pytest.raises(ValueError, match="carries u"):
        denoising_errors(other, EDM2Loss(), clean, sigma, noise)


def test_an_untrained_network_has_loss_one() -> None:
    """Of unit-variance targets predicted as zero; for VP, VE and iDDPM the target is the noise."""

    class Zero(nn.Module):
        def forward(self, x: Tensor, c_noise: Tensor, labels: Tensor | None) -> Tensor:
            return torch.zeros_like(x)

    generator = torch.Generator().manual_seed(0)
    clean = 0.5 * torch.randn(400, 3, 8, 8, generator=generator)
    noise = torch.randn(clean.shape, generator=generator)
    for config in (EDMPreconditioning(), VPPreconditioning(), VEPreconditioning()):
        loss = default_loss(config)
        sigma = training_sigmas(loss, 400, generator)
        errors = denoising_errors(precondition(Zero(), config), loss, clean, sigma, noise)
        assert abs(float(errors.mean()) - 1) < 0.03


@pytest.mark.parametrize(
    "config",
    [
        EDMPreconditioning(sigma_data=0.7),
        EDM2Preconditioning(),
        VPPreconditioning(beta_d=10),
        VEPreconditioning(),
        IDDPMPreconditioning(),
    ],
)
def test_every_loss_weighs_the_network_s_own_error_alike(config: Preconditioning) -> None:
    """lambda(sigma) c_out(sigma)^2 = 1: F's plain squared error is what is trained."""
    sigma = torch.logspace(-2, 1.5, 30, dtype=torch.float64)
    c_out = precondition(nn.Identity(), config).scalings(sigma).c_out
    product = loss_weight(default_loss(config), sigma) * c_out**2
    torch.testing.assert_close(product, torch.ones_like(product))


COUNT = 20_000


@pytest.mark.parametrize(
    "loss",
    [EDMLoss(P_mean=-0.7, P_std=0.9), EDM2Loss(), VPLoss(beta_d=15), VELoss(), IDDPMLoss(M=50)],
)
def test_noise_levels_are_distributed_as_the_papers_say(loss: Loss) -> None:
    sigma = training_sigmas(loss, COUNT, torch.Generator().manual_seed(5)).double()
    again = training_sigmas(loss, COUNT, torch.Generator().manual_seed(5)).double()
    assert torch.equal(sigma, again)
    if isinstance(loss, EDMLoss | EDM2Loss):
        found = stats.kstest(sigma.log().numpy(), "norm", args=(loss.P_mean, loss.P_std))
    elif isinstance(loss, VELoss):
        low, high = math.log(loss.sigma_min), math.log(loss.sigma_max)
        found = stats.kstest(sigma.log().numpy(), "uniform", args=(low, high - low))
    elif isinstance(loss, VPLoss):
        config = VPPreconditioning(beta_d=loss.beta_d, beta_min=loss.beta_min)
        time = precondition(nn.Identity(), config).time(sigma)
        low = loss.epsilon_t
        found = stats.kstest(time.numpy(), "uniform", args=(low, 1 - low))
    else:
        levels, counts = sigma.unique(return_counts=True)
        known = iddpm_levels(loss.C_1, loss.C_2, loss.M)[:-1].double().flip(0)
        torch.testing.assert_close(levels, known, rtol=0, atol=0)
        found = stats.chisquare(counts.numpy())
    assert found.pvalue > 1e-3
