"""EDM's preconditioning and loss against closed forms."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from sims_core.diffusion.denoiser import EDMDenoiser, edm_loss, per_sample
from sims_core.diffusion.gaussian import GaussianDenoiser

SIGMA_DATA = 0.5
SAMPLES = 400_000


class Recorder(nn.Module):
    """A raw network that predicts a constant and remembers what it was given."""

    def __init__(self, value=0.0):
        super().__init__()
        self.value = value

    def forward(self, x, c_noise, labels=None):
        self.x, self.c_noise, self.labels = x, c_noise, labels
        return torch.full_like(x, self.value)


def randn(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("sigma", [0.002, 0.1, 0.5, 3.0, 80.0])
def test_network_sees_and_predicts_unit_variance(sigma):
    clean = SIGMA_DATA * randn(SAMPLES, 1)
    noisy = clean + sigma * randn(SAMPLES, 1, seed=1)
    net = Recorder()
    skipped = EDMDenoiser(net, SIGMA_DATA)(noisy, torch.tensor(sigma))
    # The standard deviation of 400,000 draws is known to 1 / sqrt(2 n) = 0.11 %; 5 of these.
    assert net.x.std().item() == pytest.approx(1, rel=0.006)
    # What F has to predict: (clean - c_skip x) / c_out, with c_out read off a constant network.
    c_out = (EDMDenoiser(Recorder(1.0), SIGMA_DATA)(noisy, torch.tensor(sigma)) - skipped).mean()
    assert ((clean - skipped) / c_out).std().item() == pytest.approx(1, rel=0.006)


@pytest.mark.parametrize("sigma", [0.01, 0.5, 20.0])
def test_zero_network_is_c_skip_x(sigma):
    x = randn(6, 1, 4, 4)
    got = EDMDenoiser(Recorder(), SIGMA_DATA)(x, torch.tensor(sigma, dtype=torch.float64))
    expected = x * SIGMA_DATA**2 / (sigma**2 + SIGMA_DATA**2)
    torch.testing.assert_close(got, expected, rtol=1e-12, atol=0)


def test_scalings_of_table_1():
    sigma, net = 2.0, Recorder(3.0)
    x = randn(4, 2)
    got = EDMDenoiser(net, SIGMA_DATA)(x, torch.tensor(sigma), torch.arange(4))
    total = sigma**2 + SIGMA_DATA**2
    torch.testing.assert_close(net.x, x / math.sqrt(total))
    torch.testing.assert_close(net.c_noise, torch.full((4,), math.log(sigma) / 4).double())
    assert net.labels.tolist() == [0, 1, 2, 3]
    skip, out = SIGMA_DATA**2 / total, sigma * SIGMA_DATA / math.sqrt(total)
    torch.testing.assert_close(got, skip * x + out * 3.0)


def test_sigma_per_sample_equals_sigma_singly():
    x, sigmas = randn(3, 1, 2, 2), torch.tensor([0.1, 1.0, 10.0], dtype=torch.float64)
    denoiser = EDMDenoiser(Recorder(0.5), SIGMA_DATA)
    singly = torch.cat([denoiser(x[i : i + 1], sigmas[i]) for i in range(3)])
    torch.testing.assert_close(denoiser(x, sigmas), singly)


def test_per_sample_broadcasts_over_any_rank():
    assert per_sample(torch.tensor(2.0), torch.zeros(3, 1, 4, 4)).shape == (3, 1, 1, 1)
    assert per_sample(torch.tensor([1.0, 2.0]), torch.zeros(2, 5)).tolist() == [[1.0], [2.0]]
    assert per_sample(torch.tensor(2.0), torch.zeros(3, 2, dtype=torch.float64)).dtype is (
        torch.float64
    )


def test_loss_of_a_zero_network_is_one():
    clean = (SIGMA_DATA * randn(SAMPLES, 1)).float()
    loss = edm_loss(
        EDMDenoiser(Recorder(), SIGMA_DATA), clean, torch.Generator().manual_seed(2), -1.2, 1.2
    )
    # Each term is a squared standard normal: deviation sqrt(2 / n) = 0.22 %; 5 of these.
    assert loss.item() == pytest.approx(1, rel=0.011)


@pytest.mark.parametrize(("P_mean", "P_std"), [(-1.2, 1.2), (0.5, 0.3)])
def test_loss_of_the_exact_denoiser_has_its_closed_form(P_mean, P_std):
    """E over x of weight * error^2 is (s^2 + sd^2) l / (sd^2 (l + s^2)); over ln s: quadrature."""
    eigenvalues = torch.tensor([1.0, 0.04], dtype=torch.float64)
    exact = GaussianDenoiser(torch.zeros(2), torch.diag(eigenvalues))
    exact.sigma_data = SIGMA_DATA
    nodes, weights = np.polynomial.hermite_e.hermegauss(80)
    sigma2 = np.exp(2 * (P_mean + P_std * nodes))
    expected = np.mean(
        [
            np.sum(weights * (sigma2 + SIGMA_DATA**2) * lam / (SIGMA_DATA**2 * (lam + sigma2)))
            / math.sqrt(2 * math.pi)
            for lam in eigenvalues.tolist()
        ]
    )
    clean = randn(SAMPLES, 2, seed=3) * eigenvalues.sqrt()
    loss = edm_loss(exact, clean, torch.Generator().manual_seed(4), P_mean, P_std)
    # Terms are (0 to 4) times a squared standard normal: deviation below 0.5 %; about 3 of these.
    assert loss.item() == pytest.approx(expected, rel=0.015)
    assert abs(expected - 1) > 0.05  # or a zero network would pass as well


def test_loss_draws_from_its_generator_alone():
    clean = randn(64, 2).float()
    denoiser = EDMDenoiser(Recorder(0.3), SIGMA_DATA)

    def loss(seed):
        return edm_loss(denoiser, clean, torch.Generator().manual_seed(seed), -1.2, 1.2)

    first = loss(5)
    torch.manual_seed(99)
    before = torch.get_rng_state()
    assert torch.equal(loss(5), first)
    assert torch.equal(torch.get_rng_state(), before)
    assert not torch.equal(loss(6), first)
