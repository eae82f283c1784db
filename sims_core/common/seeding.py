"""Seeds are derived, never shared: every draw comes from (run seed, stage, index) alone."""

from __future__ import annotations

from numbers import Integral

from sims_core.common.digest import digest_of
from sims_core.common.errors import BadInput
from sims_core.common.shown import shown

SEED_SPACE = 2**32
"""PyTorch's CPU generator (mt19937) reads 32 bits of its seed; more would only seem to differ."""


MOST_SEED = 2**64 - 1
"""The largest seed of a run: 64 bits are what JSON readers, databases and generators agree on."""


def check_seed(seed: int) -> None:
    """Raises BadInput unless the seed is an integer of 0 to `MOST_SEED`."""
    if not isinstance(seed, Integral) or not 0 <= seed <= MOST_SEED:
        raise BadInput(f"`seed` must be an integer from 0 to 2**64 - 1, got {shown(seed, 60)}")


def derive_seed(seed: int, *path: str | int) -> int:
    """A seed in [0, 2^32): first 32 bits of the SHA-256 of [seed, *path] as canonical JSON."""
    return int(digest_of([seed, *path])[:8], 16)


def image_seed(first_seed: int, index: int) -> int:
    """Seed of image `index` of a set: consecutive, so that no two images of a set share one.

    Hashing every index instead would give two of 50,000 images the same 32-bit seed in about one
    set of four (birthday bound).
    """
    return (first_seed + index) % SEED_SPACE


MOST_IMAGES = 2**30
"""The most images of one set, since image seeds are 32 bits."""
