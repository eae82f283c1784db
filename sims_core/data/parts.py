"""A training set by reference: arrays in memory, or mapped from the disk, one after the other."""

from __future__ import annotations

import mmap
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

RESIDENT_BYTES = 1 << 23
"""Mapped pages that were touched for so many bytes of images are let go: they stay in the system's
cache, which all processes share, and do not count as this one's memory."""


class ImageParts:
    """Images [N, C, H, W] of several arrays; indexed by a tensor of numbers, as a tensor is."""

    def __init__(self, parts: Sequence[NDArray[Any]]) -> None:
        self.parts = tuple(parts)
        self._starts = np.cumsum([0, *map(len, parts)])
        self._touched = 0

    @property
    def device(self) -> torch.device:
        return torch.device("cpu")

    def __len__(self) -> int:
        return int(self._starts[-1])

    def __getitem__(self, indices: Tensor) -> Tensor:
        """Copies of the images of these numbers [n], in their order."""
        numbers = indices.numpy()
        which = np.searchsorted(self._starts, numbers, side="right") - 1
        first = self.parts[0]
        taken = np.empty((len(numbers), *first.shape[1:]), dtype=first.dtype)
        for number in np.unique(which).tolist():
            own = np.flatnonzero(which == number)
            taken[own] = self.parts[number][numbers[own] - self._starts[number]]
        self._touched += taken.nbytes
        if self._touched > RESIDENT_BYTES:
            self._let_go()
        return torch.from_numpy(taken)

    def _let_go(self) -> None:
        self._touched = 0
        advice = getattr(mmap, "MADV_DONTNEED", None)  # Linux has it
        for part in self.parts:
            mapped: Any = getattr(part, "_mmap", None)
            if mapped is not None and advice is not None:
                mapped.madvise(advice)
