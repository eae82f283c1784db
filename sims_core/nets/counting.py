"""How many numbers a network has, counted from its configuration: a plan imports no torch."""

from __future__ import annotations

from sims_core.nets.base import Net
from sims_core.nets.config import AUGMENT_LABELS, MLPConfig, UNetConfig


def count_parameters(net: Net) -> int | None:
    """How many numbers of the network are trained; None: nothing here counts such a network."""
    if isinstance(net, UNetConfig):
        return _of_unet(net)
    if isinstance(net, MLPConfig):
        widths = [net.dim + 1, *[net.hidden_features] * net.hidden_layers, net.dim]
        pairs = zip(widths[:-1], widths[1:], strict=True)
        return net.replicates * sum(_linear(before, after) for before, after in pairs)
    counted: int | None = getattr(net, "parameters", None)
    return counted


def _linear(before: int, after: int) -> int:
    return before * after + after


def _convolution(before: int, after: int) -> int:
    return 9 * before * after + after


def _block(before: int, after: int, embedded: int) -> int:
    """diffusers' `ResnetBlock2D`."""
    skip = _linear(before, after) if before != after else 0
    convolutions = _convolution(before, after) + _convolution(after, after)
    return 2 * before + 2 * after + convolutions + _linear(embedded, after) + skip


def _attention(channels: int) -> int:
    return 2 * channels + 4 * _linear(channels, channels)


def _of_unet(net: UNetConfig) -> int:
    """diffusers' `UNet2DModel` as `sims_core.nets.unet` asks for it."""
    widths, depth = net.block_out_channels, net.layers_per_block
    first, last, embedded = widths[0], widths[-1], 4 * widths[0]
    attends = [level in net.attention_levels for level in range(len(widths))]
    total = _linear(first, embedded) + _linear(embedded, embedded)
    total += AUGMENT_LABELS * first if net.is_told_of_augmentation else 0
    total += (net.num_classes + net.knows_no_class) * embedded
    total += _convolution(net.channels, first) + 2 * first + _convolution(first, net.channels)
    skips, before = [first], first
    for level, width in enumerate(widths):  # downwards
        for _ in range(depth):
            total += _block(before, width, embedded) + attends[level] * _attention(width)
            skips, before = [*skips, width], width
        if level < len(widths) - 1:
            total += _convolution(width, width)
            skips.append(width)
    total += 2 * _block(last, last, embedded) + any(attends) * _attention(last)
    for level, width in reversed(list(enumerate(widths))):  # upwards
        for _ in range(depth + 1):
            total += _block(before + skips.pop(), width, embedded)
            total += attends[level] * _attention(width)
            before = width
        total += _convolution(width, width) if level else 0
    return total
