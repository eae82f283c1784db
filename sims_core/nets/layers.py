"""Layers that EDM's and EDM2's networks are made of."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sims_core.nets.dropout import DropoutKeys
from sims_core.nets.unet_layout import BlockPlan, Resampling, group_count


class AugmentLabels:
    """What a network is told of how the images of the batch at hand were augmented."""

    def __init__(self) -> None:
        self.labels: Tensor | None = None
        """[N, augment_dim]; to be set before each forward pass in training."""


class Told(nn.Module):
    """A network that is told, before each pass in training, of the batch that comes next."""

    dropout: DropoutKeys
    told: AugmentLabels

    def tell(self, dropout: Tensor | None, augment_labels: Tensor | None) -> None:
        """Dropout keys [N] and augmentation labels [N, augment_dim]."""
        self.dropout.keys = dropout
        self.told.labels = augment_labels


def class_rows(labels: Tensor | None, num_classes: int, x: Tensor) -> Tensor:
    """Labels as rows of one-hot vectors, [N, num_classes], in x's dtype.

    Args:
        labels: class indices [N], rows [N, num_classes] (one-hot, or zero where there is no class),
            or None: no class for any image.

    Raises:
        ValueError: labels of another shape, or for a network without classes.
    """
    if labels is None:
        return x.new_zeros(len(x), num_classes)
    if num_classes == 0:
        raise ValueError("class labels were given to a network without classes")
    if labels.dim() == 1:
        return F.one_hot(labels.long(), num_classes).to(x)
    if labels.shape != (len(x), num_classes):
        raise ValueError(
            f"class labels must be of shape [{len(x)}] or [{len(x)}, {num_classes}], got "
            f"{list(labels.shape)}"
        )
    return labels.to(x)


class LabelDropout(nn.Module):
    """Hides the class of an image in training: its row of labels becomes zero."""

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p
        # An nn.Dropout of the one number that keeps or hides a row, so that its draws can be made
        # reproducible as those of every dropout.
        self.kept = nn.Dropout(p if p < 1 else 0.0)

    def forward(self, rows: Tensor) -> Tensor:
        """Rows [N, num_classes] to the same shape."""
        if not self.training or self.p == 0:
            return rows
        if self.p == 1:
            return torch.zeros_like(rows)
        result: Tensor = rows * (self.kept(rows.new_ones(len(rows), 1)) > 0)
        return result


def sinusoidal_features(c_noise: Tensor, channels: int, endpoint: bool) -> Tensor:
    """Cosines, then sines, of `c_noise` [N] at geometrically spaced frequencies: [N, channels].

    The frequencies fall from 1 to 1/10000 (arXiv 1706.03762), that last one included or not.
    """
    half = channels // 2
    exponents = torch.arange(half, dtype=c_noise.dtype, device=c_noise.device)
    frequencies = (1 / 10000) ** (exponents / (half - endpoint))
    phases = c_noise[:, None] * frequencies
    return torch.cat([phases.cos(), phases.sin()], dim=1)


class FourierFeatures(nn.Module):
    """Cosines, then sines, of c_noise at random frequencies that are drawn once (NCSN++)."""

    SCALE = 16.0
    """Standard deviation of the frequencies."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.freqs: Tensor
        self.register_buffer("freqs", torch.randn(channels // 2) * self.SCALE)

    def draw(self, generator: torch.Generator) -> None:
        """Frequencies from a generator."""
        self.freqs.normal_(0, self.SCALE, generator=generator)

    def forward(self, c_noise: Tensor) -> Tensor:
        """c_noise [N] to [N, channels]."""
        phases = c_noise[:, None] * (2 * math.pi * self.freqs.to(c_noise.dtype))
        return torch.cat([phases.cos(), phases.sin()], dim=1)


class Resample(nn.Module):
    """Halves or doubles the resolution of x [N, C, H, W] through a separable low-pass filter."""

    def __init__(self, resample: Resampling, taps: Sequence[float]) -> None:
        super().__init__()
        self.mode = resample
        self.padding = (len(taps) - 1) // 2
        self.is_box = tuple(taps) == (taps[0],) * 2
        row = torch.tensor(taps, dtype=torch.float64, device="cpu")
        kernel = (row.outer(row) / row.sum() ** 2).float()
        self.kernel: Tensor
        # Not in the state: the configuration says it.
        self.register_buffer("kernel", kernel[None, None], persistent=False)

    def shrink(self, x: Tensor, padding: int) -> Tensor:
        """x filtered, every other pixel of it kept."""
        channels = x.shape[1]
        kernel = self.kernel.to(x).expand(channels, -1, -1, -1)
        return F.conv2d(x, kernel, stride=2, padding=padding, groups=channels)

    def forward(self, x: Tensor) -> Tensor:
        if self.mode == "keep":
            return x
        if self.is_box:  # the same numbers, several times faster on a CPU
            if self.mode == "down":
                return F.avg_pool2d(x, 2)
            return F.interpolate(x, scale_factor=2, mode="nearest")
        if self.mode == "down":
            return self.shrink(x, self.padding)
        channels = x.shape[1]
        kernel = 4 * self.kernel.to(x).expand(channels, -1, -1, -1)
        return F.conv_transpose2d(x, kernel, stride=2, padding=self.padding, groups=channels)


class Conv(nn.Conv2d):
    """A convolution after the resolution was changed.

    Args:
        filter_last: the convolution comes before the low-pass filter when the resolution is halved,
            and the padding of both before the first, as StyleGAN and NCSN++ fuse the two.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int,
        resample: Resampling = "keep",
        taps: Sequence[float] = (1, 1),
        filter_last: bool = False,
    ) -> None:
        super().__init__(inputs, outputs, kernel, padding=kernel // 2)
        self.resample = Resample(resample, taps)
        self.filter_last = filter_last

    def forward(self, x: Tensor) -> Tensor:
        """x [N, inputs, H, W] to [N, outputs, H', W']."""
        if not self.filter_last:
            return super().forward(self.resample(x))
        padding = self.kernel_size[0] // 2 + self.resample.padding
        return self.resample.shrink(F.conv2d(x, self.weight, self.bias, padding=padding), 0)


def group_norm(channels: int, eps: float) -> nn.GroupNorm:
    """EDM's group normalisation: groups of four channels, but at most 32 groups."""
    return nn.GroupNorm(group_count(channels), channels, eps=eps)


def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Self-attention between pixels, scaled by 1 / sqrt(d): each [N, heads, d, pixels]."""
    q, k, v = (part.transpose(-1, -2) for part in (q, k, v))
    return F.scaled_dot_product_attention(q, k, v).transpose(-1, -2)


def split_heads(qkv: Tensor, heads: int) -> Tensor:
    """[N, 3 C, H, W] as [N, heads, C / heads, 3, pixels], in the order of the channels."""
    return qkv.reshape(len(qkv), heads, -1, 3, qkv.shape[2] * qkv.shape[3])


class ResidualBlock(nn.Module):
    """The residual block of DDPM++, NCSN++ and ADM, with self-attention after it where planned.

    Args:
        embedding: channels of what the block is told of noise level and labels.
        adaptive_scale: the embedding scales and shifts the normalised features (ADM); else it is
            added to them before they are normalised (DDPM++, NCSN++).
        projects_resampled: the shortcut has a convolution wherever the resolution changes, not only
            where the number of channels does.
        skip_scale: factor of the sum of shortcut and branch.
        eps: of the group normalisations.
    """

    def __init__(
        self,
        plan: BlockPlan,
        embedding: int,
        *,
        dropout: float,
        taps: Sequence[float],
        adaptive_scale: bool,
        projects_resampled: bool,
        skip_scale: float,
        eps: float,
    ) -> None:
        super().__init__()
        inputs, outputs, resample = plan.in_channels, plan.out_channels, plan.resample
        self.heads, self.joins = plan.heads, plan.joins
        self.adaptive_scale, self.skip_scale = adaptive_scale, skip_scale
        self.norm0 = group_norm(inputs, eps)
        self.conv0 = Conv(inputs, outputs, 3, resample, taps)
        self.affine = nn.Linear(embedding, outputs * (2 if adaptive_scale else 1))
        self.norm1 = group_norm(outputs, eps)
        self.dropout = nn.Dropout(dropout)
        self.conv1 = Conv(outputs, outputs, 3)
        self.skip: nn.Module = Resample(resample, taps)
        if inputs != outputs or (resample != "keep" and projects_resampled):
            self.skip = Conv(inputs, outputs, 1, resample, taps)
        if plan.heads:
            self.norm2 = group_norm(outputs, eps)
            self.qkv = Conv(outputs, 3 * outputs, 1)
            self.proj = Conv(outputs, outputs, 1)

    def forward(self, x: Tensor, embedded: Tensor) -> Tensor:
        """x [N, in_channels, H, W] and embedded [N, embedding] to [N, out_channels, H', W']."""
        features = self.conv0(F.silu(self.norm0(x)))
        told = self.affine(embedded)[:, :, None, None]
        if self.adaptive_scale:
            scale, shift = told.chunk(2, dim=1)
            features = torch.addcmul(shift, self.norm1(features), scale + 1)
        else:
            features = self.norm1(features + told)
        features = self.conv1(self.dropout(F.silu(features)))
        result: Tensor = (features + self.skip(x)) * self.skip_scale
        return self._attended(result) if self.heads else result

    def _attended(self, x: Tensor) -> Tensor:
        q, k, v = split_heads(self.qkv(self.norm2(x)), self.heads).unbind(3)
        result: Tensor = (self.proj(attend(q, k, v).reshape(x.shape)) + x) * self.skip_scale
        return result
