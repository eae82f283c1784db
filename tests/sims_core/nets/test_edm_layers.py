"""Layers of EDM's and EDM2's networks against other people's code and plain loops."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from scipy.signal import upfirdn
from torch import Tensor
from torch.nn import functional as F

from sims_core.nets.edm2 import MPFourier, MPWeights, mp_concat, mp_silu, mp_sum, normalise
from sims_core.nets.layers import (
    Conv,
    FourierFeatures,
    Resample,
    attend,
    sinusoidal_features,
    split_heads,
)

TAPS: Sequence[tuple[float, ...]] = ((1, 1), (1, 3), (1, 3, 3, 1), (1, 2, 4, 4, 2, 1))


def normal(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("taps", TAPS)
@pytest.mark.parametrize("channels", [1, 3])
def test_resampling_is_filtering_by_rows_and_columns(
    taps: tuple[float, ...], channels: int
) -> None:
    x = normal(2, channels, 8, 8)
    row = np.array(taps) / sum(taps)
    padding = (len(taps) - 1) // 2
    first = len(taps) - 1 - padding  # of the samples of a full convolution
    down, up = x.numpy(), x.numpy()
    for axis in (2, 3):
        # Correlation, as convolutions of networks are: the taps are mirrored.
        full = upfirdn(row[::-1], down, axis=axis)
        down = np.take(full, np.arange(first, first + 8, 2), axis=axis)
        full = upfirdn(2 * row, up, up=2, axis=axis)
        up = np.take(full, np.arange(padding, padding + 16), axis=axis)
    np.testing.assert_allclose(Resample("down", taps)(x).numpy(), down, atol=1e-7)
    np.testing.assert_allclose(Resample("up", taps)(x).numpy(), up, atol=1e-7)
    assert Resample("keep", taps)(x) is x


@pytest.mark.parametrize("taps", [taps for taps in TAPS if taps == taps[::-1]])
def test_resampling_keeps_constants_away_from_the_border(taps: tuple[float, ...]) -> None:
    x = torch.ones(1, 2, 16, 16, dtype=torch.float64)
    for mode in ("down", "up"):
        inner = Resample(mode, taps)(x)[:, :, 3:-3, 3:-3]  # type: ignore[arg-type]
        torch.testing.assert_close(inner, torch.ones_like(inner))


@pytest.mark.parametrize("taps", TAPS)
def test_a_filter_after_the_convolution_is_the_same_away_from_the_border(
    taps: tuple[float, ...],
) -> None:
    """Both are linear and shift-invariant, so that they commute but for their padding."""
    last = Conv(2, 3, 3, "down", taps, filter_last=True).double()
    x = normal(1, 2, 16, 16)
    found = last(x)
    plain = F.conv2d(x, last.weight, last.bias, padding=1)
    other = Resample("down", taps)(plain)
    assert found.shape == (1, 3, 8, 8)
    torch.testing.assert_close(found[:, :, 2:-2, 2:-2], other[:, :, 2:-2, 2:-2])


def test_attention_is_that_of_plain_loops() -> None:
    heads, width, pixels = 2, 3, 4
    qkv = normal(1, 3 * heads * width, 2, 2)
    q, k, v = split_heads(qkv, heads).unbind(3)
    found = attend(q, k, v).reshape(heads * width, pixels)
    # Channels are ordered by head, then by place in the head, then as query, key and value.
    parts = qkv.reshape(heads, width, 3, pixels).numpy()
    for head in range(heads):
        for pixel in range(pixels):
            scores = parts[head, :, 0, pixel] @ parts[head, :, 1] / math.sqrt(width)
            weights = np.exp(scores) / np.exp(scores).sum()
            wanted = parts[head, :, 2] @ weights
            got = found[head * width : (head + 1) * width, pixel].numpy()
            np.testing.assert_allclose(got, wanted, rtol=1e-12)


@pytest.mark.parametrize("endpoint", [False, True])
def test_sinusoidal_features(endpoint: bool) -> None:
    c_noise = torch.tensor([0.0, 1.5, -3.0], dtype=torch.float64)
    found = sinusoidal_features(c_noise, 8, endpoint)
    for i in range(4):
        frequency = 10000 ** (-i / (3 if endpoint else 4))
        torch.testing.assert_close(found[:, i], (c_noise * frequency).cos())
        torch.testing.assert_close(found[:, 4 + i], (c_noise * frequency).sin())


def test_fourier_features_have_their_scale() -> None:
    features = FourierFeatures(20_000)
    features.draw(torch.Generator().manual_seed(0))
    assert abs(float(features.freqs.std()) - 16) < 16 * 4 / math.sqrt(2 * 10_000)
    found = features(torch.tensor([0.3], dtype=torch.float64))
    phases = 0.3 * 2 * math.pi * features.freqs.double()
    torch.testing.assert_close(found[0], torch.cat([phases.cos(), phases.sin()]))


def rms(x: Tensor) -> float:
    return float(x.detach().square().mean().sqrt())


def test_edm2_s_operations_keep_the_magnitude() -> None:
    a, b = normal(64, 300, 8, 8), normal(64, 100, 8, 8, seed=1)
    assert abs(rms(mp_silu(a)) - 1) < 3e-3
    for t in (0.0, 0.3, 0.5, 1.0):
        assert abs(rms(mp_sum(a[:, :100], b, t)) - 1) < 3e-3
        joined = mp_concat(a, b, t)
        assert abs(rms(joined) - 1) < 3e-3
        shares = [float(p.square().sum()) for p in (joined[:, :300], joined[:, 300:])]
        assert abs(shares[1] / sum(shares) - t**2 / (t**2 + (1 - t) ** 2)) < 3e-3
    for dim in (1, (1, 2, 3)):
        assert abs(rms(normalise(5 * a, dim)) - 1) < 1e-4
    features = MPFourier(5000)
    features.draw(torch.Generator().manual_seed(0))
    assert abs(rms(features(normal(10))) - 1) < 2e-2


@pytest.mark.parametrize("kernel", [0, 1, 3])
def test_edm2_s_layers_keep_the_magnitude(kernel: int) -> None:
    """Of independent inputs, whatever the scale of the weights; but for zeros at the border."""
    layer = MPWeights(200, 100, kernel).double().eval()
    layer.weight.data = 7 * normal(*layer.weight.shape, seed=2)
    x = normal(32, 200, 12, 12) if kernel else normal(2000, 200)
    found = layer(x)
    inner = found[:, :, 1:-1, 1:-1] if kernel else found
    assert abs(rms(inner) - 1) < 1e-2
    torch.testing.assert_close(layer(x, 0.25), found / 4)
    assert abs(rms(layer.weight) - 7) < 0.1
    layer.train()(x)
    assert abs(rms(layer.weight) - 1) < 1e-3
