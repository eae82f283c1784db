"""One picture of any format to an array."""

from __future__ import annotations

import fcntl
import io
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from PIL import Image, ImageOps

from sims_core.common.hostile import reason
from sims_core.data.colours import GAMMA, OtherColours, to_srgb
from sims_core.data.types import Images

# A picture with more pixels than Pillow thinks sane is an error, not a line on the terminal.
warnings.filterwarnings("error", category=Image.DecompressionBombWarning)

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "PPM", "TIFF", "GIF")
"""What Pillow may open: no format that runs another program."""

MAX_PIXELS = 1 << 24
"""A picture that stays as large as it is may have so many: 4096 x 4096."""

ALONE_PIXELS = 1 << 22
"""Pictures with more are decoded one at a time, whatever the number of processes."""

HELD_BYTES = 1 << 27
"""The most bytes of encoded pictures that wait for a thread."""

FURTHER_PICTURES = "further pictures in one JPEG file (MPO), left out"

T = TypeVar("T")


R = TypeVar("R")


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


class BrokenImage(Exception):
    """One image cannot be read; says why."""


@dataclass(frozen=True)
class Decoded:
    """One image, and what was seen of it on the way."""

    pixels: Images
    """uint8 [C, H, W]."""
    format: str | None = None
    """As Pillow calls the encoding; None: it came as an array."""
    width: int = 0
    """Pixels of the picture as it was encoded, before any cropping."""
    height: int = 0
    remarks: tuple[str, ...] = ()


def decode(content: bytes | Images, size: int | None = None, channels: int | None = None) -> Images:
    """One image as uint8 [C, H, W]: turned upright, cropped and resized, converted, as asked.

    Args:
        size: crop to the central square, then resize to size x size (Lanczos, antialiased).
        channels: 1 or 3, to convert to; None: grey or RGB, as the image is.

    Raises:
        BrokenImage: it cannot be decoded, is too large, or has a form that would lose something.
    """
    return look_and_decode(content, size, channels, convert_colours=True).pixels


def look_and_decode(
    content: bytes | Images,
    size: int | None = None,
    channels: int | None = None,
    convert_colours: bool = False,
    alone: Path | None = None,
) -> Decoded:
    """As `decode`, with what was seen.

    Args:
        convert_colours: colours of a profile other than sRGB become sRGB.
        alone: a file that is locked while a large picture is decoded, where several processes
            decode: several such at once may not fit.

    Raises:
        BrokenImage: as `decode`.
        OtherColours: there are such colours and `convert_colours` is false.
    """
    try:
        if not isinstance(content, bytes):
            return _of_array(content, size, channels)
        opened = Image.open(io.BytesIO(content), formats=FORMATS)
        large = opened.width * opened.height > ALONE_PIXELS
        with _locked(alone) if alone and large else nullcontext():
            return _decode(opened, size, channels, convert_colours)
    except (BrokenImage, OtherColours):
        raise
    except Exception as error:  # Pillow's decoders raise nearly anything on damaged bytes
        raise BrokenImage(_reason(error)) from None


def _of_array(pixels: Images, size: int | None, channels: int | None) -> Decoded:
    if pixels.ndim != 3 or len(pixels) not in (1, 3) or 0 in pixels.shape:
        shape = " x ".join(map(str, pixels.shape))
        raise BrokenImage(f"has the shape {shape}, not 1 or 3 channels of at least one pixel")
    if size is None and channels in (None, len(pixels)):
        return Decoded(pixels, None, pixels.shape[2], pixels.shape[1])
    image = Image.fromarray(pixels[0] if len(pixels) == 1 else np.moveaxis(pixels, 0, 2))
    image = _sized(_to_mode(image, channels), size)
    return Decoded(_pixels(image), None, pixels.shape[2], pixels.shape[1])


def _decode(
    opened: Image.Image, size: int | None, channels: int | None, convert_colours: bool
) -> Decoded:
    width, height = opened.size
    if size is None and width * height > MAX_PIXELS:
        raise BrokenImage(f"has {width} x {height} pixels: pass `size`")
    remarks = list(_check_whole(opened))
    bits = _bits(opened)
    if bits > 8:
        raise BrokenImage(f"has {bits} bits a channel, not grey or RGB of 8 bits")
    opened.load()
    info, form = opened.info, opened.format
    profile, gamma = info.get("icc_profile"), info.get("gamma")
    ImageOps.exif_transpose(opened, in_place=True)
    image = _without_palette(_opaque(opened, bits))
    if profile:
        image, told = to_srgb(image, bytes(profile), convert_colours)
        remarks += [told] if told else []
    elif isinstance(gamma, float) and "srgb" not in info and abs(gamma - 0.45455) > 0.01:
        remarks.append(GAMMA)
    image = _sized(_to_mode(image, channels), size)
    return Decoded(_pixels(image), form, width, height, tuple(remarks))


def _check_whole(opened: Image.Image) -> Iterator[str]:
    """Remarks on what a file holds beside its first picture.

    Raises:
        BrokenImage: it is an animation, or has several pages.
    """
    if not getattr(opened, "is_animated", False):
        return
    if opened.format == "MPO":  # a camera's preview or depth beside the photo itself
        yield FURTHER_PICTURES
        return
    raise BrokenImage("has several frames or pages: save the one that is wanted alone")


def _bits(opened: Image.Image) -> int:
    """Bits of a channel in the file; Pillow itself cuts some forms of 16 bits to 8."""
    if opened.format == "TIFF":
        tags: Any = opened
        return max((int(bits) for bits in tags.tag_v2.get(258, (1,))), default=1)
    tiles: Any = getattr(opened, "tile", ())
    arguments = tiles[0][3] if tiles else ""
    if opened.format == "PPM" and isinstance(arguments, tuple):  # the largest value
        return int(arguments[-1]).bit_length() if isinstance(arguments[-1], int) else 8
    raw = arguments if isinstance(arguments, str) else ""
    mode, _, depth = raw.partition(";")
    digits = "".join(c for c in depth if c.isdigit())
    if opened.format in ("PNG", "PPM") and digits:
        return int(digits)
    return 1 if mode == "1" else 8


def _opaque(image: Image.Image, bits: int) -> Image.Image:
    """The picture without its alpha, which must be full: what lies behind transparent pixels is not
    guessed.

    Raises:
        BrokenImage: it has transparent pixels.
    """
    if not image.has_transparency_data:
        return image
    level = image.info.get("transparency")
    if image.mode in ("L", "1") and isinstance(level, int):
        # A file's grey level of 1, 2 or 4 bits; the pixels are spread over 8 already.
        if image.mode == "L":
            level *= {1: 255, 2: 85, 4: 17}.get(bits, 1)
        see_through = bool((np.asarray(image.convert("L")) == level).any())
    elif image.mode == "P" and isinstance(level, int | bytes):
        see_through = _palette_is_seen_through(image, level)
    else:
        alpha: Any = image.convert("RGBA").getchannel("A").getextrema()
        see_through = alpha != (255, 255)
    if see_through:
        raise BrokenImage("has transparent pixels: flatten it first")
    if image.mode in ("LA", "La"):
        return image.convert("L")
    if image.mode in ("RGBA", "RGBa", "PA"):
        return image.convert("RGB")
    image.info.pop("transparency", None)
    return image


def _palette_is_seen_through(image: Image.Image, level: int | bytes) -> bool:
    """Whether a pixel has a colour of the palette that is not opaque."""
    used = np.flatnonzero(image.histogram())
    if isinstance(level, int):
        return level in used
    return any(number < len(level) and level[number] != 255 for number in used.tolist())


def _without_palette(image: Image.Image) -> Image.Image:
    if image.mode not in ("1", "P"):
        return image
    grey = image.mode == "1" or _is_grey(image)
    return image.convert("L" if grey else "RGB")


def _reason(error: Exception) -> str:
    text = reason(error)
    return "no image of a known format" if "cannot identify" in text else text


def _to_mode(image: Image.Image, channels: int | None) -> Image.Image:
    """Grey or RGB of eight bits."""
    if channels is not None and image.mode == "LAB":
        image = image.convert("RGB")  # the only form that Pillow turns it to
    if channels is not None and image.mode in ("L", "RGB", "CMYK", "YCbCr", "HSV"):
        image = image.convert("L" if channels == 1 else "RGB")
    if image.mode not in ("L", "RGB"):
        raise BrokenImage(f"has the form {image.mode}, not grey or RGB of 8 bits")
    return image


def _is_grey(image: Image.Image) -> bool:
    """Whether all colours of the palette that occur are grey."""
    used = np.flatnonzero(image.histogram())
    colours = np.zeros((256, 3), dtype=np.uint8)
    palette = np.array(image.getpalette("RGB") or [], dtype=np.uint8).reshape(-1, 3)
    colours[: len(palette)] = palette
    return bool((colours[used] == colours[used][:, :1]).all())


def _sized(image: Image.Image, size: int | None) -> Image.Image:
    if size is None:
        return image
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    box = (left, top, left + side, top + side)
    square = image if image.size == (side, side) else image.crop(box)  # a copy
    return square if side == size else square.resize((size, size), Image.Resampling.LANCZOS)


def _pixels(image: Image.Image) -> Images:
    pixels = np.asarray(image)
    return pixels[None] if pixels.ndim == 2 else np.ascontiguousarray(np.moveaxis(pixels, -1, 0))


def in_order(
    function: Callable[[T], R],
    items: Iterable[T],
    workers: int,
    weigh: Callable[[T], int] = lambda item: 0,
) -> Iterator[R]:
    """map(function, items) by threads, in order, with few items under way at a time.

    Args:
        weigh: bytes that an item holds; of those under way together at most HELD_BYTES, or one.
    """
    pool = ThreadPoolExecutor(workers)
    try:
        waiting: deque[tuple[Any, int]] = deque()
        held = 0
        for item in items:
            weight = weigh(item)
            while waiting and (len(waiting) > 4 * workers or held + weight > HELD_BYTES):
                future, freed = waiting.popleft()
                held -= freed
                yield future.result()
            waiting.append((pool.submit(function, item), weight))
            held += weight
        while waiting:
            yield waiting.popleft()[0].result()
    finally:
        pool.shutdown(cancel_futures=True)
