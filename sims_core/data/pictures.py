"""One picture of any format to an array."""

from __future__ import annotations

import io
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import numpy as np
from PIL import Image, ImageOps

from sims_core.data.types import Images

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "PPM", "TIFF", "GIF")
"""What Pillow may open: no format that runs another program."""


T = TypeVar("T")


R = TypeVar("R")


class BrokenImage(Exception):
    """One image cannot be read; says why."""


def decode(content: bytes | Images, size: int | None = None, channels: int | None = None) -> Images:
    """One image as uint8 [C, H, W]: turned upright, cropped and resized, converted, as asked.

    Args:
        size: crop to the central square, then resize to size x size (Lanczos, antialiased).
        channels: 1 or 3, to convert to; None: grey or RGB, as the image is.

    Raises:
        BrokenImage: it cannot be decoded, is too large, or has a form that would lose something.
    """
    try:
        if isinstance(content, bytes):
            opened = Image.open(io.BytesIO(content), formats=FORMATS)
            opened.load()
            image = ImageOps.exif_transpose(opened)
        elif size is None and channels in (None, len(content)):
            return content
        else:
            image = Image.fromarray(content[0] if len(content) == 1 else np.moveaxis(content, 0, 2))
    except Exception as error:  # Pillow's decoders raise nearly anything on damaged bytes
        raise BrokenImage(_reason(error)) from None
    image = _to_mode(image, channels)
    if size is not None:
        image = _crop_and_resize(image, size)
    pixels = np.asarray(image)
    return pixels[None] if pixels.ndim == 2 else np.ascontiguousarray(np.moveaxis(pixels, -1, 0))


def _reason(error: Exception) -> str:
    text = str(error).splitlines()[0].rstrip(".") if str(error) else type(error).__name__
    return "no image of a known format" if "cannot identify" in text else text


def _to_mode(image: Image.Image, channels: int | None) -> Image.Image:
    """Grey or RGB of eight bits, without guessing what a transparent pixel looks like."""
    if image.has_transparency_data:
        alpha = image.convert("RGBA").getchannel("A")
        if alpha.getextrema() != (255, 255):
            raise BrokenImage("has transparent pixels: flatten it first")
        image = image.convert("L" if image.mode in ("L", "LA") else "RGB")
    if image.mode in ("1", "P"):
        grey = image.mode == "1" or (image.palette is not None and _is_grey(image))
        image = image.convert("L" if grey else "RGB")
    if channels is not None and image.mode in ("L", "RGB", "CMYK", "YCbCr", "LAB", "HSV"):
        image = image.convert("L" if channels == 1 else "RGB")
    if image.mode not in ("L", "RGB"):
        raise BrokenImage(f"has the form {image.mode}, not grey or RGB of 8 bits")
    return image


def _is_grey(image: Image.Image) -> bool:
    red, green, blue = image.convert("RGB").split()
    return red.tobytes() == green.tobytes() == blue.tobytes()


def _crop_and_resize(image: Image.Image, size: int) -> Image.Image:
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    square = image.crop((left, top, left + side, top + side))
    return square if side == size else square.resize((size, size), Image.Resampling.LANCZOS)


def in_order(function: Callable[[T], R], items: Iterable[T], workers: int) -> Iterator[R]:
    """map(function, items) by threads, in order, with few items under way at a time."""
    with ThreadPoolExecutor(workers) as pool:
        waiting: deque[Any] = deque()
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) > 4 * workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
