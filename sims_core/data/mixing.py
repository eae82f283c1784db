"""A training set is a manifest that refers to shards and counts; no image is copied."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from sims_core.common.errors import BadInput
from sims_core.common.frozen import Frozen
from sims_core.data.config import MixConfig, MixPart
from sims_core.data.decoded import DecodedSet
from sims_core.data.epochs import Shares
from sims_core.data.image_set import read_index, scaled_latents, stream_samples
from sims_core.data.parts import ImageParts
from sims_core.data.points import read_points
from sims_core.data.stages import MIX
from sims_core.data.types import Labels
from sims_core.engine.stage import StageContext
from sims_core.store.artifacts import ArtifactRef
from sims_core.store.store import Store

logger = logging.getLogger("sims_core.data")

MIX_FILE = "mix.json"

IN_MEMORY_BYTES = 1 << 26
"""A training set of at most so many bytes is decoded into memory at each start."""


class MixedPart(Frozen):
    """The first `count` images of one images artifact."""

    artifact: ArtifactRef
    synthetic: bool
    count: int = Field(ge=1)


class TrainingSet(Frozen):
    """D^t: its parts in order. Which image is synthetic is recorded, and told to a training only
    where it is to draw real ones with a probability of their own."""

    parts: tuple[MixedPart, ...]
    real_fraction: float | None = Field(default=None, exclude_if=lambda value: value is None)

    @property
    def count(self) -> int:
        return sum(part.count for part in self.parts)

    @property
    def shares(self) -> Shares | None:
        """Which places hold real data, and how often they are drawn; None: all are, equally."""
        if self.real_fraction is None:
            return None
        marks = [torch.full((part.count,), part.synthetic) for part in self.parts]
        return Shares(self.real_fraction, torch.cat(marks))


def mix(context: StageContext[MixConfig]) -> dict[str, Any]:
    """Stage `mix`: checks the counts and writes mix.json."""
    parts = tuple(found for part in context.config.parts for found in _resolve(context, part))
    training_set = TrainingSet(parts=parts, real_fraction=context.config.real_fraction)
    (context.directory / MIX_FILE).write_text(training_set.model_dump_json())
    return {
        "count": training_set.count,
        "synthetic": sum(part.count for part in parts if part.synthetic),
    }


def _resolve(context: StageContext[MixConfig], part: MixPart) -> tuple[MixedPart, ...]:
    """A part that is itself a mix stands for that mix's parts."""
    ref, folder = context.inputs[part.input], context.open(part.input)
    if ref.kind == MIX.kind:
        if part.count is not None:
            raise BadInput(f"a mix is taken whole: give no count for {ref.short}")
        inner = read_training_set(folder)
        if inner.real_fraction is not None:
            raise BadInput(
                f"{ref.short} is drawn with a real_fraction, which a mix of it would lose"
            )
        return inner.parts
    available = _available(ref, folder)
    count = available if part.count is None else part.count
    if count > available:
        raise BadInput(
            f"the training set wants {count} images of {ref.short}, which holds {available}"
        )
    return (MixedPart(artifact=ref, synthetic=part.synthetic, count=count),)


def _available(ref: ArtifactRef, folder: Path) -> int:
    """Images, or points of each replicate, that an artifact holds."""
    if ref.kind != "points":
        return read_index(folder).count
    from sims_core.data.points import count_points

    return count_points(folder)


def read_training_set(folder: Path) -> TrainingSet:
    return TrainingSet.model_validate_json((folder / MIX_FILE).read_bytes())


def read_first_labelled(folder: Path, count: int | None) -> tuple[NDArray[Any], Labels | None]:
    """First `count` images or latents (None: all) of a verified artifact, and their labels.

    Returns:
        Images uint8, or latents float16 as networks see them, [count, C, H, W]; int64 [count], or
        None if one has no label.
    """
    index = read_index(folder)
    count = index.count if count is None else min(count, index.count)
    samples, labels = np.empty(0), list[int | None]()
    for number, sample in enumerate(stream_samples(folder, 0, count)):
        if number == 0:  # filled in place: a second copy of a large set may not fit
            samples = np.empty((count, *sample.content.shape), sample.content.dtype)
        samples[number] = scaled_latents(sample.content, index.scaling)
        labels.append(sample.label)
    if None in labels:
        return samples, None
    return samples, np.array(labels, dtype=np.int64)


def map_training_set(
    store: Store, folder: Path, processes: int = 1
) -> list[tuple[NDArray[Any], Labels | None]] | None:
    """The images or latents of each part of a verified mix artifact, mapped from the disk, where
    they are decoded if they are not yet; and their labels.

    None for a small set, which is sooner decoded into memory, and, told in a line, where the disk
    does not take it.
    """
    parts = read_training_set(folder).parts
    if sum(_size(store, part) for part in parts) <= IN_MEMORY_BYTES:
        return None
    try:
        return [DecodedSet(store, part.artifact).map(part.count, processes) for part in parts]
    except OSError as error:
        logger.warning(
            "the training set is decoded into memory, at every start and in every process: %s",
            error.strerror or error,
        )
        return None


def _size(store: Store, part: MixedPart) -> int:
    """Bytes of a part's decoded images, as if each pixel had two."""
    index = read_index(store.open_artifact(part.artifact))
    return 2 * part.count * index.channels * index.height * index.width


def load_training_set(
    store: Store, folder: Path, processes: int = 1
) -> tuple[ImageParts, Labels | None]:
    """All images or latents that a verified mix artifact refers to, in order, none of them copied.

    Args:
        processes: that decode what is not decoded yet.

    Returns:
        uint8 or float16 [N, C, H, W]; class labels int64 [N], or None unless every part has labels.
    """
    parts = map_training_set(store, folder, processes) or [
        read_first_labelled(store.open_artifact(part.artifact), part.count)
        for part in read_training_set(folder).parts
    ]
    labels = [part_labels for _, part_labels in parts if part_labels is not None]
    images = ImageParts([each for each, _ in parts])
    return images, np.concatenate(labels) if len(labels) == len(parts) else None


def read_shares(folder: Path, kind: str) -> Shares | None:
    """How often a training draws the real and the synthetic data of a verified training set.

    Args:
        kind: of its artifact: a mix, or points that are read as they are.
    """
    return read_training_set(folder).shares if kind == MIX.kind else None


def load_point_training_set(store: Store, folder: Path, kind: str) -> Tensor:
    """All points of a verified mix, or of one points artifact, [R, N, d]; each replicate its own.

    Raises:
        BadInput: the parts have different numbers of replicates.
    """
    if kind == "points":
        return read_points(folder)
    parts = [
        read_points(store.open_artifact(part.artifact), part.count)
        for part in read_training_set(folder).parts
    ]
    if len({len(part) for part in parts}) != 1:
        raise BadInput("the parts of a training set have different numbers of replicates")
    return torch.cat(parts, dim=1)
