"""A training set is a manifest that refers to shards and counts; no image is copied."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field

from sims_core.config import Frozen
from sims_core.errors import BadInput
from sims_core.shards import Images, Labels, read_images, read_index
from sims_core.stages import MIX, MixConfig, MixPart, StageContext
from sims_core.store import ArtifactRef, Store

MIX_FILE = "mix.json"


class MixedPart(Frozen):
    """The first `count` images of one images artifact."""

    artifact: ArtifactRef
    synthetic: bool
    count: int = Field(ge=1)


class TrainingSet(Frozen):
    """D^t: its parts in order. Which image is synthetic is recorded, never told to the training."""

    parts: tuple[MixedPart, ...]

    @property
    def count(self) -> int:
        return sum(part.count for part in self.parts)


def mix(context: StageContext[MixConfig]) -> dict[str, Any]:
    """Stage `mix`: checks the counts and writes mix.json."""
    parts = tuple(found for part in context.config.parts for found in _resolve(context, part))
    training_set = TrainingSet(parts=parts)
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
        return read_training_set(folder).parts
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
    from sims_core.points import count_points

    return count_points(folder)


def read_training_set(folder: Path) -> TrainingSet:
    return TrainingSet.model_validate_json((folder / MIX_FILE).read_bytes())


def read_first_labelled(folder: Path, count: int | None) -> tuple[Images, Labels | None]:
    """First `count` images (None: all) of a verified images artifact, and their labels.

    Returns:
        uint8 [count, C, H, W]; int64 [count], or None if an image has no label.
    """
    shards, total = [], 0
    for shard in read_index(folder).shards:
        if count is not None and total >= count:
            break
        shards.append(folder / shard.file)
        total += shard.count
    images, labels = read_images(shards)
    return images[:count], None if labels is None else labels[:count]


def read_first(folder: Path, count: int | None) -> Images:
    """First `count` images (None: all) of a verified images artifact, uint8 [count, C, H, W]."""
    return read_first_labelled(folder, count)[0]


def load_training_set(store: Store, folder: Path) -> tuple[Images, Labels | None]:
    """All images that a verified mix artifact refers to, in order.

    Returns:
        uint8 [N, C, H, W]; class labels int64 [N], or None unless every part has labels.
    """
    parts = [
        read_first_labelled(store.open_artifact(part.artifact), part.count)
        for part in read_training_set(folder).parts
    ]
    labels = [part_labels for _, part_labels in parts if part_labels is not None]
    images = np.concatenate([part_images for part_images, _ in parts])
    return images, np.concatenate(labels) if len(labels) == len(parts) else None
