"""Some images of a set, drawn without replacement."""

from __future__ import annotations

from typing import Any

import torch

from sims_core.common import purposes
from sims_core.common.errors import BadInput
from sims_core.data.config import PickConfig
from sims_core.data.image_set import read_index, stream_picked
from sims_core.data.image_writer import ImageWriter
from sims_core.diffusion.noise import generator
from sims_core.engine.stage import StageContext


def picked_indices(config: PickConfig, available: int) -> list[int]:
    """The numbers of the images, ascending.

    Draws of one seed from a set of `available` images that have no place in common have no image in
    common.

    Raises:
        BadInput: the set ends before the last place.
    """
    stop = config.start + config.count
    if stop > available:
        raise BadInput(f"images {config.start} to {stop} wanted of a set of {available}")
    order = torch.randperm(available, generator=generator(config.seed, purposes.PICK))
    return sorted(order[config.start : stop].tolist())


def pick(context: StageContext[PickConfig]) -> dict[str, Any]:
    """Stage `pick`: input `images`; writes those of them that the configuration says, with labels.

    Raises:
        BadInput: there are fewer.
    """
    source = context.open("images")
    writer = ImageWriter(context.directory)
    try:
        for sample in stream_picked(
            source, picked_indices(context.config, read_index(source).count)
        ):
            writer.add(sample.content, sample.label)
    except BaseException:
        writer.abandon()
        raise
    return writer.finish()
