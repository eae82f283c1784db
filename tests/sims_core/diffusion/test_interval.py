"""Guidance in an interval of sigma: what it samples, and that what it saves is saved."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError
from scipy.integrate import quad, solve_ivp

from sims_core.diffusion.config import SamplerConfig, SigmaInterval, is_within
from sims_core.diffusion.gaussian import GaussianDenoiser, guided_gaussian, guided_variance
from sims_core.diffusion.guidance import negative_guidance
from sims_core.diffusion.sampler import auxiliary_evaluations, karras_sigmas, make_sampler

BASE = GaussianDenoiser(torch.tensor([0.5, -1.0]), torch.diag(torch.tensor([3.0, 0.8])))
AUXILIARY = GaussianDenoiser(torch.tensor([0.2, 0.3]), torch.diag(torch.tensor([2.2, 1.1])))


class Counted:
    """A denoiser that remembers the noise levels that it was asked for."""

    def __init__(self, denoiser):
        self.denoiser, self.levels = denoiser, []

    def __call__(self, x, sigma, labels=None):
        self.levels.append(float(sigma))
        return self.denoiser(x, sigma, labels)


@given(
    solver=st.sampled_from(["heun", "euler"]),
    num_steps=st.integers(1, 40),
    rho=st.floats(1, 10),
    low=st.floats(0, 30),
    width=st.floats(1e-3, 90),
    dtype=st.sampled_from([torch.float32, torch.float64]),
)
def test_the_calls_of_the_auxiliary_are_those_that_are_counted(
    solver, num_steps, rho, low, width, dtype
):
    config = SamplerConfig(solver=solver, num_steps=num_steps, rho=rho)
    interval = (low, low + width)
    base, auxiliary = Counted(BASE), Counted(AUXILIARY)
    guided = negative_guidance(base, auxiliary, 1.0, interval)
    noise = torch.randn(3, 2, generator=torch.Generator().manual_seed(0), dtype=dtype)
    make_sampler(config)(guided, noise)
    assert len(base.levels) == config.nfe
    assert len(auxiliary.levels) == auxiliary_evaluations(config, interval)
    assert all(is_within(level, interval) for level in auxiliary.levels)
    outside = [level for level in base.levels if not is_within(level, interval)]
    assert len(outside) == len(base.levels) - len(auxiliary.levels), "a whole batch at a time"


def test_the_second_evaluation_of_a_step_counts_by_its_own_level():
    """Heun, three steps at 80, 8 and 0.5: at 80, then 8 twice, then 0.5 twice."""
    config = SamplerConfig(num_steps=3, sigma_min=0.5)
    top, middle, bottom = config.levels
    calls = {
        (top - 1, top + 1): 1,
        (middle, middle + 1): 2,
        (middle - 1, middle): 2,
        (bottom, middle): 4,
        (bottom, top): 5,
    }
    for interval, expected in calls.items():
        auxiliary = Counted(AUXILIARY)
        make_sampler(config)(negative_guidance(BASE, auxiliary, 1.0, interval), torch.ones(2, 2))
        assert len(auxiliary.levels) == expected == auxiliary_evaluations(config, interval)
    euler = config.model_copy(update={"solver": "euler"})
    assert auxiliary_evaluations(euler, (bottom, middle)) == 2
    assert auxiliary_evaluations(euler, None) == euler.nfe == 3


@given(st.integers(1, 300), st.floats(1e-3, 1.0), st.floats(1.5, 200), st.floats(0.5, 12))
def test_levels_are_those_of_the_sampler(num_steps, low, high, rho):
    config = SamplerConfig(num_steps=num_steps, sigma_min=low, sigma_max=high, rho=rho)
    expected = karras_sigmas(num_steps, low, high, rho)[:-1].tolist()
    assert config.levels == pytest.approx(expected, rel=1e-12)


def test_rounded_levels_count_where_they_are_rounded_to():
    """As of networks that know a few levels: 8.4 counts as 8 inside [0, 8]."""
    config, auxiliary = SamplerConfig(num_steps=11, sigma_min=1.0), Counted(AUXILIARY)
    make_sampler(config, torch.round)(
        negative_guidance(BASE, auxiliary, 1.0, (0.0, 8.0)), torch.ones(1, 2)
    )
    assert any(8 < level < 8.5 for level in config.levels)
    assert len(auxiliary.levels) == auxiliary_evaluations(config, (0.0, 8.0), torch.round)
    assert len(auxiliary.levels) > auxiliary_evaluations(config, (0.0, 8.0))


def test_the_whole_range_is_no_interval_and_none_of_it_is_the_base():
    noise = torch.randn(16, 2, generator=torch.Generator().manual_seed(1))
    sample = make_sampler(SamplerConfig())
    whole = sample(negative_guidance(BASE, AUXILIARY, 1.5), noise)
    assert torch.equal(sample(negative_guidance(BASE, AUXILIARY, 1.5, (0.002, 80.0)), noise), whole)
    beyond = sample(negative_guidance(BASE, AUXILIARY, 1.5, (90.0, 100.0)), noise)
    assert torch.equal(beyond, sample(BASE, noise))
    assert not torch.allclose(beyond, whole)


@pytest.mark.parametrize("interval", [(0.0, 1.0), (0.4, 3.0), (2.0, 80.0)])
def test_variance_in_an_interval_solves_the_ode(interval):
    base, auxiliary, omega, top = 1.7, 1.2, 2.0, 80.0

    def rate(s):
        inside = omega if interval[0] <= s <= interval[1] else 0.0
        return s * ((1 + inside) / (base + s**2) - inside / (auxiliary + s**2))

    points = sorted({0.0, *interval, top})
    integral = sum(quad(rate, a, b, limit=200)[0] for a, b in zip(points, points[1:], strict=False))
    expected = top**2 * math.exp(-2 * integral)
    tensors = (torch.tensor(value, dtype=torch.float64) for value in (base, auxiliary))
    assert float(guided_variance(*tensors, omega, top, interval)) == pytest.approx(
        expected, rel=1e-7
    )


@pytest.mark.parametrize("interval", [(0.0, 1.0), (0.4, 3.0), (2.0, math.inf)])
def test_mean_and_variance_in_an_interval_solve_the_ode(interval):
    """Against a general integrator, in one dimension, from far out."""
    m_r, l_r, m_s, l_s, omega, top = 0.3, 1.7, -0.6, 1.1, 1.5, 3e4

    def slope(s, x):
        own, other = s * (x - m_r) / (l_r + s**2), s * (x - m_s) / (l_s + s**2)
        return own + (omega * (own - other) if interval[0] <= s <= interval[1] else 0)

    def end(x):
        points = sorted({top, *(p for p in interval if p < top), 0.0}, reverse=True)
        for a, b in zip(points, points[1:], strict=False):
            x = solve_ivp(slope, (a, b), [x], rtol=1e-9, atol=1e-12, method="DOP853").y[0, -1]
        return x

    mean = end(0.0)
    variance = (end(top) - mean) ** 2
    tensors = (
        (torch.tensor([m]).double(), torch.tensor([[v]]).double())
        for m, v in ((m_r, l_r), (m_s, l_s))
    )
    got_mean, got_variance = guided_gaussian(*tensors, omega, interval)
    assert float(got_mean) == pytest.approx(mean, abs=1e-4)
    assert float(got_variance) == pytest.approx(variance, rel=1e-5)


def test_samples_guided_in_an_interval_have_the_closed_form_variance():
    """The sampler, at many steps of which none straddles an end by much."""
    interval = (0.4, 3.0)
    centred = [GaussianDenoiser(torch.zeros(2), each.covariance) for each in (BASE, AUXILIARY)]
    guided = negative_guidance(*centred, 1.0, interval)
    config = SamplerConfig(num_steps=1000, sigma_min=1e-3)
    matrix = make_sampler(config)(guided, torch.eye(2, dtype=torch.float64))
    l_r, l_s = (each.covariance.diagonal().double() for each in centred)
    expected = guided_variance(l_r, l_s, 1.0, 80.0, interval)
    torch.testing.assert_close((matrix.T @ matrix).diagonal(), expected, rtol=2e-3, atol=0)
    everywhere = guided_variance(l_r, l_s, 1.0, 80.0)
    assert ((expected / everywhere - 1).abs() > 0.02).all(), "or the test would mean little"


@pytest.mark.parametrize("bad", [(2.0, 1.0), (1.0, 1.0), (-1.0, 2.0), (0.0, math.nan)])
def test_what_is_no_interval_is_refused(bad):
    with pytest.raises(ValidationError, match="want 0 <= low < high"):
        TypeAdapter(SigmaInterval).validate_python(bad)
