"""Dropout whose masks are a function of (key of the image, layer, place), not of a global state.

torch's own draws from the device's global generator: its masks change with the device, with how a
batch is split into micro-batches or over processes, and after a resumption.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

WORD = 2**32


_ODD = (0x7FEB352D, 0x846CA68B)
"""Multipliers of a 32-bit integer hash of low bias (Wellons' lowbias32)."""


def _signed(value: int) -> int:
    """`value` modulo 2^32 as the int32 of the same bits."""
    return (value + WORD // 2) % WORD - WORD // 2


def mixed(words: Tensor) -> Tensor:
    """A bijection of int32, any shape, whose every output bit depends on every input bit.

    Multiplications wrap. int32 shifts copy the sign bit, which the masks take out again: the sign
    would else cancel itself.
    """
    words = (words ^ ((words >> 16) & 0xFFFF)) * _signed(_ODD[0])
    words = (words ^ ((words >> 15) & 0x1FFFF)) * _signed(_ODD[1])
    return words ^ ((words >> 16) & 0xFFFF)


class DropoutKeys:
    """What all dropouts of one network share: a key for each image of the batch at hand."""

    def __init__(self) -> None:
        self.keys: Tensor | None = None
        """int32 [N]; to be set before each forward pass in training."""


class SeededDropout(nn.Module):
    """Drops each element of x [N, ...] with probability p in training, and scales the others.

    Args:
        layer: number of this layer in its network: no two share masks.
    """

    def __init__(self, p: float, layer: int, shared: DropoutKeys) -> None:
        super().__init__()
        self.p, self.layer, self.shared = p, layer, shared
        self.threshold = round(p * WORD) - WORD // 2

    def forward(self, x: Tensor) -> Tensor:
        """x [N, ...] to the same shape.

        Raises:
            RuntimeError: in training without a key for each of the N images.
        """
        if not self.training or self.p == 0:
            return x
        keys = self.shared.keys
        if keys is None or len(keys) != len(x):
            raise RuntimeError("dropout needs one key for each image of the batch")
        keys = mixed(keys + _signed((self.layer + 1) * 0x9E3779B9))
        places = torch.arange(x[0].numel(), dtype=torch.int32, device=x.device).view(x[:1].shape)
        words = mixed(mixed(places) ^ keys.view(-1, *[1] * (x.dim() - 1)))
        return x * (words >= self.threshold) / (1 - self.p)


def seed_dropouts(net: nn.Module) -> DropoutKeys:
    """Puts a `SeededDropout` in the place of every nn.Dropout; returns what they share."""
    shared, layer = DropoutKeys(), 0
    for module in list(net.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, nn.Dropout):
                setattr(module, name, SeededDropout(child.p, layer, shared))
                layer += 1
    return shared
