"""Sets made shard by shard: a restart, or another process, goes on where the finished ones end.

The bytes do not depend on either.
"""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

from sims_core.common.kept import is_kept, note
from sims_core.data.grid import GRID_FILE, GRID_IMAGES, image_grid
from sims_core.data.image_set import (
    ImageSet,
    Scaling,
    Shard,
    index_shards,
    read_images,
    shard_name,
    write_shard,
)
from sims_core.data.types import Images, Latents
from sims_core.engine.processes import share_shards
from sims_core.engine.stage import ShareDone, StageContext

logger = logging.getLogger("sims_core.sharding")


@dataclass(frozen=True)
class Content:
    """What goes into one shard."""

    samples: Images | Latents
    """[n, C, H, W]."""
    labels: Sequence[int] | None
    seeds: Sequence[int] | None


Maker = Callable[[int, int, Callable[[int], None]], Content]
"""Makes `size` samples from index `start` on; tells how many of them are done."""


def make_shards(
    context: StageContext[Any],
    count: int,
    per_shard: int,
    prepare: Callable[[], Maker],
) -> tuple[Shard, ...]:
    """Writes the shards of `count` samples under the stage's state, but for those that are done.

    Where execution.num_processes is more than one, each of them makes some of the shards.

    Args:
        prepare: loads what a maker needs; called where shards are made, and only there.

    Raises:
        ShareDone: this is one of several processes, and has made its shards.
    """
    sizes = [min(per_shard, count - start) for start in range(0, count, per_shard)]
    shards = tuple(Shard(file=shard_name(i), count=size) for i, size in enumerate(sizes))
    rank, processes = context.rank, context.execution.num_processes
    wanted = range(len(shards)) if rank is None else range(rank, len(shards), processes)
    missing = [i for i in wanted if not is_kept(context.state / shards[i].file)]
    if rank is not None:  # by its number: the others go on changing which are missing
        _make(context, prepare(), shards, missing)
        raise ShareDone
    if len(missing) < len(shards):
        logger.info("%d of %d shards were made before", len(shards) - len(missing), len(shards))
    if (processes := min(processes, len(missing))) > 1:
        share_shards(context, processes, count, count - sum(sizes[i] for i in missing))
    elif missing:
        _make(context, prepare(), shards, missing)
    return shards


def _make(
    context: StageContext[Any],
    make: Maker,
    shards: Sequence[Shard],
    numbers: Sequence[int],
) -> None:
    """Makes the shards of these numbers. A process that shares the stage counts its own samples."""
    starts = [0, *accumulate(shard.count for shard in shards)]
    total = starts[-1]
    done = 0 if context.rank is not None else total - sum(shards[i].count for i in numbers)
    for number in numbers:
        name, size = shards[number].file, shards[number].count

        def report(part: int, done: int = done) -> None:
            context.progress(done + part, total, "img")

        content = make(starts[number], size, report)
        write_shard(
            context.state / name, content.samples, starts[number], content.labels, content.seeds
        )
        note(context.state / name)
        done += size


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
