"""Sampler against the exact solution of the ODE on a Gaussian: the order, not only a number."""

import math

import pytest
import torch
from diffusers import EDMEulerScheduler
from hypothesis import given
from hypothesis import strategies as st

from sims_core.diffusion.config import SamplerConfig
from sims_core.diffusion.denoiser import EDMDenoiser
from sims_core.diffusion.gaussian import GaussianDenoiser
from sims_core.diffusion.sampler import euler_sample, heun_sample, karras_sigmas, make_sampler
from sims_core.nets.config import MLPConfig
from sims_core.nets.mlp import MLP

MEAN = torch.tensor([0.7, -0.4], dtype=torch.float64)
COVARIANCE = torch.tensor([[2.0, 1.0], [1.0, 2.0]], dtype=torch.float64)
SIGMA_MAX = 80.0
# The last step, sigma_min to 0, is Euler's and is not refined: its error, sigma_min^2 / (2 l), has
# to be far below what is measured.
SIGMA_MIN = 1e-5


class Counting:
    """Counts the evaluations of a denoiser."""

    def __init__(self, denoiser):
        self.denoiser, self.calls = denoiser, 0

    def __call__(self, x, sigma, labels=None):
        self.calls += 1
        return self.denoiser(x, sigma, labels)


def noise(count=16):
    generator = torch.Generator().manual_seed(0)
    return torch.randn(count, 2, generator=generator, dtype=torch.float64)


def exact_solution(noise):
    """x - mean grows as sqrt(l + sigma^2) along each eigenvector of the covariance."""
    eigenvalues, basis = torch.linalg.eigh(COVARIANCE)
    shrink = (eigenvalues / (eigenvalues + SIGMA_MAX**2)).sqrt()
    return MEAN + ((SIGMA_MAX * noise - MEAN) @ basis * shrink) @ basis.T


def errors(sample, steps=(64, 128, 256)):
    denoiser, exact = GaussianDenoiser(MEAN, COVARIANCE), exact_solution(noise())
    schedules = [karras_sigmas(n, SIGMA_MIN, SIGMA_MAX) for n in steps]
    return [(sample(denoiser, noise(), s) - exact).abs().max().item() for s in schedules]


def check_order(sample, order):
    """Doubling the steps divides the error by 2^order, to 10 %: the next term is O(1/steps)."""
    coarse, middle, fine = errors(sample)
    assert middle / fine == pytest.approx(2**order, rel=0.1)
    assert coarse / middle == pytest.approx(2**order, rel=0.15)


def heun_with_slope_at_the_wrong_sigma(denoiser, noise, sigmas, labels=None):
    """Known wrong: the second slope is taken at the old noise level."""
    x = noise * sigmas[0]
    for sigma, following in zip(sigmas[:-1], sigmas[1:], strict=True):
        slope = (x - denoiser(x, sigma)) / sigma
        euler = x + (following - sigma) * slope
        second = (euler - denoiser(euler, sigma)) / sigma
        x = x + (following - sigma) * (slope + second) / 2 if following > 0 else euler
    return x


def heun_without_average(denoiser, noise, sigmas, labels=None):
    """Known wrong: takes the second slope alone."""
    x = noise * sigmas[0]
    for sigma, following in zip(sigmas[:-1], sigmas[1:], strict=True):
        euler = x + (following - sigma) * (x - denoiser(x, sigma)) / sigma
        if following > 0:
            second = (euler - denoiser(euler, following)) / following
            x = x + (following - sigma) * second
        else:
            x = euler
    return x


def test_heun_is_of_second_order():
    check_order(heun_sample, 2)


def test_euler_is_of_first_order():
    check_order(euler_sample, 1)


@pytest.mark.parametrize("wrong", [heun_with_slope_at_the_wrong_sigma, heun_without_average])
def test_the_order_check_catches_wrong_samplers(wrong):
    with pytest.raises(AssertionError):
        check_order(wrong, 2)


def test_heun_reaches_the_exact_solution():
    # On samples of size about 5 (standard deviation up to 1.7): five correct digits.
    assert exact_solution(noise()).abs().max() > 2
    assert errors(heun_sample, steps=(1024,))[0] < 1e-4


def test_euler_agrees_with_diffusers():
    """EDMEulerScheduler as an independent oracle: it wants the raw F and applies the scalings."""
    torch.manual_seed(3)
    net = MLP(MLPConfig(dim=2, hidden_features=16))
    sigma_data, steps = 0.5, 12
    scheduler = EDMEulerScheduler(sigma_min=0.002, sigma_max=80.0, sigma_data=sigma_data)
    scheduler.set_timesteps(steps)
    start = torch.randn(32, 2, generator=torch.Generator().manual_seed(4))
    # Their first sample is scaled by init_noise_sigma = sqrt(sigma_max^2 + 1), ours by sigma_max.
    assert float(scheduler.init_noise_sigma) == pytest.approx(math.sqrt(80.0**2 + 1))
    x = start * 80.0
    with torch.no_grad():
        for t in scheduler.timesteps:
            raw = net(scheduler.scale_model_input(x, t), t.expand(32))
            x = scheduler.step(raw, t, x).prev_sample
    ours = euler_sample(EDMDenoiser(net, sigma_data), start, karras_sigmas(steps))
    assert x.std() > 0.1
    # float32: 80 * 6e-8 per step of rounding, 12 steps.
    torch.testing.assert_close(ours, x, rtol=1e-4, atol=1e-4)
    off = euler_sample(EDMDenoiser(net, sigma_data * 1.01), start, karras_sigmas(steps))
    assert (off - x).abs().max() > 1e-3  # the comparison notices 1 % in sigma_data


@given(
    num_steps=st.integers(1, 200),
    sigma_min=st.floats(1e-4, 1.0),
    ratio=st.floats(1.05, 1e6),
    rho=st.floats(1.0, 12.0),
)
def test_karras_sigmas_follow_equation_5(num_steps, sigma_min, ratio, rho):
    sigma_max = sigma_min * ratio
    sigmas = karras_sigmas(num_steps, sigma_min, sigma_max, rho)
    assert sigmas.dtype == torch.float64
    assert len(sigmas) == num_steps + 1
    assert sigmas[0].item() == sigma_max
    assert sigmas[-1].item() == 0
    assert (sigmas.diff() < 0).all()
    for i in range(1, num_steps):
        root = sigma_max ** (1 / rho) + i / (num_steps - 1) * (
            sigma_min ** (1 / rho) - sigma_max ** (1 / rho)
        )
        # Cancellation in the root: at most 1e6^(1/rho) = 1e6 ulps, times rho.
        assert sigmas[i].item() == pytest.approx(root**rho, rel=1e-8)


def test_karras_sigmas_by_hand():
    # rho = 1 is a straight line; rho = 2 squares one: 9, ((3 + 1) / 2)^2 = 4, 1.
    assert karras_sigmas(3, 1.0, 9.0, 1.0).tolist() == pytest.approx([9, 5, 1, 0])
    assert karras_sigmas(3, 1.0, 9.0, 2.0).tolist() == pytest.approx([9, 4, 1, 0])


@pytest.mark.parametrize(
    "arguments",
    [(0,), (-1,), (3, 0.0, 1.0), (3, 2.0, 1.0), (3, 1.0, 1.0), (3, 0.1, 1.0, 0.0)],
)
def test_impossible_schedules_are_refused(arguments):
    with pytest.raises(ValueError, match=r"num_steps|sigma_min"):
        karras_sigmas(*arguments)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("solver", ["heun", "euler"])
def test_dtype_of_the_noise_is_kept(solver, dtype):
    seen = set()

    def denoiser(x, sigma, labels=None):
        seen.update((x.dtype, sigma.dtype))
        return x / 2

    result = make_sampler(SamplerConfig(solver=solver, num_steps=3))(denoiser, noise().to(dtype))
    assert result.dtype == dtype
    assert seen == {dtype}


@given(solver=st.sampled_from(["heun", "euler"]), num_steps=st.integers(1, 30))
def test_evaluations_are_what_the_configuration_says(solver, num_steps):
    config = SamplerConfig(solver=solver, num_steps=num_steps)
    denoiser = Counting(GaussianDenoiser(MEAN, COVARIANCE))
    make_sampler(config)(denoiser, noise(1))
    assert denoiser.calls == config.nfe


def test_evaluations_of_the_published_settings():
    # EDM: 18 steps are 35 evaluations, 40 are 79; EDM2: 32 are 63.
    assert [SamplerConfig(num_steps=n).nfe for n in (18, 40, 32)] == [35, 79, 63]


@pytest.mark.parametrize("sample", [euler_sample, heun_sample])
def test_labels_reach_the_denoiser(sample):
    def denoiser(x, sigma, labels=None):
        return labels[:, None].to(x).expand_as(x)

    labels = torch.tensor([0, 3, 9])
    result = sample(denoiser, noise(3), karras_sigmas(5), labels)
    # A constant denoiser is where its ODE ends: the last step lands on it exactly but for rounding.
    torch.testing.assert_close(result, labels[:, None].double().expand(3, 2), rtol=0, atol=1e-9)


@pytest.mark.parametrize("sample", [euler_sample, heun_sample])
def test_no_gradient_is_recorded(sample):
    net = EDMDenoiser(MLP(MLPConfig()), 0.5)
    assert not sample(net, noise(2).float(), karras_sigmas(2)).requires_grad
