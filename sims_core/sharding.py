"""Sets made shard by shard: a restart goes on after the finished ones, to the same bytes."""

from __future__ import annotations

import json
import logging
import os
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from sims_core.digest import file_sha256
from sims_core.shards import (
    GRID_IMAGES,
    Images,
    ImageSet,
    Latents,
    Scaling,
    Shard,
    image_grid,
    index_shards,
    read_images,
    shard_name,
    write_shard,
)
from sims_core.stages import GRID_FILE
from sims_core.store import write_atomically

logger = logging.getLogger("sims_core.sharding")


class FinishedShards:
    """Which shards are done, with their SHA-256: a restart goes on after them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._list = folder / "finished.json"
        self._sha256: dict[str, str] = {}
        if self._list.exists():
            with suppress(ValueError):  # cut by a crash of the machine: nothing counts as done
                self._sha256 = json.loads(self._list.read_bytes())

    def __contains__(self, name: str) -> bool:
        path = self.folder / name
        return path.exists() and file_sha256(path) == self._sha256.get(name)

    def add(self, name: str) -> None:
        self._sha256[name] = file_sha256(self.folder / name)
        write_atomically(self._list, json.dumps(self._sha256))


@dataclass(frozen=True)
class Content:
    """What goes into one shard."""

    samples: Images | Latents
    """[n, C, H, W]."""
    labels: Sequence[int] | None
    seeds: Sequence[int] | None


def make_shards(
    state: Path, count: int, per_shard: int, make: Callable[[int, int], Content]
) -> tuple[Shard, ...]:
    """Writes the shards of `count` samples under `state`, but for those that are done.

    Args:
        make: called with the first index and the number of a shard's samples.
    """
    finished = FinishedShards(state)
    shards = []
    for number, start in enumerate(range(0, count, per_shard)):
        name, size = shard_name(number), min(per_shard, count - start)
        shards.append(Shard(file=name, count=size))
        if name in finished:
            logger.info("kept %s of an earlier attempt", name)
            continue
        content = make(start, size)
        write_shard(state / name, content.samples, start, content.labels, content.seeds)
        finished.add(name)
    return tuple(shards)


def take_shards(
    state: Path,
    directory: Path,
    shape: Sequence[int],
    shards: Sequence[Shard],
    classes: Counter[int],
    scaling: Scaling | None = None,
) -> ImageSet:
    """Moves finished shards from `state` into the artifact and writes its index.

    The moves come last: until then a restart finds every shard.
    """
    index = index_shards(directory, shape, shards, classes, scaling)
    for shard in shards:
        os.replace(state / shard.file, directory / shard.file)
    return index


def draw_grid_of(state: Path, directory: Path, shards: Sequence[Shard]) -> None:
    """Writes grid.png of the first images of finished shards under `state`."""
    needed, count = 0, 0
    while count < GRID_IMAGES and needed < len(shards):
        count += shards[needed].count
        needed += 1
    first, _ = read_images([state / shard.file for shard in shards[:needed]])
    (directory / GRID_FILE).write_bytes(image_grid(first[:GRID_IMAGES]))
