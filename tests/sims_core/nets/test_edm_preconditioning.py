"""EDM's Table 1: each preconditioning against closed forms."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import integrate
from torch import Tensor, nn

from sims_core.nets.preconditioning import Preconditioned, iddpm_levels, precondition, vp_sigma
from sims_core.nets.preconditioning_config import (
    EDM2Preconditioning,
    EDMPreconditioning,
    IDDPMPreconditioning,
    Preconditioning,
    VEPreconditioning,
    VPPreconditioning,
)

SIGMA = torch.logspace(-2, 1.9, 40, dtype=torch.float64)


class Listening(nn.Module):
    """A network that remembers what it saw, and predicts a fixed function of it."""

    def forward(self, x: Tensor, c_noise: Tensor, labels: Tensor | None) -> Tensor:
        self.x, self.c_noise, self.labels = x, c_noise, labels
        return torch.cat([x.sin(), x.cos()], dim=1)  # more channels than x has


def seen(config: Preconditioning) -> tuple[Preconditioned, Listening, Tensor, Tensor]:
    """A denoiser, its network, what it was asked and what it answered, at the levels SIGMA."""
    net = Listening()
    denoiser = precondition(net, config)
    x = torch.randn(len(SIGMA), 3, 2, 2, dtype=torch.float64, generator=torch.Generator())
    return denoiser, net, x, denoiser(x, SIGMA, torch.arange(len(SIGMA)))


def expected(x: Tensor, c_skip: np.ndarray, c_out: np.ndarray, c_in: np.ndarray) -> np.ndarray:
    """c_skip x + c_out sin(c_in x), which `Listening` makes D."""
    pixels = x.numpy()
    c_skip, c_out, c_in = (c.reshape(-1, 1, 1, 1) for c in (c_skip, c_out, c_in))
    return c_skip * pixels + c_out * np.sin(c_in * pixels)


@pytest.mark.parametrize("sigma_data", [0.5, 0.8])
@pytest.mark.parametrize("kind", [EDMPreconditioning, EDM2Preconditioning])
def test_edm(kind: type[EDMPreconditioning] | type[EDM2Preconditioning], sigma_data: float) -> None:
    _, net, x, denoised = seen(kind(sigma_data=sigma_data))
    sigma = SIGMA.numpy()
    c_in = 1 / np.sqrt(sigma**2 + sigma_data**2)
    wanted = expected(x, (sigma_data * c_in) ** 2, sigma * sigma_data * c_in, c_in)
    np.testing.assert_allclose(denoised.numpy(), wanted, rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(net.c_noise.numpy(), np.log(sigma) / 4, rtol=1e-12)
    assert torch.equal(net.labels, torch.arange(len(SIGMA)))


def test_edm_sees_and_predicts_unit_variance() -> None:
    """c_in^2 (sigma_data^2 + sigma^2) = 1, and the target's variance is 1 (EDM, Eq. 114-131)."""
    sigma_data = 0.5
    c = precondition(Listening(), EDMPreconditioning()).scalings(SIGMA)
    ones = torch.ones_like(SIGMA)
    torch.testing.assert_close(c.c_in**2 * (SIGMA**2 + sigma_data**2), ones)
    target = ((1 - c.c_skip) ** 2 * sigma_data**2 + c.c_skip**2 * SIGMA**2) / c.c_out**2
    torch.testing.assert_close(target, ones)


def test_ve() -> None:
    denoiser, net, x, denoised = seen(VEPreconditioning())
    ones = np.ones(len(SIGMA))
    wanted = expected(x, ones, SIGMA.numpy(), ones)
    np.testing.assert_allclose(denoised.numpy(), wanted, rtol=1e-12)
    np.testing.assert_allclose(net.c_noise.numpy(), np.log(SIGMA.numpy() / 2), rtol=1e-10)
    assert (denoiser.sigma_min, denoiser.sigma_max) == (0.02, 100)


@pytest.mark.parametrize(("beta_d", "beta_min"), [(19.9, 0.1), (10.0, 0.5)])
def test_vp(beta_d: float, beta_min: float) -> None:
    config = VPPreconditioning(beta_d=beta_d, beta_min=beta_min)
    denoiser, net, x, denoised = seen(config)
    sigma = SIGMA.numpy()
    wanted = expected(x, np.ones(len(SIGMA)), -sigma, 1 / np.sqrt(1 + sigma**2))
    np.testing.assert_allclose(denoised.numpy(), wanted, rtol=1e-12, atol=1e-14)
    for level, c_noise in zip(sigma, net.c_noise.numpy(), strict=True):
        # sigma(t)^2 = exp(integral of beta) - 1, the noise rate beta rising from beta_min.
        exponent, _ = integrate.quad(lambda t: beta_min + beta_d * t, 0, c_noise / 999)
        assert math.isclose(level**2, math.expm1(exponent), rel_tol=1e-9)
    time = torch.linspace(1e-5, 1, 50, dtype=torch.float64)
    levels = vp_sigma(time, beta_d, beta_min)
    torch.testing.assert_close(denoiser.time(levels), time, rtol=1e-9, atol=1e-10)


def test_vp_s_ends_are_those_of_the_paper() -> None:
    denoiser = precondition(Listening(), VPPreconditioning())
    assert math.isclose(denoiser.sigma_max, math.sqrt(math.expm1(10.05)), rel_tol=1e-12)
    assert math.isclose(denoiser.sigma_max, 152.167, rel_tol=1e-5)
    assert math.isclose(denoiser.sigma_min, 0.001, rel_tol=1e-3)


def kept(j: np.ndarray | float, C_2: float = 0.008, M: int = 1000) -> np.ndarray:
    """iDDPM's alpha-bar, its steps counted from the noisiest."""
    return np.sin(np.pi / 2 * np.asarray(j) / (M * (C_2 + 1))) ** 2


def test_iddpm_s_levels_have_their_closed_form() -> None:
    """1 + u_j^2 = alpha-bar_M / alpha-bar_j where no step is clipped."""
    levels = iddpm_levels(0.001, 0.008, 1000).double().numpy()
    assert levels[-1] == 0
    assert (np.diff(levels) < 0).all()
    wanted = np.sqrt(kept(1000) / kept(np.arange(1, 1001)) - 1)
    clipped = kept(np.arange(0, 1000)) / kept(np.arange(1, 1001)) < 0.001
    assert clipped.nonzero()[0].tolist() == [0]
    np.testing.assert_allclose(levels[1:], wanted, rtol=2e-3)
    assert math.isclose(levels[0], math.sqrt((levels[1] ** 2 + 1) / 0.001 - 1), rel_tol=1e-5)
    assert math.isclose(levels[0], 20291, rel_tol=1e-3)  # EDM's appendix
    assert math.isclose(levels[999], 0.0064, rel_tol=2e-2)


def test_iddpm_rounds_to_the_nearest_level() -> None:
    config = IDDPMPreconditioning()
    denoiser, net, x, denoised = seen(config)
    levels = iddpm_levels(config.C_1, config.C_2, config.M).double().numpy()
    nearest = np.abs(SIGMA.numpy()[:, None] - levels[None]).argmin(1)
    np.testing.assert_array_equal(net.c_noise.numpy(), 999 - nearest)
    np.testing.assert_array_equal(denoiser.round_sigma(SIGMA).numpy(), levels[nearest])
    sigma = SIGMA.numpy()
    wanted = expected(x, np.ones(len(SIGMA)), -sigma, 1 / np.sqrt(1 + sigma**2))
    np.testing.assert_allclose(denoised.numpy(), wanted, rtol=1e-12, atol=1e-14)
    known = torch.from_numpy(levels)
    assert torch.equal(denoiser.round_sigma(known), known)
    ends = torch.tensor([0.0, 1e-9, 1e9], dtype=torch.float64)
    assert denoiser.round_sigma(ends).tolist() == [0, 0, levels[0]]
    assert (denoiser.sigma_min, denoiser.sigma_max) == (levels[999], levels[0])


@pytest.mark.parametrize(
    "config",
    [EDMPreconditioning(), VPPreconditioning(), VEPreconditioning(), EDM2Preconditioning()],
)
def test_other_denoisers_know_every_level(config: Preconditioning) -> None:
    denoiser = precondition(Listening(), config)
    assert torch.equal(denoiser.round_sigma(SIGMA), SIGMA)


def test_limits_of_edm_s_noise_level() -> None:
    free = precondition(Listening(), EDMPreconditioning())
    assert (free.sigma_min, free.sigma_max) == (0, math.inf)
    bound = precondition(Listening(), EDMPreconditioning(sigma_min=0.01, sigma_max=60))
    assert (bound.sigma_min, bound.sigma_max) == (0.01, 60)


@pytest.mark.parametrize("sigma", [torch.tensor(0.3), torch.full((4,), 0.3)])
def test_one_level_serves_all_images(sigma: Tensor) -> None:
    net = Listening()
    x = torch.randn(4, 3, 2, 2, generator=torch.Generator().manual_seed(0))
    denoised = precondition(net, EDMPreconditioning())(x, sigma)
    assert net.c_noise.shape == (4,)
    assert denoised.shape == x.shape
    assert denoised.dtype == torch.float32


def test_gaussian_data_are_denoised_exactly() -> None:
    """Of data N(0, s^2) the best D is s^2 x / (s^2 + sigma^2): with EDM's scalings F is zero."""

    class Zero(nn.Module):
        def forward(self, x: Tensor, c_noise: Tensor, labels: Tensor | None) -> Tensor:
            return torch.zeros_like(x)

    x = torch.ones(len(SIGMA), 1, 1, 1, dtype=torch.float64)
    denoised = precondition(Zero(), EDMPreconditioning(sigma_data=0.5))(x, SIGMA).flatten()
    torch.testing.assert_close(denoised, 0.25 / (0.25 + SIGMA**2))
