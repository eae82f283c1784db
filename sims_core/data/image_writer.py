"""Writes a set of images as they come, shard by shard."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sims_core.common.frozen import Frozen
from sims_core.data.grid import GRID_FILE, GRID_IMAGES, encode_png, image_grid
from sims_core.data.image_set import (
    IMAGES_PER_SHARD,
    Shard,
    ShardWriter,
    index_shards,
    shard_name,
    stream_shard,
)
from sims_core.data.sums import Sums, added, channel_sums
from sims_core.data.types import Images

GRID_BYTES = 1 << 28
"""The grid has fewer than 64 images where so many would be larger than this."""


class Written(Frozen):
    """A shard that is done, and what is known of its images."""

    shard: Shard
    sums: Sums
    classes: dict[int, int]
    """How many images it has of each class."""


class ImageWriter:
    """Holds no image: each goes into the shard that is being written.

    Args:
        folder: where the shards are made; empty but for those of `done`.
        done: the first shards, of an earlier writer.
    """

    def __init__(self, folder: Path, done: Sequence[Written] = ()) -> None:
        self.folder, self.done = folder, list(done)
        self.count = sum(each.shard.count for each in done)
        self._shard: ShardWriter | None = None
        self._sums: Sums = ((), ())
        self._classes: Counter[int] = Counter()

    def add(self, image: Images, label: int | None) -> None:
        """The next image, uint8 [C, H, W]. All have the same shape, and labels, or none has."""
        self.add_encoded(encode_png(image), channel_sums(image), label)

    def add_encoded(self, png: bytes, sums: Sums, label: int | None) -> None:
        """As `add`, where the image is encoded already."""
        if self._shard is None:
            self._shard = ShardWriter(self.folder / shard_name(len(self.done)), self.count)
        self._shard.add("png", png, label, None)
        self._sums = added(self._sums, sums)
        if label is not None:
            self._classes[label] += 1
        self.count += 1
        if self._shard.count == IMAGES_PER_SHARD:
            self.end_shard()

    def end_shard(self) -> None:
        """Gives the shard that is being written its name, full or not."""
        if self._shard is None:
            return
        self._shard.close()
        shard = Shard(file=self._shard.path.name, count=self._shard.count)
        self.done.append(Written(shard=shard, sums=self._sums, classes=dict(self._classes)))
        self._shard, self._sums = None, ((), ())
        self._classes = Counter()

    def abandon(self) -> None:
        """Lets an unfinished shard go."""
        if self._shard is not None:
            self._shard.abandon()

    def finish(self, target: Path | None = None) -> dict[str, Any]:
        """Writes the rest, the grid and the index; returns the manifest's details.

        Mean and deviation are those of each channel, scaled to [-1, 1].

        Args:
            target: folder that they are put into; None: the one that they are in.
        """
        self.end_shard()
        target = target or self.folder
        shards = [each.shard for each in self.done]
        classes: Counter[int] = Counter()
        sums: Sums = ((), ())
        for each in self.done:
            classes.update(each.classes)
            sums = added(sums, each.sums)
        first = self._first_images(shards)
        (target / GRID_FILE).write_bytes(image_grid(first))
        index = index_shards(target, first.shape[1:], shards, classes)
        if target != self.folder:
            for shard in shards:
                _put(self.folder / shard.file, target / shard.file)
        pixels = index.count * index.height * index.width
        mean, mean_square = np.array(sums) / pixels
        std = np.sqrt(np.maximum(mean_square - mean**2, 0))
        return {
            "count": index.count,
            "mean": [round(float(m), 6) for m in mean / 127.5 - 1],
            "std": [round(float(s), 6) for s in std / 127.5],
            "class_histogram": index.class_histogram,
        }

    def _first_images(self, shards: Sequence[Shard]) -> Images:
        """Those of the grid, [n, C, H, W]."""
        first: list[Images] = []
        for shard in shards:
            for sample in stream_shard(self.folder / shard.file):
                first.append(sample.content)
                held = len(first) * sample.content.nbytes
                if len(first) == GRID_IMAGES or held >= GRID_BYTES:
                    return np.stack(first)
        return np.stack(first)


def _put(shard: Path, target: Path) -> None:
    """Where the file system can, a restart finds the shard in its old place, too."""
    try:
        os.link(shard, target)
    except OSError:
        os.replace(shard, target)
