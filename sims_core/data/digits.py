"""The digits of scikit-learn into the store. Other real images: `known_data`, `image_import`."""

from __future__ import annotations

from typing import Any

import numpy as np

from sims_core.data.config import DigitsData
from sims_core.data.image_writer import ImageWriter
from sims_core.data.types import Images, Labels
from sims_core.engine.stage import StageContext


def load_digits_uint8(config: DigitsData) -> tuple[Images, Labels]:
    """scikit-learn's digits, uint8 [N, 1, 8, 8], 17 grey levels spread over 0..255; labels [N]."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    pixels = np.rint(digits.images * (255 / 16)).astype(np.uint8)
    return pixels[: config.num_images, None], digits.target[: config.num_images].astype(np.int64)


def prepare(context: StageContext[DigitsData]) -> dict[str, Any]:
    """Stage `prepare`: writes the data set as shards with labels."""
    writer = ImageWriter(context.directory)
    for image, label in zip(*load_digits_uint8(context.config), strict=True):
        writer.add(image, int(label))
    return {"source": context.config.source, **writer.finish()}
