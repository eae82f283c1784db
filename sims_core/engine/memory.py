"""What a lack of memory says."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from sims_core.common.errors import OutOfMemory


@contextmanager
def explain_out_of_memory(setting: str, size: int, doing: str) -> Iterator[None]:
    """Turns a failed allocation into one line that says which setting to halve.

    Args:
        setting: environment variable that bounds the images of one forward pass.
        size: how many they were.
        doing: e.g. "training".
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:  # torch.OutOfMemoryError is a RuntimeError
        text = str(error).lower()
        known = isinstance(error, torch.OutOfMemoryError | MemoryError)
        if not known and "can't allocate memory" not in text and "out of memory" not in text:
            raise
        advice = (
            f"set {setting}={size // 2}"
            if size > 1
            else "one image is too much for it: take a smaller network or another device"
        )
        raise OutOfMemory(
            f"out of memory in {doing} with {size} images at a time: {advice}, then run the same "
            "command again: it goes on where it stopped"
        ) from error
