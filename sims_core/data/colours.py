"""Colour profiles: pictures whose numbers do not mean sRGB, converted to it by LittleCMS."""

from __future__ import annotations

import io
from functools import lru_cache

import numpy as np
from PIL import Image, ImageCms

CONVERTED = "a colour profile other than sRGB, converted to sRGB"
UNUSABLE = "a colour profile that cannot be used, ignored"
GAMMA = "a PNG gamma other than sRGB's, ignored"

SAME_LEVELS = 2
"""A profile that moves no colour by more of 256 levels is sRGB by another name."""

_OUT = {"L": "RGB", "RGB": "RGB", "CMYK": "RGB", "LAB": "RGB"}


class OtherColours(Exception):
    """A picture has a colour profile other than sRGB, and nobody said what to do about it."""


@lru_cache(maxsize=64)
def _transform(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    """What turns pixels of this profile to sRGB; None: they are sRGB.

    Raises:
        ValueError: the profile cannot be used for such pixels.
    """
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        transform = ImageCms.buildTransform(
            source,
            ImageCms.createProfile("sRGB"),
            mode,
            _OUT[mode],
            ImageCms.Intent.RELATIVE_COLORIMETRIC,
            ImageCms.Flags.BLACKPOINTCOMPENSATION,
        )
    except (ImageCms.PyCMSError, KeyError, OSError, TypeError, ValueError) as error:
        raise ValueError(str(error)) from None
    if mode in ("L", "RGB"):
        probe = _probe(mode)
        moved = np.asarray(_apply(probe, transform)).astype(int) - np.asarray(probe).astype(int)
        if np.abs(moved).max() <= SAME_LEVELS:
            return None
    return transform


def _probe(mode: str) -> Image.Image:
    """Colours from the whole of a mode's range."""
    steps = np.linspace(0, 255, 9).round().astype(np.uint8)
    if mode == "L":
        return Image.fromarray(np.arange(256, dtype=np.uint8)[None])
    grid = np.stack(np.meshgrid(steps, steps, steps, indexing="ij"), axis=-1)
    return Image.fromarray(grid.reshape(1, -1, 3))


def _apply(image: Image.Image, transform: ImageCms.ImageCmsTransform) -> Image.Image:
    converted = ImageCms.applyTransform(image, transform)
    if converted is None:
        raise ValueError("no transform")
    # Grey stays grey: all three of sRGB's channels are the same then, but for rounding.
    return converted.getchannel("G") if image.mode == "L" else converted


def to_srgb(image: Image.Image, profile: bytes, convert: bool) -> tuple[Image.Image, str | None]:
    """The picture in sRGB, and what there is to say of it; as it is where it is sRGB already.

    Args:
        convert: else a profile other than sRGB is not accepted.

    Raises:
        OtherColours: it has one.
    """
    try:
        transform = _transform(profile, image.mode)
        if transform is None:
            return image, None
        if not convert:
            raise OtherColours
        return _apply(image, transform), CONVERTED
    except ValueError:
        return image, UNUSABLE
