"""Sums of pixels, from which the mean and deviation of a set follow."""

from __future__ import annotations

import numpy as np

from sims_core.data.types import Images

Sums = tuple[tuple[int, ...], tuple[int, ...]]
"""Of each channel's pixels: their sum, and the sum of their squares."""


def channel_sums(image: Images) -> Sums:
    """The sums of an image uint8 [C, H, W]."""
    wide = image.reshape(len(image), -1).astype(np.int64)
    return tuple(wide.sum(1).tolist()), tuple((wide * wide).sum(1).tolist())


def added(one: Sums, other: Sums) -> Sums:
    """The sums of what both are of; those of nothing are ((), ())."""
    if not one[0] or not other[0]:
        return one if one[0] else other
    plain = tuple(a + b for a, b in zip(one[0], other[0], strict=True))
    return plain, tuple(a + b for a, b in zip(one[1], other[1], strict=True))
