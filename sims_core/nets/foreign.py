"""Networks that others describe: looked at before anything is allocated for them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import nn

from sims_core.common.errors import BadInput
from sims_core.common.hostile import reason
from sims_core.nets.diffusers_files import stored_tensors
from sims_core.nets.edm_config import MOST_PARAMETERS
from sims_core.nets.saved import check_shapes, stored_module

PRECISIONS = ("F32", "F16", "BF16")
"""Formats of weights, as safetensors calls them."""


def built_without_numbers(build: Callable[[], nn.Module], described: Path) -> nn.Module:
    """The network on torch's meta device, which has shapes and no numbers.

    Args:
        described: the file that describes it, for messages.

    Raises:
        BadInput: it cannot be built, or is too large.
    """
    try:
        with torch.device("meta"):
            net = build()
            count = sum(math.prod(shape) for shape in _shapes(net).values())
    except Exception as error:  # other people's code on values that nobody checked
        raise BadInput(f"{described}: no network can be built of it: {reason(error)}") from None
    if count > MOST_PARAMETERS:
        raise BadInput(f"{described}: {count:,} parameters, at most {MOST_PARAMETERS:,} can be")
    return net


def check_weights(net: nn.Module, weights: Sequence[Path]) -> None:
    """Raises BadInput unless the headers of these files have the network's tensors, as floats."""
    stored = stored_tensors(weights)
    found = {name: each.shape for name, each in stored.items()}
    check_shapes(_shapes(net), found, str(weights[0]))
    for name, each in stored.items():
        if each.precision not in PRECISIONS:
            known = ", ".join(PRECISIONS)
            raise BadInput(f"{weights[0]}: {name} is {each.precision}, want one of {known}")


def _shapes(net: nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(each.shape) for name, each in stored_module(net).state_dict().items()}
