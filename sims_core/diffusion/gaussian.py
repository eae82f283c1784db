"""Gaussians, for which everything is known in closed form: oracle of the tests, and a model."""

from __future__ import annotations

import math

import numpy
import torch
from torch import Tensor

from sims_core.diffusion.config import SigmaInterval
from sims_core.diffusion.denoiser import per_sample


class GaussianDenoiser:
    """The exact denoiser of N(mean, covariance) in d dimensions, or of R of them at once.

    D(x; sigma) = mean + C (C + sigma^2 I)^-1 (x - mean), evaluated in C's eigenbasis in float64 and
    returned in x's dtype.

    Args:
        mean: [d] or [R, d].
        covariance: [d, d] or [R, d, d], symmetric and positive semi-definite.

    Raises:
        ValueError: shapes disagree, or a covariance is not symmetric positive semi-definite.
    """

    def __init__(self, mean: Tensor, covariance: Tensor) -> None:
        self.mean = torch.as_tensor(mean, dtype=torch.float64)
        self.covariance = torch.as_tensor(covariance, dtype=torch.float64)
        if self.mean.dim() not in (1, 2) or self.covariance.shape != (
            *self.mean.shape,
            self.mean.shape[-1],
        ):
            raise ValueError(
                f"need mean [d] and covariance [d, d], got {tuple(self.mean.shape)} and "
                f"{tuple(self.covariance.shape)}"
            )
        if not torch.allclose(self.covariance, self.covariance.mT):
            raise ValueError("covariance is not symmetric")
        self._eigenvalues, self._basis = torch.linalg.eigh(self.covariance)
        smallest, largest = self._eigenvalues[..., 0], self._eigenvalues[..., -1]
        if (smallest < -1e-9 * largest.clamp(min=1)).any():
            raise ValueError(
                f"covariance is not positive semi-definite: eigenvalue {smallest.min():g}"
            )
        self._eigenvalues = self._eigenvalues.clamp(min=0)

    def __call__(self, x: Tensor, sigma: Tensor, labels: Tensor | None = None) -> Tensor:
        """x [N, d] or [R, N, d], sigma [] or x's leading shape, to E[clean | x] of x's shape.

        Labels are ignored.
        """
        mean, basis, eigenvalues = (
            part.to(x.device)
            for part in (self.mean[..., None, :], self._basis, self._eigenvalues[..., None, :])
        )
        variance = per_sample(sigma, x).double() ** 2  # [N, 1] or [R, N, 1]
        coordinates = (x.double() - mean) @ basis  # [N, d] or [R, N, d]
        shrunk = coordinates * eigenvalues / (eigenvalues + variance)
        return (mean + shrunk @ basis.mT).to(x.dtype)


EVERYWHERE: SigmaInterval = (0.0, math.inf)


def guided_variance(
    base: Tensor,
    auxiliary: Tensor,
    omega: float,
    sigma_max: float = float("inf"),
    interval: SigmaInterval = EVERYWHERE,
) -> Tensor:
    """Variance that the guided probability-flow ODE gives where both models are Gaussian.

    For commuting covariances each eigenvalue obeys, from noise N(0, M^2) at sigma_max = M to
    sigma = 0: M^2 (l_r / (l_r + M^2))^(1 + omega) (l_s / (l_s + M^2))^(-omega), which tends to
    l_r (l_r / l_s)^omega for M to infinity. Guided in [a, b] alone, the base's own variance
    changes by the factor ((l_r + a^2) (l_s + b^2) / ((l_s + a^2) (l_r + b^2)))^omega.

    Args:
        base, auxiliary: eigenvalues l_r and l_s > 0, any equal shapes.
        interval: noise levels [a, b] that are guided.

    Returns:
        The eigenvalues of the generated distribution, same shape.
    """
    noise = sigma_max**2
    low, high = interval[0] ** 2, min(interval[1], sigma_max) ** 2
    own = base if math.isinf(noise) else noise * base / (base + noise)
    below = (base + low) / (auxiliary + low)
    above = 1.0 if math.isinf(high) else (auxiliary + high) / (base + high)
    return own * (below * above) ** omega


def commute(first: Tensor, second: Tensor, tolerance: float = 1e-9) -> bool:
    """Whether symmetric matrices [..., d, d] commute pair by pair, up to rounding."""
    product = first @ second
    scale = (first.norm(dim=(-2, -1)) * second.norm(dim=(-2, -1))).clamp(min=1e-300)
    return bool(((product - product.mT).norm(dim=(-2, -1)) <= tolerance * scale).all())


def _mean_shift(
    base: Tensor,
    auxiliary: Tensor,
    omega: float,
    interval: SigmaInterval = EVERYWHERE,
    nodes: int = 64,
) -> Tensor:
    """k of `guided_gaussian`, for guidance at noise levels [a, b].

    Everywhere it is omega l_r^((1+omega)/2) int_0^1 (l_s + (l_r-l_s) w^2)^(-(1+omega)/2). Derived
    from the guided ODE, affine in x, by l_s / (l_s + sigma^2) = w^2, which leaves a smooth
    integrand for Gauss-Legendre quadrature. In an interval w goes from its value at b to that at a,
    and what was shifted at a shrinks with the base's own ODE from there on.
    """
    low, high = interval[0] ** 2, interval[1] ** 2
    start = (auxiliary / (auxiliary + high)).sqrt()[..., None]
    end = (auxiliary / (auxiliary + low)).sqrt()[..., None]
    points, weights = (torch.from_numpy(part) for part in numpy.polynomial.legendre.leggauss(nodes))
    w = start + (end - start) * (points + 1) / 2
    mixed = auxiliary[..., None] + (base - auxiliary)[..., None] * w**2
    ratio = (base[..., None] / mixed) ** ((1 + omega) / 2)
    integral = (ratio * (end - start) * weights / 2).sum(-1)
    shrunk = ((base + low) / base * auxiliary / (auxiliary + low)) ** (omega / 2)
    return omega * integral * shrunk


def guided_gaussian(
    base: tuple[Tensor, Tensor],
    auxiliary: tuple[Tensor, Tensor],
    omega: float,
    interval: SigmaInterval = EVERYWHERE,
) -> tuple[Tensor, Tensor]:
    """What the guided probability-flow ODE generates from two Gaussians that commute.

    With sigma from infinity to 0, in the common eigenbasis: variance l_r (l_r / l_s)^omega, and
    mean m_r - k (m_s - m_r) with k = omega where l_r = l_s.

    Args:
        base, auxiliary: mean [..., d] and positive definite covariance [..., d, d], float64.
        interval: noise levels that are guided; at others the base's ODE is followed.

    Returns:
        Mean and covariance of the generated Gaussian, same shapes.

    Raises:
        ValueError: the covariances do not commute: there is no closed form then.
    """
    (mean_r, covariance_r), (mean_s, covariance_s) = base, auxiliary
    if not commute(covariance_r, covariance_s):
        raise ValueError("the covariances do not commute")
    # The sum's eigenbasis diagonalises both, also where one of them has equal eigenvalues.
    scale = covariance_r.norm() / covariance_s.norm()
    _, basis = torch.linalg.eigh(covariance_r + 0.6180339887 * scale * covariance_s)
    l_r, l_s = (
        torch.diagonal(basis.mT @ covariance @ basis, dim1=-2, dim2=-1)
        for covariance in (covariance_r, covariance_s)
    )
    shift = ((mean_s - mean_r)[..., None, :] @ basis)[..., 0, :]
    shift = shift * _mean_shift(l_r, l_s, omega, interval)
    mean = mean_r - (basis @ shift[..., None])[..., 0]
    variance = guided_variance(l_r, l_s, omega, interval=interval)
    covariance: Tensor = (basis * variance[..., None, :]) @ basis.mT
    return mean, covariance


def gaussian_w2(
    mean: Tensor, covariance: Tensor, other_mean: Tensor, other_covariance: Tensor
) -> Tensor:
    """Wasserstein-2 distance of Gaussians: |m - m'|^2 + tr(C + C' - 2 (C'^1/2 C C'^1/2)^1/2), root.

    Args:
        mean, covariance: [..., d] and [..., d, d], float64; the others broadcast against them.

    Returns:
        [...], in the points' unit.
    """
    root = _square_root(other_covariance)
    cross = torch.linalg.eigvalsh(root @ covariance @ root).clamp(min=0).sqrt().sum(-1)
    trace = torch.diagonal(covariance, dim1=-2, dim2=-1).sum(-1)
    other = torch.diagonal(other_covariance, dim1=-2, dim2=-1).sum(-1)
    squared = ((mean - other_mean) ** 2).sum(-1) + trace + other - 2 * cross
    distance: Tensor = squared.clamp(min=0).sqrt()
    return distance


def _square_root(covariance: Tensor) -> Tensor:
    values, basis = torch.linalg.eigh(covariance)
    root: Tensor = (basis * values.clamp(min=0).sqrt()[..., None, :]) @ basis.mT
    return root


def moments(
    points: Tensor, unbiased: bool = False, weights: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Mean [..., d] and covariance [..., d, d] of points [..., n, d], float64.

    The covariance is the maximum-likelihood one (over n) unless `unbiased` (over n - 1).

    Args:
        weights: of the points instead of 1 / n, [n], sum 1; the covariance is that of maximum
            likelihood then.
    """
    points = points.double()
    if weights is not None:
        mean = weights @ points
        centred = points - mean[..., None, :]
        return mean, (centred * weights[:, None]).mT @ centred
    mean = points.mean(-2)
    centred = points - mean[..., None, :]
    divisor = points.shape[-2] - int(unbiased)
    return mean, centred.mT @ centred / divisor


def draw_gaussian(mean: Tensor, covariance: Tensor, noise: Tensor) -> Tensor:
    """Points mean + C^1/2 noise: noise [..., n, d] standard normal to [..., n, d], in its dtype."""
    root = _square_root(covariance)
    return (mean[..., None, :] + noise.double() @ root).to(noise.dtype)
