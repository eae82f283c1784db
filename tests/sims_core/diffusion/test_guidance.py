"""The SIMS combination: exact on Gaussians, and its conventions."""

import math

import pytest
import torch

from sims_core.common.errors import BadInput
from sims_core.diffusion.gaussian import GaussianDenoiser, guided_variance
from sims_core.diffusion.guidance import negative_guidance
from sims_core.diffusion.sampler import heun_sample, karras_sigmas

BASIS = torch.linalg.qr(torch.tensor([[2.0, 1.0], [-1.0, 3.0]], dtype=torch.float64)).Q
L_R = torch.tensor([3.0, 0.8], dtype=torch.float64)
L_S = torch.tensor([2.2, 1.1], dtype=torch.float64)


def gaussian(eigenvalues, mean=(0.0, 0.0)):
    return GaussianDenoiser(torch.tensor(mean), BASIS @ torch.diag(eigenvalues) @ BASIS.T)


def covariance_of_the_samples(denoiser, num_steps=300):
    """Exact: with zero means the sampler is linear, so two basis vectors give its matrix."""
    matrix = heun_sample(
        denoiser, torch.eye(2, dtype=torch.float64), karras_sigmas(num_steps, 1e-4, 80.0)
    )
    return matrix.T @ matrix


@pytest.mark.parametrize("omega", [0.0, 0.3, 1.0, 2.5, 4.0])
def test_guided_samples_have_the_closed_form_variance(omega):
    guided = negative_guidance(gaussian(L_R), gaussian(L_S), omega)
    expected = BASIS @ torch.diag(guided_variance(L_R, L_S, omega, 80.0)) @ BASIS.T
    # Heun's own error at 300 steps; the off-diagonal is compared on the scale of the diagonal.
    torch.testing.assert_close(
        covariance_of_the_samples(guided), expected, rtol=1e-3, atol=1e-3 * L_R.min().item()
    )


def test_the_variance_check_tells_conventions_apart():
    # EDM2's guidance = 1 + omega taken for omega, and the sign turned: both off by over 10 %.
    right = guided_variance(L_R, L_S, 1.0, 80.0)
    for wrong in (guided_variance(L_R, L_S, 2.0, 80.0), guided_variance(L_R, L_S, -1.0, 80.0)):
        assert ((wrong / right - 1).abs() > 0.1).all()


@pytest.mark.parametrize("omega", [0.1, 1.0, 3.0])
def test_combination_is_edm2s_lerp(omega):
    base, auxiliary = gaussian(L_R, (1.0, 0.0)), gaussian(L_S, (0.0, -1.0))
    x = torch.randn(8, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    sigma = torch.tensor(0.7, dtype=torch.float64)
    expected = torch.lerp(auxiliary(x, sigma), base(x, sigma), 1 + omega)
    got = negative_guidance(base, auxiliary, omega)(x, sigma)
    torch.testing.assert_close(got, expected, rtol=1e-12, atol=1e-12)
    # Toward the base and past it, away from the auxiliary.
    away = ((got - base(x, sigma)) * (base(x, sigma) - auxiliary(x, sigma))).sum(1)
    assert (away > 0).all()


@pytest.mark.parametrize("omega", [0.5, 1.0, 7.0])
def test_auxiliary_equal_to_base_makes_omega_a_no_op(omega):
    base = gaussian(L_R, (1.0, -2.0))
    x = torch.randn(8, 2, generator=torch.Generator().manual_seed(0))
    guided = negative_guidance(base, base, omega)
    assert torch.equal(guided(x, torch.tensor(0.5)), base(x, torch.tensor(0.5)))


def test_omega_zero_is_the_base_and_never_asks_the_auxiliary():
    base = gaussian(L_R)

    def forbidden(x, sigma, labels=None):
        raise AssertionError("the auxiliary was evaluated")

    assert negative_guidance(base, forbidden, 0.0) is base
    noise = torch.randn(4, 2, generator=torch.Generator().manual_seed(1))
    sampled = heun_sample(negative_guidance(base, forbidden, 0), noise, karras_sigmas(6))
    assert torch.equal(sampled, heun_sample(base, noise, karras_sigmas(6)))


def test_omega_one_is_guided():
    # The trap of a known fork: testing `guidance == 1` for "off" once guidance means omega.
    x = torch.ones(1, 2, dtype=torch.float64)
    guided = negative_guidance(gaussian(L_R), gaussian(L_S), 1.0)
    assert not torch.allclose(guided(x, torch.tensor(1.0)), gaussian(L_R)(x, torch.tensor(1.0)))


@pytest.mark.parametrize("omega", [-0.1, -1e-300, math.nan, math.inf, -math.inf])
def test_impossible_omegas_are_refused(omega):
    with pytest.raises(BadInput, match="omega"):
        negative_guidance(gaussian(L_R), gaussian(L_S), omega)


def test_labels_reach_both_denoisers():
    def by_label(factor):
        return lambda x, sigma, labels=None: factor * labels[:, None].to(x).expand_as(x)

    guided = negative_guidance(by_label(1.0), by_label(3.0), 0.5)
    got = guided(torch.zeros(2, 2), torch.tensor(1.0), torch.tensor([1, 2]))
    # 1.5 * 1 - 0.5 * 3 = 0, times the label
    assert torch.equal(got, torch.zeros(2, 2))
