"""The oracle itself: the exact denoiser of a Gaussian and the variance of the guided ODE."""

import math

import pytest
import torch
from scipy.integrate import quad

from sims_core.diffusion.gaussian import GaussianDenoiser, guided_variance

MEAN = torch.tensor([0.3, -1.0, 2.0], dtype=torch.float64)
ROOT = torch.tensor([[1.0, 0.2, 0.0], [-0.5, 0.8, 0.1], [0.3, 0.0, 1.5]], dtype=torch.float64)
COVARIANCE = ROOT @ ROOT.T


@pytest.mark.parametrize("sigma", [1e-3, 0.3, 2.0, 80.0])
def test_posterior_mean_is_the_matrix_formula(sigma):
    x = torch.randn(5, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    noisy_covariance = COVARIANCE + sigma**2 * torch.eye(3, dtype=torch.float64)
    expected = MEAN + (COVARIANCE @ torch.linalg.solve(noisy_covariance, (x - MEAN).T)).T
    got = GaussianDenoiser(MEAN, COVARIANCE)(x, torch.tensor(sigma))
    # float64 throughout but for sigma's own float32 rounding (6e-8 relative).
    torch.testing.assert_close(got, expected, rtol=1e-6, atol=1e-9)


def test_sigma_may_differ_between_samples_and_dtype_is_kept():
    x = torch.randn(4, 3, generator=torch.Generator().manual_seed(2))
    sigmas = torch.tensor([0.1, 0.5, 2.0, 10.0])
    denoiser = GaussianDenoiser(MEAN, COVARIANCE)
    together = denoiser(x, sigmas)
    assert together.dtype == torch.float32
    singly = torch.cat([denoiser(x[i : i + 1], sigmas[i]) for i in range(4)])
    torch.testing.assert_close(together, singly, rtol=1e-6, atol=1e-7)


def test_singular_covariance_projects_onto_its_range():
    line = torch.tensor([[1.0, 1.0], [1.0, 1.0]])
    x = torch.tensor([[3.0, -3.0]], dtype=torch.float64)  # orthogonal to the range
    got = GaussianDenoiser(torch.zeros(2), line)(x, torch.tensor(0.1))
    torch.testing.assert_close(got, torch.zeros(1, 2, dtype=torch.float64), rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("mean", "covariance", "message"),
    [
        (torch.zeros(2), torch.eye(3), "need mean"),
        (torch.zeros(2, 1), torch.eye(2), "need mean"),
        (torch.zeros(2), torch.ones(2), "need mean"),
        (torch.zeros(2), torch.tensor([[1.0, 0.5], [0.0, 1.0]]), "symmetric"),
        (torch.zeros(2), torch.tensor([[1.0, 2.0], [2.0, 1.0]]), "positive semi-definite"),
        (torch.zeros(2), -torch.eye(2), "positive semi-definite"),
    ],
)
def test_impossible_gaussians_are_refused(mean, covariance, message):
    with pytest.raises(ValueError, match=message):
        GaussianDenoiser(mean, covariance)


@pytest.mark.parametrize("omega", [0.0, 0.5, 3.0])
def test_guided_variance_solves_the_ode(omega):
    # d ln x / d sigma = sigma ((1 + omega) / (l_r + sigma^2) - omega / (l_s + sigma^2)), by
    # numerical quadrature; quad's own error is below 1e-8.
    base, auxiliary, top = 1.7, 1.2, 80.0

    def rate(s):
        return s * ((1 + omega) / (base + s**2) - omega / (auxiliary + s**2))

    integral, _ = quad(rate, 0, top, limit=200)
    expected = top**2 * math.exp(-2 * integral)
    got = guided_variance(torch.tensor(base), torch.tensor(auxiliary), omega, top)
    assert got.item() == pytest.approx(expected, rel=1e-5)  # float32 arguments


def test_guided_variance_tends_to_its_limit():
    base = torch.tensor([2.0, 0.5], dtype=torch.float64)
    auxiliary = torch.tensor([1.5, 0.7], dtype=torch.float64)
    limit = guided_variance(base, auxiliary, 1.5)
    torch.testing.assert_close(limit, base * (base / auxiliary) ** 1.5)
    # l / M^2 = 2e-8 at M = 1e4.
    torch.testing.assert_close(guided_variance(base, auxiliary, 1.5, 1e4), limit, rtol=1e-6, atol=0)
