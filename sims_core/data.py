"""Real images into the store."""

from __future__ import annotations

from typing import Any

import numpy as np

from sims_core.config import DigitsData
from sims_core.shards import Images, Shard, shard_name, write_index, write_shard
from sims_core.stages import StageContext

IMAGES_PER_SHARD = 1024


def load_digits_uint8(config: DigitsData) -> tuple[Images, np.ndarray[Any, np.dtype[np.int64]]]:
    """scikit-learn's digits, uint8 [N, 1, 8, 8], 17 grey levels spread over 0..255; labels [N]."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    pixels = np.rint(digits.images * (255 / 16)).astype(np.uint8)
    return pixels[: config.num_images, None], digits.target[: config.num_images].astype(np.int64)


def prepare(context: StageContext[DigitsData]) -> dict[str, Any]:
    """Stage `prepare`: writes the data set as shards with labels."""
    images, labels = load_digits_uint8(context.config)
    shards = []
    for number, start in enumerate(range(0, len(images), IMAGES_PER_SHARD)):
        part = slice(start, start + IMAGES_PER_SHARD)
        name = shard_name(number)
        write_shard(context.directory / name, images[part], start, labels=labels[part].tolist())
        shards.append(Shard(file=name, count=len(images[part])))
    index = write_index(context.directory, images, shards, labels.tolist())
    scaled = images / 127.5 - 1
    return {
        "source": context.config.source,
        "count": index.count,
        "mean": [round(float(m), 6) for m in scaled.mean((0, 2, 3))],
        "std": [round(float(s), 6) for s in scaled.std((0, 2, 3))],
    }
