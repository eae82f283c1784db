"""Closed forms of Gaussians against the ODE, POT and one another."""

import ot
import pytest
import torch

from sims_core.diffusion.config import SamplerConfig
from sims_core.diffusion.gaussian import (
    GaussianDenoiser,
    commute,
    draw_gaussian,
    gaussian_w2,
    guided_gaussian,
    guided_variance,
    moments,
)
from sims_core.diffusion.guidance import negative_guidance
from sims_core.diffusion.noise import generator
from sims_core.diffusion.sampler import heun_sample, karras_sigmas
from sims_core.nets.exact_gaussian import GaussianModel
from sims_core.sampling.points import generated_gaussian

FINE = SamplerConfig(num_steps=400, sigma_min=1e-4, sigma_max=1000.0)


def covariances(replicates: int = 3, dim: int = 2, seed: int = 0) -> torch.Tensor:
    root = torch.randn(replicates, dim, dim, generator=generator(seed, "root")).double()
    return root @ root.mT + 0.3 * torch.eye(dim)


def means(replicates: int = 3, dim: int = 2, seed: int = 1) -> torch.Tensor:
    return torch.randn(replicates, dim, generator=generator(seed, "mean")).double()


def by_the_ode(base: GaussianModel, auxiliary: GaussianModel, omega: float) -> GaussianModel:
    """A fine solution from a few points, kept apart from the code under test."""
    guided = negative_guidance(base.denoiser, auxiliary.denoiser, omega)
    replicates, dim = base.mean.shape
    start = torch.cat([torch.zeros(1, dim), torch.eye(dim)]).double().expand(replicates, -1, -1)
    sigmas = karras_sigmas(FINE.num_steps, FINE.sigma_min, FINE.sigma_max)
    end = heun_sample(guided, start, sigmas)
    columns = end[:, 1:] - end[:, :1]
    return GaussianModel(end[:, 0], columns.mT @ columns)


def test_a_batch_of_denoisers_is_each_of_them():
    mean, covariance = means(), covariances()
    x = torch.randn(3, 50, 2, generator=generator(2, "x")).double()
    for sigma in (torch.tensor(0.7), torch.rand(3, 50, generator=generator(3, "s")) + 0.1):
        together = GaussianDenoiser(mean, covariance)(x, sigma)
        for r in range(3):
            own = sigma if sigma.dim() == 0 else sigma[r]
            alone = GaussianDenoiser(mean[r], covariance[r])(x[r], own)
            torch.testing.assert_close(together[r], alone, rtol=1e-12, atol=1e-12)
    assert (together[0] - together[1]).abs().max() > 0.1  # they are different Gaussians


@pytest.mark.parametrize("omega", [0.5, 1.0, 3.0])
def test_guidance_in_closed_form_is_what_the_ode_reaches(omega):
    basis = torch.linalg.eigh(covariances(1)[0])[1]
    base = GaussianModel(means(1), (basis * torch.tensor([2.0, 0.7]).double() @ basis.T)[None])
    other = (basis * torch.tensor([2.3, 0.6]).double() @ basis.T)[None]
    auxiliary = GaussianModel(base.mean + 0.2, other)
    mean, covariance = guided_gaussian(
        (base.mean, base.covariance), (auxiliary.mean, auxiliary.covariance), omega
    )
    reached = by_the_ode(base, auxiliary, omega)
    # Second order over 400 steps, and sigma_max = 1000 instead of infinity: about four digits.
    torch.testing.assert_close(mean, reached.mean, rtol=2e-3, atol=2e-3)
    torch.testing.assert_close(covariance, reached.covariance, rtol=2e-3, atol=2e-3)
    # The guess that means are extrapolated like denoisers is wrong where variances differ.
    naive = base.mean + omega * (base.mean - auxiliary.mean)
    assert (naive - reached.mean).abs().max() > 5e-3


def test_equal_variances_shift_the_mean_by_omega():
    covariance = covariances(2)
    mean = means(2)
    shifted, same = guided_gaussian((mean, covariance), (mean + 0.1, covariance), 3.0)
    torch.testing.assert_close(shifted, mean - 0.3, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(same, covariance, rtol=1e-9, atol=1e-9)


def test_the_common_basis_is_found_when_the_base_is_isotropic():
    auxiliary = covariances(1)
    base = 1.5 * torch.eye(2).double()[None]
    _, covariance = guided_gaussian((means(1), base), (means(1), auxiliary), 1.0)
    values = torch.linalg.eigvalsh(auxiliary[0])
    expected = guided_variance(torch.full_like(values, 1.5), values, 1.0).sort().values
    torch.testing.assert_close(torch.linalg.eigvalsh(covariance[0]), expected)


def test_covariances_that_do_not_commute_go_through_the_ode():
    base, auxiliary = (GaussianModel(means(seed=s), covariances(seed=s)) for s in (4, 5))
    assert not commute(base.covariance, auxiliary.covariance)
    with pytest.raises(ValueError, match="commute"):
        guided_gaussian((base.mean, base.covariance), (auxiliary.mean, auxiliary.covariance), 0.5)
    found = generated_gaussian(base, auxiliary, 0.5, FINE)
    reached = by_the_ode(base, auxiliary, 0.5)
    torch.testing.assert_close(found.mean, reached.mean)
    torch.testing.assert_close(found.covariance, reached.covariance)
    # It is the affine map's image of the noise, so points drawn through the ODE have its moments.
    noise = torch.randn(3, 20_000, 2, generator=generator(6, "noise")).double()
    guided = negative_guidance(base.denoiser, auxiliary.denoiser, 0.5)
    drawn = heun_sample(guided, noise, karras_sigmas(60))
    coarse = generated_gaussian(base, auxiliary, 0.5, SamplerConfig(num_steps=60))
    distance = gaussian_w2(*moments(drawn), coarse.mean, coarse.covariance)
    assert float(distance.max()) < 0.1  # sampling error of 20,000 points of variance up to 10


def test_w2_agrees_with_pot():
    mean, covariance = means(), covariances()
    other_mean, other = means(seed=8), covariances(seed=9)
    ours = gaussian_w2(mean, covariance, other_mean[0], other[0])
    for r in range(3):
        theirs = ot.gaussian.bures_wasserstein_distance(
            mean[r].numpy(), other_mean[0].numpy(), covariance[r].numpy(), other[0].numpy()
        )
        assert float(ours[r]) == pytest.approx(float(theirs), rel=1e-8)
    assert float(gaussian_w2(mean, covariance, mean, covariance).max()) < 1e-6


def test_drawn_points_have_the_moments_asked_for():
    mean, covariance = means(), covariances()
    noise = torch.randn(3, 40_000, 2, generator=generator(7, "noise")).double()
    got_mean, got = moments(draw_gaussian(mean, covariance, noise), unbiased=True)
    # Standard error of a mean: sqrt(variance / 40,000), at most 0.015 here.
    torch.testing.assert_close(got_mean, mean, rtol=0, atol=0.06)
    torch.testing.assert_close(got, covariance, rtol=0.05, atol=0.05)
    ml = moments(torch.tensor([[[0.0], [2.0]]]))[1]
    assert float(ml) == 1.0  # over n, as maximum likelihood has it
    assert float(moments(torch.tensor([[[0.0], [2.0]]]), unbiased=True)[1]) == 2.0
