"""Classifier-free guidance: exact on Gaussians, its conventions, and its cost."""

import math

import pytest
import torch
from pydantic import ValidationError

from sims_core.common.errors import BadInput
from sims_core.diffusion.config import SamplerConfig
from sims_core.diffusion.gaussian import GaussianDenoiser, guided_gaussian, guided_variance
from sims_core.diffusion.guidance import class_guidance, negative_guidance
from sims_core.diffusion.sampler import heun_sample, karras_sigmas

BASIS = torch.linalg.qr(torch.tensor([[2.0, 1.0], [-1.0, 3.0]], dtype=torch.float64)).Q
L_CLASS = torch.tensor([1.5, 0.4], dtype=torch.float64)
L_ANY = torch.tensor([3.0, 0.8], dtype=torch.float64)
LABELS = torch.zeros(2, dtype=torch.long)


def covariance(eigenvalues):
    return BASIS @ torch.diag(eigenvalues) @ BASIS.T


class TwoGaussians:
    """A model that knows p(x | class) and p(x), and counts how often it is asked."""

    def __init__(self, of_class=(0.0, 0.0), of_any=(0.0, 0.0), factor=1.0):
        self.with_class = GaussianDenoiser(torch.tensor(of_class), factor * covariance(L_CLASS))
        self.without = GaussianDenoiser(torch.tensor(of_any), factor * covariance(L_ANY))
        self.asked = 0

    def __call__(self, x, sigma, labels=None):
        self.asked += 1
        return (self.without if labels is None else self.with_class)(x, sigma)


def covariance_of_the_samples(denoiser, num_steps=300):
    """Exact: with zero means the sampler is linear, so two basis vectors give its matrix."""
    noise = torch.eye(2, dtype=torch.float64)
    matrix = heun_sample(denoiser, noise, karras_sigmas(num_steps, 1e-4, 80.0), LABELS)
    return matrix.T @ matrix


@pytest.mark.parametrize("w", [0.0, 0.5, 1.0, 3.0])
@pytest.mark.parametrize("sigma", [0.1, 1.0, 20.0])
def test_the_score_is_that_of_the_product_distribution(w, sigma):
    """p(x | class)^(1 + w) / p(x)^w of two noised Gaussians, by autograd of its log density."""
    model = TwoGaussians((1.0, -0.5), (0.2, 0.3))
    x = torch.randn(2, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    x.requires_grad_(True)
    noise = sigma**2 * torch.eye(2, dtype=torch.float64)
    log = [
        torch.distributions.MultivariateNormal(each.mean.double(), each.covariance + noise)
        for each in (model.with_class, model.without)
    ]
    density = (1 + w) * log[0].log_prob(x) - w * log[1].log_prob(x)
    (expected,) = torch.autograd.grad(density.sum(), x)
    guided = class_guidance(model, w)(x.detach(), torch.tensor(sigma, dtype=x.dtype), LABELS)
    torch.testing.assert_close((guided - x.detach()) / sigma**2, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("w", [0.0, 1.0, 2.5])
def test_samples_have_the_closed_form(w):
    got = covariance_of_the_samples(class_guidance(TwoGaussians(), w))
    expected = covariance(guided_variance(L_CLASS, L_ANY, w, 80.0))
    torch.testing.assert_close(got, expected, rtol=1e-3, atol=1e-3 * L_CLASS.min().item())


def test_samples_have_the_closed_form_mean():
    """At w = 1 the classes are further apart than they are: what guidance is known for."""
    w, mean = 1.0, torch.tensor([2.0, -1.0], dtype=torch.float64)
    model = TwoGaussians((2.0, -1.0))
    zero = torch.zeros_like(mean)
    expected, _ = guided_gaussian((mean, covariance(L_CLASS)), (zero, covariance(L_ANY)), w)
    start = torch.zeros(2, 2, dtype=torch.float64)
    sigmas = karras_sigmas(600, 1e-4, 2000.0)
    got = heun_sample(class_guidance(model, w), start, sigmas, LABELS)[0]
    torch.testing.assert_close(got, expected, rtol=3e-3, atol=3e-3)
    assert expected.norm() > 1.2 * mean.norm()


def test_zero_is_the_model_itself_bit_for_bit():
    model = TwoGaussians((1.0, 0.0))
    assert class_guidance(model, 0.0) is model
    noise = torch.randn(2, 2, generator=torch.Generator().manual_seed(1))
    guided = heun_sample(class_guidance(model, 0), noise, karras_sigmas(6), LABELS)
    assert torch.equal(guided, heun_sample(model, noise, karras_sigmas(6), LABELS))


def test_one_is_guided():
    """Zero is the only "off", as a known fork's `guidance == 1` is not."""
    x, sigma = torch.ones(2, 2, dtype=torch.float64), torch.tensor(1.0)
    model = TwoGaussians()
    assert not torch.allclose(class_guidance(model, 1.0)(x, sigma, LABELS), model(x, sigma, LABELS))


@pytest.mark.parametrize(("w", "omega"), [(0.0, 0.0), (1.0, 0.0), (0.0, 1.0), (1.0, 2.0)])
def test_both_guidances_are_one_product(w, omega):
    """Each network is guided by its own answer without a class, then SIMS's negative guidance: in
    logarithms (1 + omega) [(1 + w) b_c - w b] - omega [(1 + w) a_c - w a]."""
    base, auxiliary = TwoGaussians(), TwoGaussians(factor=0.9)
    both = negative_guidance(class_guidance(base, w), class_guidance(auxiliary, w), omega)
    x = torch.randn(2, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    sigma = torch.tensor(0.7, dtype=torch.float64)
    b_c, b, a_c, a = (
        model(x, sigma)
        for model in (base.with_class, base.without, auxiliary.with_class, auxiliary.without)
    )
    expected = (1 + omega) * ((1 + w) * b_c - w * b) - omega * ((1 + w) * a_c - w * a)
    torch.testing.assert_close(both(x, sigma, LABELS), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("solver", ["heun", "euler"])
@pytest.mark.parametrize("w", [0.0, 0.3, 1.0])
def test_evaluations_are_counted(solver, w):
    config = SamplerConfig(solver=solver, num_steps=5, class_guidance=w)
    from sims_core.diffusion.sampler import make_sampler

    model = TwoGaussians()
    make_sampler(config)(class_guidance(model, w), torch.zeros(2, 2), LABELS)
    assert model.asked == config.nfe


def test_the_sampling_bias():
    assert SamplerConfig().sampling_bias == 1
    assert SamplerConfig(class_guidance=1).sampling_bias == 0.5
    assert SamplerConfig(class_guidance=3).sampling_bias == 0.25


def test_it_is_named_in_a_digest_only_where_it_is_used():
    assert "class_guidance" not in SamplerConfig(class_guidance=0).model_dump()
    assert SamplerConfig(class_guidance=1).model_dump()["class_guidance"] == 1


@pytest.mark.parametrize("w", [-0.1, math.nan, math.inf])
def test_impossible_strengths_are_refused(w):
    with pytest.raises(BadInput, match="class_guidance"):
        class_guidance(TwoGaussians(), w)
    with pytest.raises(ValidationError, match="class_guidance"):
        SamplerConfig(class_guidance=w)


def test_images_without_labels_are_refused():
    with pytest.raises(BadInput, match="needs labels"):
        class_guidance(TwoGaussians(), 1.0)(torch.zeros(2, 2), torch.tensor(1.0))
