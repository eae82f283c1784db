"""Grids: the first images of a set as one PNG."""

from __future__ import annotations

import io
import math

import numpy as np
from PIL import Image

from sims_core.data.types import Images

GRID_FILE = "grid.png"
"""The file in every artifact with images that shows the first of them."""


GRID_COLUMNS = 16


GRID_IMAGES = 64


def encode_png(image: Images) -> bytes:
    """uint8 [C, H, W] to PNG bytes."""
    buffer = io.BytesIO()
    pixels = image[0] if image.shape[0] == 1 else np.moveaxis(image, 0, -1)
    Image.fromarray(pixels).save(buffer, format="png")
    return buffer.getvalue()


def image_grid(images: Images, columns: int = GRID_COLUMNS, gap: int = 1) -> bytes:
    """PNG of the images [N, C, H, W] in rows of `columns`, white gaps between."""
    # Not torchvision's make_grid: it turns grey into RGB and frames the grid, which would change
    # the bytes of every stored grid, and it would bring torch to those who only read pictures.
    count, channels, height, width = images.shape
    columns = min(columns, count)
    rows = math.ceil(count / columns)
    shape = (channels, rows * (height + gap) - gap, columns * (width + gap) - gap)
    canvas = np.full(shape, 255, dtype=np.uint8)
    for index, image in enumerate(images):
        top, left = (index // columns) * (height + gap), (index % columns) * (width + gap)
        canvas[:, top : top + height, left : left + width] = image
    return encode_png(canvas)
