"""Generators of noise. Noise is drawn on the CPU whatever the device."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
from sims_core.common.seeding import derive_seed


def generator(seed: int, *path: str | int) -> torch.Generator:
    """A CPU generator seeded by `derive_seed`: noise is drawn on the CPU whatever the device."""
    import torch

    return torch.Generator().manual_seed(derive_seed(seed, *path) if path else seed)
